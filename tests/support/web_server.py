"""A real nginx that serves a folder, and a way there that can be cut, frozen or held."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from support.proxy import Nginx
from support.served_folders import ServedFolder, free_port

_SITE = "server {{ listen 127.0.0.1:{port}; root {folder}; {more} }}"


def web_folder(folder: Path, more: str = "") -> ServedFolder:
    """A folder that nginx serves; `more` goes into its site."""
    port = free_port()
    own = folder.with_name(f"nginx-{port}")
    own.mkdir(parents=True)
    nginx = Nginx(_SITE.format(port=port, folder=folder, more=more), own)
    served = ServedFolder(folder, nginx.command, port)
    served.source = general(port)
    return served


def general(port: int) -> list[str]:
    """Arguments of a monitor of a web server."""
    return ["--type", "general", "--general_host", f"http://127.0.0.1:{port}", "--remote_path", "/"]


class Way:
    """A way to a port of this machine: hands on bytes both ways, until it is told not to.

    Attributes:
        port: where it begins.
        let_through: bytes of an answer that pass; then it is held, or closed if `closes`.
        closes: see there.
        frozen: set once an answer was held.
    """

    def __init__(self, to: int) -> None:
        self.let_through: int | None = None
        self.closes = False
        self.frozen = threading.Event()
        self._to = to
        self._released = threading.Event()
        self._entry = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._entry.getsockname()[1]
        self._sockets = [self._entry]
        self._threads: list[threading.Thread] = []

    def _accept(self) -> None:
        while True:
            try:
                asking, _ = self._entry.accept()
            except OSError:
                return  # the end
            self._sockets.append(asking)
            with contextlib.suppress(OSError):
                answering = socket.create_connection(("127.0.0.1", self._to))
                self._sockets.append(answering)
                self._start(self._hand_on, asking, answering)
                self._start(self._answer, answering, asking)
                continue
            asking.close()

    def _start(self, function: Callable[..., None], *sockets: socket.socket) -> None:
        self._threads.append(threading.Thread(target=function, args=sockets, daemon=True))
        self._threads[-1].start()

    def _hand_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := one.recv(4096):
                other.sendall(chunk)
            other.shutdown(socket.SHUT_WR)

    def _answer(self, one: socket.socket, other: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := one.recv(4096):
                left = None if self.let_through is None else max(0, self.let_through - passed)
                passed += len(chunk)
                other.sendall(chunk if left is None else chunk[:left])
                if left is not None and left < len(chunk):
                    self.frozen.set()
                    if self.closes:
                        break
                    self._released.wait()
                    other.sendall(chunk[left:])
            other.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Have everything pass again, what was held too."""
        self.let_through = None
        self._released.set()

    def __enter__(self) -> Way:  # noqa: PYI034 — `Self` came with Python 3.11
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        for opened in self._sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for opened in self._sockets:
            opened.close()
