"""Where the output of the node and of its children goes: files, console, a bounded memory.

Must never: block the node's loop (a thread writes; what it cannot keep up with is dropped and
counted), or pass on a control character (attack row 38: a line is one line).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NamedTuple, TextIO

from modelcloud.errors import UsageError

#: Longer lines are cut into pieces of this many bytes.
LINE_BYTES = 4096
#: Lines remembered of each child, and children remembered, those that wrote last.
REMEMBERED_LINES = 200
REMEMBERED_SOURCES = 64
FILE_BYTES = 10 * 1024 * 1024
FILES_KEPT = 5
QUEUED_LINES = 10_000

#: C0, DEL and C1, line and paragraph separators, and what reorders text.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OutputLine(NamedTuple):
    """One line that a worker wrote."""

    worker: int
    generation: int
    text: str


def escape(text: str) -> str:
    """The text with every control character but the tab spelled out as Python would."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LineCutter:
    """Cuts a child's output into escaped lines of bounded length."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Add output as it was read."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._cut(line)
        while len(rest) > LINE_BYTES:
            self._line(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rest = rest

    def close(self) -> None:
        """Emit what the child wrote without ending the line."""
        if self._rest:
            self._cut(self._rest)
            self._rest = b""

    def _cut(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), LINE_BYTES):
            self._line(line[start : start + LINE_BYTES])

    def _line(self, line: bytes) -> None:
        # A progress bar draws over itself; its last state is what a terminal would show.
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        self._emit(escape(shown.decode("utf-8", "replace")))


class Logs:
    """The node's log and the output of its children.

    The node's own modules log through `logging.getLogger(__name__)`.

    Args:
        log_dir: folder of `node.log` and one file per kind of child, rotated by size; empty: none.
        console: where lines are echoed.

    Raises:
        UsageError: the folder is not there and cannot be made.
    """

    def __init__(self, log_dir: str = "", console: TextIO | None = None) -> None:
        if log_dir:
            try:
                Path(log_dir).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"log_dir: {log_dir!r} cannot be made: {error.strerror}") from None
        self._writer = _Writer(log_dir, console or sys.stderr)
        self._remembered: OrderedDict[str, deque[str]] = OrderedDict()
        self._subscribers: list[Callable[[OutputLine], None]] = []
        self._handler = _NodeHandler(self._writer)
        self._logger = logging.getLogger("modelcloud")
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._handler)

    def worker(self, worker: int, generation: int) -> LineCutter:
        """Take the output of a worker."""
        return LineCutter(lambda text: self.worker_line(worker, generation, text))

    def worker_line(self, worker: int, generation: int, text: str) -> None:
        """Record one line for a worker as if it had written it. The text is escaped already."""
        self._remember(f"worker {worker}", text)
        self._writer.write("workers", f"worker {worker} generation {generation}", text)
        line = OutputLine(worker, generation, text)
        for subscriber in self._subscribers:
            subscriber(line)

    def gateway(self, gateway: int) -> LineCutter:
        """Take the output of a gateway process; that of the one before is forgotten."""
        self._remembered.pop(f"gateway {gateway}", None)

        def record(text: str) -> None:
            self._remember(f"gateway {gateway}", text)
            self._writer.write("gateways", f"gateway {gateway}", text)

        return LineCutter(record)

    def tail(self, worker: int, lines: int) -> list[str]:
        """The last lines that a worker wrote, of the workers still remembered."""
        return list(self._remembered.get(f"worker {worker}", ()))[-lines:]

    def gateway_tail(self, gateway: int, lines: int) -> list[str]:
        """The last lines that a gateway process wrote."""
        return list(self._remembered.get(f"gateway {gateway}", ()))[-lines:]

    def subscribe(self, callback: Callable[[OutputLine], None]) -> Callable[[], None]:
        """Call `callback` with every line of every worker; the result ends that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def _remember(self, source: str, text: str) -> None:
        lines = self._remembered.setdefault(source, deque(maxlen=REMEMBERED_LINES))
        lines.append(text)
        self._remembered.move_to_end(source)
        if len(self._remembered) > REMEMBERED_SOURCES:
            self._remembered.popitem(last=False)

    def close(self) -> None:
        """Write what is queued (for two seconds at most) and close the files."""
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)
        self._writer.close()


class _NodeHandler(logging.Handler):
    """Turns a record of the node's modules into lines."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's message, then its traceback, one line each."""
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
            first, *more = text.split("\n")
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            self._writer.write("node", "", escape(level + first))
            for line in more:  # set off, since a model may have worded it
                self._writer.write("node", "", f"  {escape(line)}")
        except Exception:
            self.handleError(record)


class _Writer(threading.Thread):
    """Writes queued lines, so that a full disk or a paused terminal never stops the node."""

    def __init__(self, log_dir: str, console: TextIO) -> None:
        super().__init__(name="log-writer", daemon=True)
        self._log_dir = log_dir
        self._console = console
        self._queue: queue.Queue[tuple[str, float, str, str] | None] = queue.Queue(QUEUED_LINES)
        self._files: dict[str, _File] = {}
        self._dropped = 0
        self.start()

    def write(self, file: str, source: str, text: str) -> None:
        """Queue one line for `<log_dir>/<file>.log` and the console."""
        try:
            self._queue.put_nowait((file, time.time(), source, text))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=1)
        self.join(timeout=1)

    def run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._write(*item)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._write("node", time.time(), "", f"warning: {dropped} log lines dropped")
        for file in self._files.values():
            file.close()

    def _write(self, name: str, when: float, source: str, text: str) -> None:
        self._echo(f"[{source}] {text}" if source else text)
        if not self._log_dir:
            return
        file = self._files.get(name)
        if file is None:
            path = Path(self._log_dir) / f"{name}.log"
            file = self._files[name] = _File(path, self._echo)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when))
        line = f"{stamp}.{int(when % 1 * 1000):03d}Z {f'{source} | ' if source else ''}{text}"
        file.emit(logging.makeLogRecord({"msg": line}))

    def _echo(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the console went away or was closed
            self._console.write(line + "\n")
            self._console.flush()


class _File(RotatingFileHandler):
    """A rotating file that says once, not at every line, that it cannot be written."""

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        super().__init__(
            path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", delay=True
        )
        self._complain = complain
        self._broken = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 — logging's name
        """Called inside the except clause of a failed write."""
        if not self._broken:
            self._broken = True
            self._complain(f"warning: cannot write {self.baseFilename}: {sys.exc_info()[1]}")
