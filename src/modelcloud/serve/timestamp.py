"""A timestamp file, which a producer touches once the model beside it is whole: what to take, when.

Must never: let files of two models pass for one, as long as the producer touches the file last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from modelcloud.artifacts.snapshot import Snapshot, take
from modelcloud.errors import ModelLoadError
from modelcloud.serve.watch import Look, look_at

#: How often a folder is read anew that changed while it was read.
TRIES = 8

#: Path, time of modification and of status in ns, size and inode of one file.
_Facts = tuple[str, int, int, int, int]


def take_whole(target: str, into: Path, timestamp: Path) -> tuple[Snapshot, Look]:
    """Copy all of the target's folder as it is between two looks that agree.

    A folder that is exchanged, or written to, while it is copied is copied again.

    Args:
        target: what is served.
        into: where snapshots are kept.
        timestamp: its timestamp file; no part of the model.

    Returns:
        The copy, and what the timestamp file looked like.

    Raises:
        ModelLoadError: there is no such target, it cannot be staged, or it did not stand still.
        OSError: the copy could not be written.
    """
    folder = folder_of(target)
    own = {timestamp.name} if timestamp.parent == Path(os.path.abspath(folder)) else set()  # noqa: PTH100 — as it is named
    for _ in range(TRIES):
        before = look_at(timestamp), _facts(folder)
        error: ModelLoadError | None = None
        try:
            taken = take(target, into, whole=True, without=own)
        except ModelLoadError as failed:
            error = failed
        if (look_at(timestamp), _facts(folder)) == before:
            if error is not None:
                raise error
            return taken, before[0]
    raise ModelLoadError(
        f"{folder} changed each of {TRIES} times that it was read; accepted: a model whose "
        f"{timestamp.name} is touched once it is whole",
        file=str(folder),
    )


def unfinished(target: str, timestamp: Path) -> str:
    """A file of the model that was written after its timestamp; empty if there is none.

    Of a producer that writes into the folder, it is the sign that the next model is on its way.
    """
    try:
        touched = timestamp.stat().st_ctime_ns
    except OSError:
        return ""
    for path, modified, changed, _, _ in _facts(folder_of(target)):
        # The time of modification may be any, as an archive has it; that of status cannot be set.
        # A file that was only renamed, or whose mode changed, keeps the former.
        if min(modified, changed) > touched and path != str(timestamp):
            return path
    return ""


def folder_of(target: str) -> Path:
    """Where a target's files are, links not followed: what they lead to may be exchanged."""
    place, colon, _ = target.rpartition(":")
    path = Path(place if colon and not Path(target).exists() else target)
    return path.parent if path.is_file() else path


def _facts(folder: Path) -> list[_Facts]:
    return sorted(_files(folder))


def _files(folder: Path) -> Iterator[_Facts]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118 — of every file, at every look
            try:
                found = os.lstat(path)
            except OSError:
                continue
            yield path, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
