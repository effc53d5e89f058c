"""What the service manager is told, and that nobody else speaks in the server's name."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from modelcloud.node.notify import Notifier


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """Listens at an address of the abstract kind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses one
        manager.settimeout(10)
        yield manager


def address(manager: socket.socket) -> str:
    name: bytes = manager.getsockname()
    return "@" + name[1:].decode()


def test_each_word_is_one_datagram(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address(manager)})
    notifier.status("  loading\nREADY=1")
    notifier.ready("Serving")
    notifier.alive()
    notifier.stopping("Stopping")
    notifier.close()
    notifier.alive()
    heard = [manager.recv(4096) for _ in range(4)]
    assert heard == [
        b"STATUS=loading READY=1",
        b"READY=1\nSTATUS=Serving",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=Stopping",
    ]
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


@pytest.mark.parametrize(
    ("usec", "pid", "period"),
    [
        pytest.param("30000000", str(os.getpid()), 30.0, id="its own"),
        ("500000", "", 0.5),
        ("30000000", "1", None),
        ("0", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_the_watchdog_is_this_process_own(
    manager: socket.socket, usec: str, pid: str, period: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": address(manager), "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    notifier = Notifier(environ)
    assert notifier.watchdog_s == period
    assert environ == {}
    notifier.close()


def test_without_a_manager_nothing_is_said_and_a_gone_one_does_no_harm() -> None:
    without = Notifier({"WATCHDOG_USEC": "1000", "HOME": "/"})
    without.ready("Serving")
    assert without.watchdog_s is None
    gone = Notifier({"NOTIFY_SOCKET": "/no/such/socket"})
    gone.ready("Serving")
    gone.close()
