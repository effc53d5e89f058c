"""The ports of services: when one is tried again, and how many there may be."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelcloud.node import ports as ports_module
from modelcloud.node import sockets
from modelcloud.node.ports import MOST, RETRY_S, Ports

if TYPE_CHECKING:
    import pytest


class Clock:
    """Moves when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def taken() -> Iterator[tuple[Ports, Clock, int, socket.socket]]:
    """A port that was refused, and its owner."""
    clock = Clock()
    ports = Ports("127.0.0.1", 2, clock)
    (owner,) = sockets.reserve("127.0.0.1", 0, 1)
    with owner, contextlib.closing(ports):
        port = owner.getsockname()[1]
        ports.want({port})
        ports.reconcile()
        assert list(ports.refused) == [port]
        yield ports, clock, port, owner


def test_a_refused_port_is_tried_again_after_a_while_and_not_at_every_look() -> None:
    with taken() as (ports, clock, port, owner):
        owner.close()
        ports.reconcile()
        assert list(ports.refused) == [port]
        clock.now += RETRY_S
        ports.reconcile()
        assert ports.refused == {}
        assert len(ports.listening[port]) == 2


def test_another_wish_is_tried_at_once() -> None:
    with taken() as (ports, _, port, owner):
        owner.close()
        ports.want({port, 70_000})
        ports.reconcile()
        assert list(ports.refused) == [70_000]
        assert list(ports.listening) == [port]


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports_module, "MOST", 0)
    with taken() as (ports, _, port, _):
        assert "no more than that" in ports.refused[port]


def test_so_many_can_be_handed_to_a_gateway_that_reads_none_yet() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket() as port:
        ours.setblocking(False)
        for _ in range(MOST):
            socket.send_fds(ours, [b"port"], [port.fileno()])


def test_a_server_on_a_unix_socket_has_none() -> None:
    ports = Ports("", 1, Clock())
    ports.want({8081})
    ports.reconcile()
    assert ports.refused == {8081: "a server on a unix socket has no ports"}
