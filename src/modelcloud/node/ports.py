"""The ports that services have for themselves, beside the server's own: had, refused, given back.

Must never: raise because a port cannot be had; that is one service's trouble, said in words.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from modelcloud.errors import ModelcloudError
from modelcloud.node import sockets

log = logging.getLogger(__name__)

#: How often a port that was refused is tried again.
RETRY_S = 3.0
#: Ports at a time. A gateway that starts is handed all of them before it reads the first, and so
#: many fit into a unix socket and under the kernel's limit of descriptors on their way.
MOST = 128


class Ports:
    """Listening sockets, one per gateway, at each port that is wanted and could be had.

    Attributes:
        listening: port → its sockets.
        refused: port → why it could not be had.

    Args:
        host: address of this machine to listen at; empty: a server without one has no ports.
        count: gateways.
        clock: monotonic seconds.
    """

    def __init__(self, host: str, count: int, clock: Callable[[], float]) -> None:
        self.listening: dict[int, Sequence[socket.socket]] = {}
        self.refused: dict[int, str] = {}
        self._host = host
        self._count = count
        self._clock = clock
        self._wanted: AbstractSet[int] = frozenset()
        self._next_try = 0.0

    def want(self, ports: AbstractSet[int]) -> None:
        """Listen at these and at no other; `reconcile` makes it so."""
        if ports != self._wanted:
            self._wanted = ports
            self._next_try = 0.0

    def reconcile(self) -> bool:
        """Close what is not wanted any more; try what is missing, if it is time for that.

        Returns:
            Whether `listening` has changed.
        """
        listening = dict(self.listening)
        for port in self.listening.keys() - self._wanted:
            _close(self.listening.pop(port))
        now = self._clock()
        missing = sorted(self._wanted - self.listening.keys())
        if not missing:
            self.refused = {}
        elif now >= self._next_try:
            self._next_try = now + RETRY_S
            before = self.refused
            self.refused = {port: why for port in missing if (why := self._listen(port))}
            for port, why in self.refused.items():
                if before.get(port) != why:
                    log.warning("the port %d of a service cannot be had: %s", port, why)
        return self.listening != listening

    def close(self) -> None:
        """Let go of all of them."""
        self._wanted = frozenset()
        self.reconcile()

    def _listen(self, port: int) -> str:
        """Take the port; why not, if it could not be had."""
        if not self._host:
            return "a server on a unix socket has no ports"
        if len(self.listening) >= MOST:
            return f"{MOST} services have a port of their own; accepted: no more than that"
        try:
            found = sockets.reserve(self._host, port, self._count)
            try:
                sockets.listen(found)
            except OSError:
                _close(found)
                raise
        except ModelcloudError as error:
            return error.message
        except OSError as error:  # someone who shares the port was faster
            return f"cannot listen on {self._host}:{port}: {error.strerror}"
        self.listening[port] = found
        return ""


def _close(found: Sequence[socket.socket]) -> None:
    for sock in found:
        sock.close()
