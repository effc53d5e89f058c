"""Where the output of the node and of its children goes: files, console, a bounded memory.

Must never: block the node's loop (a thread writes; what it cannot keep up with is dropped and
counted), or pass on a control character (attack row 38: a line is one line).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NamedTuple, TextIO

from modelcloud.errors import UsageError
from modelcloud.types import GenerationSpec

#: Longer lines are cut into pieces of this many bytes.
LINE_BYTES = 4096
#: Lines remembered of each child, and children remembered, those that wrote last.
REMEMBERED_LINES = 200
REMEMBERED_SOURCES = 64
FILE_BYTES = 10 * 1024 * 1024
FILES_KEPT = 5
QUEUED_LINES = 10_000
#: Files held open, those last written to; another one is opened again when it is needed.
OPEN_FILES = 64

#: C0, DEL and C1, line and paragraph separators, and what reorders text.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OutputLine(NamedTuple):
    """One line that a worker wrote, or that was recorded for it."""

    deployment: str
    generation: int
    version: int
    worker: int
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
        by_version: the lines of workers go to `services/<service>/<version>.log` instead of one
            file for all, and are not echoed.

    Raises:
        UsageError: the folder is not there and cannot be made.
    """

    def __init__(
        self, log_dir: str = "", console: TextIO | None = None, *, by_version: bool = False
    ) -> None:
        if log_dir:
            try:
                Path(log_dir).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"log_dir: {log_dir!r} cannot be made: {error.strerror}") from None
        self._by_version = by_version
        self._writer = _Writer(log_dir, console or sys.stderr)
        self._remembered: OrderedDict[str, deque[str]] = OrderedDict()
        self._subscribers: list[Callable[[OutputLine], None]] = []
        self._handler = _NodeHandler(self._writer)
        self._logger = logging.getLogger("modelcloud")
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._handler)

    def worker(self, spec: GenerationSpec, worker: int) -> LineCutter:
        """Take the output of a worker of this generation."""
        return LineCutter(lambda text: self.worker_line(spec, worker, text))

    def worker_line(self, spec: GenerationSpec, worker: int, text: str) -> None:
        """Record one line for a worker as if it had written it. The text is escaped already."""
        self._remember(f"worker {worker}", text)
        if self._by_version:
            file = f"services/{spec.service}/{spec.version}"
            self._writer.write(file, f"w{worker} g{spec.generation}", text, echo=False)
        else:
            self._writer.write("workers", f"worker {worker} generation {spec.generation}", text)
        line = OutputLine(spec.deployment, spec.generation, spec.version, worker, text)
        for subscriber in self._subscribers:
            subscriber(line)

    def note(self, spec: GenerationSpec, text: str) -> None:
        """Record a line of the node's own about a generation, as of worker 0.

        Only where its version has a log to itself; in a log of all, the node's is the place.
        """
        if self._by_version:
            self.worker_line(spec, 0, escape(text))

    def gateway(self, gateway: int) -> LineCutter:
        """Take the output of a gateway process; that of the one before is forgotten."""
        return self._process("gateways", f"gateway {gateway}")

    def control(self) -> LineCutter:
        """Take the output of a control plane; that of the one before is forgotten."""
        return self._process("control", "control plane")

    def bridge(self) -> LineCutter:
        """Take the output of a bridge to a cluster; that of the one before is forgotten."""
        return self._process("cluster", "cluster")

    def _process(self, file: str, source: str) -> LineCutter:
        self._remembered.pop(source, None)

        def record(text: str) -> None:
            self._remember(source, text)
            self._writer.write(file, source, text)

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


class _Entry(NamedTuple):
    """One line on its way to `<file>.log` below the log folder."""

    file: str
    when: float
    source: str
    text: str
    echo: bool


class _Writer(threading.Thread):
    """Writes queued lines, so that a full disk or a paused terminal never stops the node."""

    def __init__(self, log_dir: str, console: TextIO) -> None:
        super().__init__(name="log-writer", daemon=True)
        self._log_dir = log_dir
        self._console = console
        self._queue: queue.Queue[_Entry | None] = queue.Queue(QUEUED_LINES)
        self._files: OrderedDict[str, LogFile] = OrderedDict()  # the one last written to is last
        self._dropped = 0
        self.start()

    def write(self, file: str, source: str, text: str, *, echo: bool = True) -> None:
        """Queue one line for `<log_dir>/<file>.log` and, with `echo`, the console."""
        try:
            self._queue.put_nowait(_Entry(file, time.time(), source, text, echo))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=1)
        self.join(timeout=1)

    def run(self) -> None:
        while (entry := self._queue.get()) is not None:
            self._write(entry)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                text = f"warning: {dropped} log lines dropped"
                self._write(_Entry("node", time.time(), "", text, echo=True))
        for file in self._files.values():
            file.close()

    def _write(self, entry: _Entry) -> None:
        source = entry.source
        if entry.echo:
            self._echo(f"[{source}] {entry.text}" if source else entry.text)
        if not self._log_dir:
            return
        self._file(entry.file).write(entry.when, source, entry.text)

    def _file(self, name: str) -> LogFile:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = LogFile(Path(self._log_dir) / f"{name}.log", self._echo)
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(name)
        return file

    def _echo(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the console went away or was closed
            self._console.write(line + "\n")
            self._console.flush()


class LogFile(RotatingFileHandler):
    """A rotating file that says once, not at every line, that it cannot be written.

    Its folder is made when needed. Once someone removed it, as happens with a service that is
    deleted, it is begun anew.
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        super().__init__(
            path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", delay=True
        )
        self._complain = complain
        self._broken = False

    def write(self, when: float, source: str, text: str) -> None:
        """Write one line: when (seconds since the epoch), from where if that is known, and what."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when))
        origin = f"{source} | " if source else ""
        line = f"{stamp}.{int(when % 1 * 1000):03d}Z {origin}{text}"
        self.emit(logging.makeLogRecord({"msg": line}))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's message as a line."""
        stream = self.stream
        if stream is not None and not os.fstat(stream.fileno()).st_nlink:
            self.stream = None  # as `delay` leaves it
            stream.close()
        super().emit(record)

    def _open(self) -> TextIOWrapper:
        with contextlib.suppress(OSError):  # then the opening fails, and says why
            Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 — logging's name
        """Called inside the except clause of a failed write."""
        if not self._broken:
            self._broken = True
            self._complain(f"warning: cannot write {self.baseFilename}: {sys.exc_info()[1]}")
