"""A shell that somebody types into: what is set, defined or started in it stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

MARK = "== the end of this command, with status"


class Shell:
    """One bash, whose two streams are read as one.

    Args:
        folder: it starts in.
        environment: all of it.
        answers: lines that each command finds at its standard input.
    """

    def __init__(self, folder: Path, environment: dict[str, str], answers: str = "") -> None:
        self._answers = answers
        self._process = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, command: str, deadline_s: float = 120.0) -> tuple[str, int]:
        """Run a command to its end; returns what it wrote and its status."""
        assert self._process.stdin is not None
        self._process.stdin.write(
            f"{{ {command}\n}} <<'ANSWERS'\n{self._answers}ANSWERS\nprintf '\\n{MARK} %s\\n' $?\n"
        )
        self._process.stdin.flush()
        end = time.monotonic() + deadline_s
        said = ""
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                raise AssertionError(f"$ {command}\n{said}\nnot within {deadline_s:g} s") from None
            if match := re.fullmatch(rf"{MARK} (\d+)\n", line):
                return said.removesuffix("\n"), int(match[1])
            said += line

    def close(self) -> None:
        """End it, and what was left running in it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(5)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
