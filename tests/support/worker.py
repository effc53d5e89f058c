"""A real worker process, told by hand what the node would tell it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelcloud.dataplane import messages
from modelcloud.node.processes import command
from modelcloud.types import GenerationSpec

PATIENCE_S = 60.0


class WorkerProcess:
    """The node's end of its control socket."""

    def __init__(self, popen: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.popen = popen
        self._control = control
        self._reader = messages.MessageReader(messages.FromWorker)
        self._heard: list[Any] = []

    def send(self, message: messages.Message) -> None:
        self._control.sendall(messages.encode(message))

    def hear(self) -> Any:
        """The next message; None when there is none to come."""
        while not self._heard:
            data = self._control.recv(65536)
            if not data:
                return None
            self._heard += self._reader.feed(data)
        return self._heard.pop(0)

    def until(self, kind: type[Any]) -> Any:
        """The next message of a kind; those before it are dropped."""
        while not isinstance(message := self.hear(), kind):
            assert message is not None, f"it ended with {self.popen.wait(PATIENCE_S)}"
        return message

    def hang_up(self) -> None:
        """What the worker sees when the node dies."""
        self._control.close()

    def wait(self) -> int:
        """Its status, once it has ended."""
        return self.popen.wait(PATIENCE_S)


@contextmanager
def worker(spec: GenerationSpec, folder: Path) -> Iterator[WorkerProcess]:
    """One of this generation; its socket is `w.sock` in the folder."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    files = folder / "files"
    files.mkdir()
    with ours, theirs:
        popen = subprocess.Popen(
            [*command(sys.executable, "modelcloud.dataplane.worker"), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        running = WorkerProcess(popen, ours)
        try:
            socket_path = str(folder / "w.sock")
            running.send(
                messages.Load(spec=spec, worker_id=1, socket=socket_path, files=str(files))
            )
            yield running
        finally:
            popen.kill()
            popen.wait()
