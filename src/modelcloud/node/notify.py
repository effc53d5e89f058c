"""Tells the service manager how the server fares: systemd's notification protocol, sd_notify(3).

Must never: block, or fail for want of a manager; without `NOTIFY_SOCKET` nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The way to the manager.

    An update is told by STATUS= alone. RELOADING=1 would put the unit into a state that ends by
    `TimeoutStartSec=` and that other units wait for, while here the old model goes on serving.

    Args:
        environ: taken from it, so that no child speaks in this process's name.

    Attributes:
        watchdog_s: seconds within which `alive` must be said again; None where nobody waits for it.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        place, usec, pid = (environ.pop(name, "") for name in _VARIABLES)
        self._address = f"\0{place[1:]}" if place.startswith("@") else place
        self._socket: socket.socket | None = None
        self.watchdog_s: float | None = None
        if not place:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if usec.isdigit() and int(usec) > 0 and pid in {"", str(os.getpid())}:
            self.watchdog_s = int(usec) / 1e6

    def ready(self, status: str) -> None:
        """The server serves."""
        self._send("READY=1", status)

    def status(self, status: str) -> None:
        """What it is doing, in a line for people."""
        self._send("", status)

    def stopping(self, status: str) -> None:
        """The server drains and ends."""
        self._send("STOPPING=1", status)

    def alive(self) -> None:
        """The server is well; to be said again before `watchdog_s` are over."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str, status: str = "") -> None:
        if self._socket is None:
            return
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))
        with contextlib.suppress(OSError):  # it is gone, or busy: serving does not depend on it
            self._socket.sendto("\n".join(lines).encode(), self._address)
