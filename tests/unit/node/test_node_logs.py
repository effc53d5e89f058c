"""What becomes of the output of the node and its children."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import pytest

from modelcloud.node import logs as logs_module
from modelcloud.node.logs import LINE_BYTES, LineCutter, Logs, OutputLine


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
    logs.worker(3, 1).feed(b"hello\nworld\n")
    unsubscribe()
    logs.worker(3, 1).feed(b"later\n")
    logs.gateway(0).feed(b"served\n")
    logging.getLogger("modelcloud.node.test").warning("two\nlines \x1b")
    assert logs.tail(3, 2) == ["world", "later"]
    assert logs.tail(4, 2) == []
    logs.close()
    assert seen == [OutputLine(3, 1, "hello"), OutputLine(3, 1, "world")]
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
        logs.worker(worker, 1).feed(b"a\nb\nc\n")
    logs.close()
    assert [logs.tail(worker, 9) for worker in (1, 2, 3)] == [[], ["b", "c"], ["b", "c"]]


def test_files_are_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "FILE_BYTES", 1000)
    logs = Logs(str(tmp_path), io.StringIO())
    logs.worker(1, 1).feed(b"x" * 100 + b"\n" + (b"y" * 100 + b"\n") * 100)
    logs.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == logs_module.FILES_KEPT + 1
    assert all(file.stat().st_size <= 1000 for file in files)


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "workers.log").mkdir()
    console = io.StringIO()
    logs = Logs(str(tmp_path), console)
    logs.worker(1, 1).feed(b"a\nb\n")
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
    logs.worker(1, 1).feed(b"line\n" * 100)
    assert len(logs.tail(1, 1000)) == 100
    console.goes_on.set()
    logs.close()
    assert "log lines dropped" in console.getvalue()
