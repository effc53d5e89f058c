"""Reads a rotated log: its last lines, those before or after a place, those to come.

Must never: read more than `SCAN_BYTES` in a call, or outside of the folder of logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from modelcloud.errors import InvalidInput
from modelcloud.node.logs import FILES_KEPT

#: Lines in one page.
MOST_LINES = 5000
_FOLLOWED = 1000
#: Bytes looked at in one call. A page that ends there for want of matches says how to go on.
SCAN_BYTES = 16 * 1024 * 1024
_BLOCK = 64 * 1024
#: The first bytes of a file tell it from another that has its inode now: the first line's time.
_MARK_BYTES = 24
#: A cursor of no file: all that there is comes after it.
BEGINNING = "0-0-00000000"
#: Seconds between two looks at a log that is followed.
POLL_S = 0.5

_CURSOR = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,12})-([0-9a-f]{8})")
#: As the node writes a worker's line, and as `rollout_log` words a step.
_LINE = re.compile(
    r"(\d{4}-\S{10,20}Z) (?:(w\d+ g\d+) \| |((?:rollout|deployment|generation) \d+): )?(.*)",
    re.DOTALL,
)


class Line(NamedTuple):
    """One line. `at` is empty for one that is not in the form in which lines are written.

    Attributes:
        at: when, ISO 8601 in UTC.
        source: `w3 g1` (worker 3 of generation 1), `rollout 7` or the like; empty when unknown.
    """

    at: str
    source: str
    text: str


class Page(NamedTuple):
    """Some lines, the oldest first.

    Attributes:
        before: the cursor of what comes before; None where nothing does.
        after: the cursor of what comes after, now or later; None where there is no log yet.
    """

    lines: list[Line]
    before: str | None
    after: str | None


class Filter(NamedTuple):
    """Which lines: those that contain `q`, in whatever case, and are of worker `replica`."""

    q: str = ""
    replica: int | None = None

    def takes(self, line: Line) -> bool:
        """Whether it is one of them."""
        if self.replica is not None and not line.source.startswith(f"w{self.replica} "):
            return False
        return not self.q or self.q.casefold() in line.text.casefold()


EVERYTHING = Filter()


def deployment_log(folder: Path, service: str) -> Path:
    """The deployment log of a service below the folder of all services' logs.

    Raises:
        InvalidInput: the name would lead elsewhere.
    """
    return _service_folder(folder, service) / "deployment.log"


def version_log(folder: Path, service: str, version: int) -> Path:
    """The application log of a version. Raises as `deployment_log` does."""
    return _service_folder(folder, service) / f"{version}.log"


def read(
    path: Path,
    lines: int = 200,
    *,
    before: str | None = None,
    after: str | None = None,
    only: Filter = EVERYTHING,
) -> Page:
    """Some lines of the log at `path` and the files it was rotated into.

    Args:
        path: the file that is written to; it need not exist yet.
        lines: this many at most.
        before: the lines right before this cursor; without a cursor, the last ones.
        after: the lines right after this cursor. One whose lines are gone stands for the oldest.
        only: the others are passed over.

    Raises:
        InvalidInput: a cursor that is none, or both.
    """
    if before is not None and after is not None:
        raise InvalidInput("before", "both `before` and `after`", "one of them")
    if not 1 <= lines <= MOST_LINES:
        raise InvalidInput("lines", str(lines), f"1 to {MOST_LINES}")
    cursor = before if after is None else after
    asked = None if cursor is None else _parse(cursor)
    with contextlib.ExitStack() as stack:
        files = _open_all(path, stack)
        if not files:
            return Page([], None, cursor)
        if after is None:
            return _backward(files, lines, _place(files, asked), only, was=before)
        return _forward(files, lines, _place(files, asked), only)


async def follow(
    path: Path, after: str, only: Filter = EVERYTHING, *, heartbeat_s: float
) -> AsyncIterator[Page]:
    """Pages of the lines that are written to a log, as they come, without end.

    Args:
        path: as for `read`.
        after: the cursor to begin at.
        only: the other lines are passed over.
        heartbeat_s: after so long without a line a page without lines comes, for the reader to
            see whether it is to go on.
    """
    read_up_to: tuple[int, int] | None = None
    beat_at = time.monotonic() + heartbeat_s
    while True:
        stands = _stands(path)
        if stands == read_up_to:
            await asyncio.sleep(POLL_S)
            page = Page([], None, after)
        else:
            page = await asyncio.to_thread(read, path, _FOLLOWED, after=after, only=only)
            if page.after == after:
                read_up_to = stands
            after = page.after or after
        if page.lines or time.monotonic() >= beat_at:
            beat_at = time.monotonic() + heartbeat_s
            yield page


def _stands(path: Path) -> tuple[int, int]:
    """What of a log differs once something is written to it."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_size


class _Cursor(NamedTuple):
    inode: int
    offset: int
    mark: int


class _File(NamedTuple):
    """An open file of a log; `end` is where its last whole line ends."""

    stream: BinaryIO
    inode: int
    mark: int
    end: int


class _Place(NamedTuple):
    """A place in a log: a file, by its index, and an offset in it."""

    file: int
    offset: int


def _service_folder(folder: Path, service: str) -> Path:
    if service in {"", ".", ".."} or "/" in service or "\0" in service:
        raise InvalidInput("service", repr(service[:70]), "the name of a service")
    return folder / service


def _parse(cursor: str) -> _Cursor:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidInput("cursor", repr(cursor[:40]), "`before` or `after` of an earlier answer")
    return _Cursor(*(int(part, 16) for part in found.groups()))


def _open_all(path: Path, stack: contextlib.ExitStack) -> list[_File]:
    """The files of a log, the oldest first."""
    files: list[_File] = []
    names = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, FILES_KEPT + 1))]
    # From the newest on: one that is renamed meanwhile is met twice, and none is missed.
    for name in names:
        try:
            stream = stack.enter_context(name.open("rb"))
        except OSError:
            continue
        status = os.fstat(stream.fileno())
        # Only the newest is written to; the rest of another, however it ends, is a line.
        end = status.st_size if files else _end_of_last_line(stream, status.st_size)
        if end and all(file.inode != status.st_ino for file in files):
            stream.seek(0)
            mark = zlib.crc32(stream.read(_MARK_BYTES).partition(b"\n")[0])
            files.append(_File(stream, status.st_ino, mark, end))
    return files[::-1]


def _end_of_last_line(stream: BinaryIO, size: int) -> int:
    while size > 0:
        start = max(size - _BLOCK, 0)
        stream.seek(start)
        found = stream.read(size - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


def _place(files: list[_File], cursor: _Cursor | None) -> _Place | None:
    """Where the cursor points; None where it is none or its file is gone."""
    if cursor is None:
        return None
    for index, file in enumerate(files):
        if (file.inode, file.mark) == (cursor.inode, cursor.mark):
            return _Place(index, min(cursor.offset, file.end))
    return None


def _cursor(files: list[_File], place: _Place) -> str:
    file = files[place.file]
    return f"{file.inode:x}-{place.offset:x}-{file.mark:08x}"


def _backward(
    files: list[_File], lines: int, place: _Place | None, only: Filter, was: str | None
) -> Page:
    if place is None:
        if was is not None:  # what came before it is gone with it
            return Page([], None, _cursor(files, _Place(0, 0)))
        place = _Place(len(files) - 1, files[-1].end)
    found, start = _take(_lines_before(files, place), place, lines, only)
    more = start != _Place(0, 0)
    return Page(found[::-1], _cursor(files, start) if more else None, _cursor(files, place))


def _forward(files: list[_File], lines: int, place: _Place | None, only: Filter) -> Page:
    start = place or _Place(0, 0)
    found, end = _take(_lines_after(files, start), start, lines, only)
    more = start != _Place(0, 0)
    return Page(found, _cursor(files, start) if more else None, _cursor(files, end))


def _take(
    there: Iterator[tuple[_Place, bytes]], place: _Place, lines: int, only: Filter
) -> tuple[list[Line], _Place]:
    """So many lines that are asked for, of those that come from `place` on; and where that ends."""
    found: list[Line] = []
    end, left = place, SCAN_BYTES
    for at, raw in there:
        end = at
        left -= len(raw)
        line = _line(raw)
        if only.takes(line):
            found.append(line)
        if len(found) == lines or left <= 0:
            break
    return found, end


def _lines_before(files: list[_File], place: _Place) -> Iterator[tuple[_Place, bytes]]:
    """Lines from `place` back to the beginning, each with the place where it begins."""
    for index in range(place.file, -1, -1):
        file = files[index]
        end = place.offset if index == place.file else file.end
        rest = b""  # the end of a line whose beginning is not read yet
        while end > 0:
            start = max(end - _BLOCK, 0)
            file.stream.seek(start)
            block = file.stream.read(end - start) + rest
            whole = block if start == 0 else block[block.find(b"\n", 0, len(block) - 1) + 1 :]
            if start and len(whole) == len(block):  # the beginning is further back
                rest, end = block, start
                continue
            rest, end = block[: len(block) - len(whole)], start
            ended = whole.endswith(b"\n")
            offset = start + len(block) + (not ended)
            for raw in reversed(whole[: len(whole) - ended].split(b"\n")):
                offset -= len(raw) + 1
                yield _Place(index, offset), raw


def _lines_after(files: list[_File], place: _Place) -> Iterator[tuple[_Place, bytes]]:
    """Lines from `place` on, each with the place where it ends."""
    for index in range(place.file, len(files)):
        file = files[index]
        offset = place.offset if index == place.file else 0
        file.stream.seek(offset)
        for raw in file.stream:
            offset += len(raw)
            if offset > file.end:  # it is being written
                break
            yield _Place(index, offset), raw.removesuffix(b"\n")


def _line(raw: bytes) -> Line:
    text = raw.decode("utf-8", "replace")
    found = _LINE.fullmatch(text)
    return Line(found[1], found[2] or found[3] or "", found[4]) if found else Line("", "", text)
