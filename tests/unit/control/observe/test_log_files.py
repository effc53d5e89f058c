"""Logs are read by range, from either end, through rotations, and followed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from modelcloud.control.observe import log_files
from modelcloud.control.observe.log_files import (
    BEGINNING,
    Filter,
    Line,
    deployment_log,
    follow,
    read,
    version_log,
)
from modelcloud.errors import InvalidInput


class Log:
    """A log that a test writes to and rotates, as the node does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "1.log"
        self.written = 0

    def write(self, *texts: str, source: str = "w1 g1 | ") -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for text in texts:
                self.written += 1
                file.write(f"2025-11-20T07:00:00.{self.written % 1000:03d}Z {source}{text}\n")

    def rotate(self) -> None:
        self._name(5).unlink(missing_ok=True)
        for number in range(4, -1, -1):
            if self._name(number).exists():
                self._name(number).rename(self._name(number + 1))

    def _name(self, number: int) -> Path:
        return self.path.with_name(f"1.log.{number}") if number else self.path


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def backwards(path: Path, lines: int) -> list[str]:
    """All there is, page by page from the end."""
    found: list[str] = []
    page = read(path, lines)
    found = texts(page.lines)
    while page.before is not None:
        page = read(path, lines, before=page.before)
        found = texts(page.lines) + found
    return found


def forwards(path: Path, lines: int, after: str | None = BEGINNING) -> list[str]:
    """All there is after a cursor, page by page."""
    found: list[str] = []
    while (page := read(path, lines, after=after)).after != after:
        found += texts(page.lines)
        after = page.after
    return found


def test_the_last_lines_come_apart_in_their_parts(log: Log) -> None:
    log.write("one", "two", "three | four: five")
    log.write("loading", source="rollout 7: ")
    log.write("as it is", source="")
    assert read(log.path, 4).lines == [
        Line("2025-11-20T07:00:00.002Z", "w1 g1", "two"),
        Line("2025-11-20T07:00:00.003Z", "w1 g1", "three | four: five"),
        Line("2025-11-20T07:00:00.004Z", "rollout 7", "loading"),
        Line("2025-11-20T07:00:00.005Z", "", "as it is"),
    ]


def test_a_line_of_another_form_is_all_text(log: Log) -> None:
    log.path.write_bytes(b"Traceback:\n\n\xff\xfe\n")
    assert read(log.path).lines == [
        Line("", "", "Traceback:"), Line("", "", ""), Line("", "", "\ufffd\ufffd"),
    ]  # fmt: skip


def test_a_log_that_is_not_there_yet_is_empty_and_can_be_gone_on_with(log: Log) -> None:
    page = read(log.path)
    assert page == ([], None, None)
    log.write("first")
    assert forwards(log.path, 10) == ["first"]


def test_a_line_that_is_being_written_is_not_there_yet(log: Log) -> None:
    log.path.write_bytes(b"2025-")
    assert read(log.path) == ([], None, None)
    log.path.write_bytes(b"2025-11-20T07:00:00.001Z one\n2025-11-20")
    page = read(log.path)
    assert texts(page.lines) == ["one"]
    assert read(log.path, after=page.after).lines == []
    log.path.write_bytes(b"2025-11-20T07:00:00.001Z one\n2025-11-20T07:00:00.002Z two\n")
    assert texts(read(log.path, after=page.after).lines) == ["two"]


def test_the_cut_line_at_the_end_of_a_rotated_file_is_a_line(log: Log) -> None:
    log.path.write_bytes(b"a\nb cut")
    log.rotate()
    log.write("c")
    assert backwards(log.path, 1) == ["a", "b cut", "c"]
    assert forwards(log.path, 1) == ["a", "b cut", "c"]


@pytest.mark.parametrize("lines", [1, 3, 7, 5000])
def test_pages_from_either_end_give_every_line_once_over_all_files(log: Log, lines: int) -> None:
    choice = random.Random(lines)
    written: list[str] = []
    for _ in range(4):
        # Lines around the size of a block, and many small ones.
        sizes = choice.choices(
            [0, 1, 80, 65_535, 65_536, 70_000, 200_000], [3, 9, 9, 1, 1, 1, 1], k=20
        )
        part = [f"{len(written) + n} {'x' * size}" for n, size in enumerate(sizes)]
        log.write(*part)
        written += part
        log.rotate()
    log.write("last")
    written.append("last")
    assert backwards(log.path, lines) == written
    assert forwards(log.path, lines) == written


def test_a_cursor_outlives_a_rotation_between_two_pages(log: Log) -> None:
    log.write(*(f"a{n}" for n in range(10)))
    newest = read(log.path, 3)
    log.write("b")
    log.rotate()
    log.write("c")
    log.rotate()
    log.write("d")
    assert texts(read(log.path, 2, before=newest.before).lines) == ["a5", "a6"]
    assert forwards(log.path, 2, newest.after) == ["b", "c", "d"]


def test_a_cursor_into_a_file_that_is_gone_leads_to_the_oldest_line(log: Log) -> None:
    log.write("gone")
    log.write("gone too")
    page = read(log.path, 1)
    for number in range(7):
        log.rotate()
        log.write(f"kept {number}")
    kept = [f"kept {number}" for number in range(1, 7)]
    assert forwards(log.path, 10, page.after) == kept
    before = read(log.path, before=page.before)
    assert (before.lines, before.before) == ([], None)
    assert forwards(log.path, 10, before.after) == kept


def test_another_file_with_the_inode_of_one_that_is_gone_is_not_taken_for_it(log: Log) -> None:
    log.write("first")
    inode, offset, mark = (read(log.path, 1).after or "").split("-")
    other = f"{inode}-{offset}-{int(mark, 16) ^ 1:08x}"
    assert texts(read(log.path, after=other).lines) == ["first"]


def test_only_lines_of_a_replica_that_contain_a_text_are_taken(log: Log) -> None:
    for number in range(60):
        log.write(f"Epoch {number}", source=f"w{number % 12} g1 | ")
    only = Filter(q="ePOCH 1", replica=1)
    page = read(log.path, 1, only=only)
    assert texts(page.lines) == ["Epoch 13"]
    page = read(log.path, 5, before=page.before, only=only)
    assert texts(page.lines) == ["Epoch 1"]
    assert page.before is None
    assert texts(read(log.path, after=BEGINNING, only=only).lines) == ["Epoch 1", "Epoch 13"]


def test_a_search_looks_at_so_much_at_a_time_and_says_how_to_go_on(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write("needle", *(["hay"] * 1000))
    monkeypatch.setattr(log_files, "SCAN_BYTES", 10_000)
    page, looks = read(log.path, only=Filter(q="needle")), 1
    while not page.lines:
        assert page.before is not None
        page, looks = read(log.path, before=page.before, only=Filter(q="needle")), looks + 1
    assert looks > 2
    page, looks = read(log.path, after=BEGINNING, only=Filter(q="none")), 1
    assert page.lines == []
    assert read(log.path, after=page.after, only=Filter(q="none")).after != page.after


def test_a_page_costs_its_own_lines_and_not_those_of_the_log(log: Log) -> None:
    log.write(*(f"line {number} of a log of the usual length" for number in range(100_000)))

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    page = read(log.path, 1000)
    assert read(log.path, 1000, before=page.before).lines
    assert read(log.path, 1000, after=page.after).lines == []
    assert bytes_read() - before < log.path.stat().st_size / 10


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"before": "x"}, "cursor"),
        ({"after": "../../etc/passwd"}, "cursor"),
        ({"after": "1-2"}, "cursor"),
        ({"after": f"{'f' * 17}-0-00000000"}, "cursor"),
        ({"before": BEGINNING, "after": BEGINNING}, "one of them"),
        ({"lines": 0}, "lines"),
        ({"lines": 5001}, "lines"),
    ],
)
def test_what_cannot_be_read_is_refused(log: Log, asked: dict[str, int | str], says: str) -> None:
    log.write("one")
    with pytest.raises(InvalidInput, match=says):
        read(log.path, **asked)  # type: ignore[arg-type]


def test_a_cursor_that_somebody_made_up_reads_nothing_else(log: Log) -> None:
    log.write("one", "two")
    inode, _, mark = (read(log.path).after or "").split("-")
    assert read(log.path, after=f"{inode}-ffffffffff-{mark}").lines == []
    assert len(read(log.path, before=f"{inode}-ffffffffff-{mark}").lines) == 2
    assert read(log.path, before=f"{inode}-5-{mark}").lines == [Line("", "", "2025-")]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "/etc", "a\0"])
def test_a_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="service"):
        deployment_log(Path("logs"), name)
    with pytest.raises(InvalidInput, match="service"):
        version_log(Path("logs"), name, 1)


def test_new_lines_come_as_they_are_written_through_rotations(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "POLL_S", 0.005)

    async def run() -> None:
        pages = follow(log.path, BEGINNING, heartbeat_s=60)
        found: list[str] = []

        async def more(count: int) -> list[str]:
            nonlocal found
            while len(found) < count:
                found += texts((await pages.__anext__()).lines)
            taken, found = found[:count], found[count:]
            return taken

        log.write("one")
        assert await asyncio.wait_for(more(1), 20) == ["one"]
        log.write("two")
        log.rotate()
        log.write("three")
        assert await asyncio.wait_for(more(2), 20) == ["two", "three"]
        log.rotate()
        log.write("four")
        assert await asyncio.wait_for(more(1), 20) == ["four"]
        log.write(*(str(number) for number in range(2500)))
        assert await asyncio.wait_for(more(2500), 20) == [str(number) for number in range(2500)]
        await pages.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())


def test_a_follower_hears_now_and_then_where_nothing_is_written(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "POLL_S", 0.005)

    async def run() -> None:
        pages = follow(log.path, BEGINNING, heartbeat_s=0.01)
        assert (await asyncio.wait_for(pages.__anext__(), 20)).lines == []
        log.write("one")
        while not (page := await asyncio.wait_for(pages.__anext__(), 20)).lines:
            pass
        assert texts(page.lines) == ["one"]
        await pages.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())


def test_a_log_in_which_nothing_happens_is_not_read(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write("one")
    monkeypatch.setattr(log_files, "POLL_S", 0.001)
    reads = 0
    really = log_files.read

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal reads
        reads += 1
        return really(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(log_files, "read", counted)

    async def run() -> None:
        after = really(log.path).after
        assert after is not None
        beats = 0
        async for _ in follow(log.path, after, heartbeat_s=0.02):
            if (beats := beats + 1) == 3:
                return

    asyncio.run(run())
    assert reads == 1
