"""What becomes of the output of the node and its children."""

from __future__ import annotations

import io
import logging
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelcloud.node import logs as logs_module
from modelcloud.node.logs import LINE_BYTES, LineCutter, Logs, OutputLine
from modelcloud.types import GenerationSpec
from support.node import spec


def cut(*pieces: bytes) -> list[str]:
    lines: list[str] = []
    cutter = LineCutter(lines.append)
    for piece in pieces:
        cutter.feed(piece)
    cutter.close()
    return lines


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntw", b"o\n"], ["one", "two"]),
        ([b"unfinished"], ["unfinished"]),
        ([b"a\n\nb\r\n"], ["a", "", "b"]),
        ([b" 10%\r 50%\r100%\n"], ["100%"]),
        ([b" 10%\r 50%\r"], [" 50%"]),
        ([b"tab\tkept \x1b[31mred\x00\n"], ["tab\tkept \\x1b[31mred\\x00"]),
        (["\u2028\u202e\x85".encode() + b"\n"], ["\\u2028\\u202e\\x85"]),
        ([b"not \xff utf-8\n"], ["not \ufffd utf-8"]),
        ([b"x" * (LINE_BYTES + 1) + b"\n"], ["x" * LINE_BYTES, "x"]),
    ],
)
def test_output_is_cut_into_lines_without_control_characters(
    pieces: list[bytes], lines: list[str]
) -> None:
    assert cut(*pieces) == lines


def test_a_line_that_never_ends_is_not_kept_in_memory() -> None:
    lines: list[str] = []
    cutter = LineCutter(lines.append)
    for _ in range(100):
        cutter.feed(b"x" * 10_000)
    assert sum(map(len, lines)) >= 1_000_000 - LINE_BYTES


def test_lines_go_to_console_file_memory_and_subscribers(tmp_path: Path) -> None:
    console = io.StringIO()
    logs = Logs(str(tmp_path / "logs"), console)
    seen: list[OutputLine] = []
    unsubscribe = logs.subscribe(seen.append)
    logs.worker(spec(1), 3).feed(b"hello\nworld\n")
    unsubscribe()
    logs.worker(spec(1), 3).feed(b"later\n")
    logs.gateway(0).feed(b"served\n")
    logging.getLogger("modelcloud.node.test").warning("two\nlines \x1b")
    assert logs.tail(3, 2) == ["world", "later"]
    assert logs.tail(4, 2) == []
    logs.close()
    assert seen == [OutputLine("fib", 1, 1, 3, "hello"), OutputLine("fib", 1, 1, 3, "world")]
    assert console.getvalue().splitlines() == [
        "[worker 3 generation 1] hello", "[worker 3 generation 1] world",
        "[worker 3 generation 1] later", "[gateway 0] served", "warning: two", "  lines \\x1b",
    ]  # fmt: skip
    files = {p.name: p.read_text().splitlines() for p in (tmp_path / "logs").iterdir()}
    assert set(files) == {"workers.log", "gateways.log", "node.log"}
    assert files["workers.log"][0].endswith("Z worker 3 generation 1 | hello")


def test_memory_is_bounded_in_lines_and_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "REMEMBERED_LINES", 2)
    monkeypatch.setattr(logs_module, "REMEMBERED_SOURCES", 2)
    logs = Logs(console=io.StringIO())
    for worker in (1, 2, 3):
        logs.worker(spec(1), worker).feed(b"a\nb\nc\n")
    logs.close()
    assert [logs.tail(worker, 9) for worker in (1, 2, 3)] == [[], ["b", "c"], ["b", "c"]]


def test_files_are_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "FILE_BYTES", 1000)
    logs = Logs(str(tmp_path), io.StringIO())
    logs.worker(spec(1), 1).feed(b"x" * 100 + b"\n" + (b"y" * 100 + b"\n") * 100)
    logs.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == logs_module.FILES_KEPT + 1
    assert all(file.stat().st_size <= 1000 for file in files)


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "workers.log").mkdir()
    console = io.StringIO()
    logs = Logs(str(tmp_path), console)
    logs.worker(spec(1), 1).feed(b"a\nb\n")
    logs.close()
    complaints = [line for line in console.getvalue().splitlines() if "cannot write" in line]
    assert len(complaints) == 1
    assert "Is a directory" in complaints[0]


class PausedConsole(io.StringIO):
    """A terminal that takes nothing until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, text: str) -> int:
        self.goes_on.wait()
        return super().write(text)


def test_a_paused_console_never_stops_the_node_and_what_was_dropped_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs_module, "QUEUED_LINES", 10)
    console = PausedConsole()
    logs = Logs(console=console)
    logs.worker(spec(1), 1).feed(b"line\n" * 100)
    assert len(logs.tail(1, 1000)) == 100
    console.goes_on.set()
    logs.close()
    assert "log lines dropped" in console.getvalue()


def version(service: str, number: int, generation: int = 1) -> GenerationSpec:
    return replace(spec(generation, f"{service}/7"), version=number)


def test_each_version_has_a_file_of_its_own_in_which_its_workers_write(tmp_path: Path) -> None:
    console = io.StringIO()
    logs = Logs(str(tmp_path), console, by_version=True)
    seen: list[OutputLine] = []
    logs.subscribe(seen.append)
    logs.worker(version("m261", 1), 3).feed(b"one\n")
    logs.worker(version("m261", 2, generation=5), 4).feed(b"two\n")
    logs.worker_line(version("fib", 1), 0, "an environment is built")
    logs.control().feed(b"a control plane\n")
    logs.close()
    assert seen[1] == OutputLine("m261/7", 5, 2, 4, "two")
    services = tmp_path / "services"
    files = sorted(path.relative_to(services).as_posix() for path in services.glob("*/*"))
    assert files == ["fib/1.log", "m261/1.log", "m261/2.log"]
    (line,) = (services / "m261" / "2.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z w4 g5 \| two", line)
    assert (tmp_path / "control.log").read_text().endswith("control plane | a control plane\n")
    assert console.getvalue() == "[control plane] a control plane\n"


def until_written(file: Path, text: str) -> None:
    """Wait until the writer has got that far."""
    deadline = time.monotonic() + 20
    while not (file.exists() and text in file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_only_so_many_files_are_open_and_each_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "OPEN_FILES", 2)
    files = [tmp_path / "services" / "fib" / f"{number}.log" for number in range(1, 6)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    logs = Logs(str(tmp_path), io.StringIO(), by_version=True)
    for text in ("first", "second"):
        for number in range(1, 6):
            logs.worker_line(version("fib", number), 1, text)
    until_written(files[-1], "second")
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    logs.close()
    for file in files:
        lines = file.read_text().splitlines()
        assert [line.rpartition(" ")[2] for line in lines] == ["first", "second"]


@pytest.mark.parametrize("by_version", [True, False])
def test_what_the_node_notes_of_a_generation_is_beside_its_workers_lines_where_it_has_a_file(
    tmp_path: Path, by_version: bool
) -> None:
    logs = Logs(str(tmp_path), io.StringIO(), by_version=by_version)
    seen: list[OutputLine] = []
    logs.subscribe(seen.append)
    logs.note(version("m261", 2, generation=5), "lost a worker: \x1b[2J")
    logs.close()
    lines = [line for file in tmp_path.rglob("*.log") for line in file.read_text().splitlines()]
    if by_version:
        assert [line.partition("Z ")[2] for line in lines] == [r"w0 g5 | lost a worker: \x1b[2J"]
    else:  # the node's own log has it
        assert lines == []
    assert [line.worker for line in seen] == [0] * len(lines)


def test_a_file_that_was_removed_with_its_service_is_begun_anew(tmp_path: Path) -> None:
    logs = Logs(str(tmp_path), io.StringIO(), by_version=True)
    file = tmp_path / "services" / "fib" / "1.log"
    logs.worker_line(version("fib", 1), 1, "of a service that is deleted")
    until_written(file, "deleted")
    shutil.rmtree(file.parent)
    logs.worker_line(version("fib", 1), 2, "of the next one")
    logs.close()
    (line,) = file.read_text().splitlines()
    assert line.endswith("w2 g1 | of the next one")
