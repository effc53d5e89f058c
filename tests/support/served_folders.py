"""Real servers of a folder, each in a process that can be stopped, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.monitored import Folder
from support.server import DEADLINE_S, wait_for

TESTS = Path(__file__).parent.parent


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServedFolder(Folder):
    """A folder, and the server that shows it.

    Attributes:
        port: where it listens.
        source: arguments of a monitor that watches it.
    """

    def __init__(self, folder: Path, command: Sequence[str | Path], port: int) -> None:
        super().__init__(folder)
        self.port = port
        self.source: list[str] = []
        self._command = list(map(str, command))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        path = f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        wait_for("the server listens", self._listens)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._command} ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End the server; the folder stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.communicate(timeout=DEADLINE_S)
            self._process = None

    def freeze(self) -> None:
        """Have it answer no more, while its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running(served: ServedFolder) -> Iterator[ServedFolder]:
    """The server, started, and ended in the end."""
    served.start()
    try:
        yield served
    finally:
        served.stop()


def python_server(folder: Path, module: str, *arguments: str | Path) -> ServedFolder:
    """A server that is a module of `support`, called with port, folder and arguments."""
    port = free_port()
    command = [sys.executable, "-m", f"support.{module}", str(port), folder, *arguments]
    return ServedFolder(folder, command, port)
