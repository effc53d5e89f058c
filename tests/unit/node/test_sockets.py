"""The server's address: had alone, or refused in words."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from modelcloud.errors import Conflict, UsageError
from modelcloud.node import sockets


@contextlib.contextmanager
def reserved(port: int = 0, count: int = 1) -> Iterator[list[socket.socket]]:
    found = sockets.reserve("127.0.0.1", port, count)
    try:
        yield found
    finally:
        for sock in found:
            sock.close()


def test_all_sockets_share_one_port_that_nobody_can_connect_to_yet() -> None:
    with reserved(count=3) as found:
        (port,) = {sock.getsockname()[1] for sock in found}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        sockets.listen(found)
        socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.parametrize("listening", [False, True])
def test_a_port_in_use_is_named_even_when_its_owner_would_share_it(listening: bool) -> None:
    with reserved() as found:
        port = found[0].getsockname()[1]
        if listening:
            sockets.listen(found)
        with pytest.raises(Conflict, match=f"127.0.0.1:{port} is already in use"), reserved(port):
            pass


def test_the_port_of_a_server_that_has_just_ended_is_free() -> None:
    with reserved() as found:
        sockets.listen(found)
        port = found[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = found[0].accept()
            served.close()  # first, so that this side is the one in TIME_WAIT
            assert client.recv(1) == b""
    with reserved(port):
        pass


@pytest.mark.parametrize(
    ("host", "reason"),
    [("192.0.2.1", "is not an address of this machine"), ("no.such.host.invalid", "is not known")],
)
def test_an_address_that_cannot_be_had_is_refused_with_its_name(host: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"{host} {reason}"):
        sockets.reserve(host, 0, 1)
