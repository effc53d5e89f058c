"""The listening sockets of an address of the server, one per gateway.

Must never: share the address with another server, or fail because the last one has just ended.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from modelcloud.errors import Conflict, UsageError

BACKLOG = 2048
HIGHEST = 65535


def reserve(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind `count` sockets that share one address; 0 as port picks a free one. None listens yet.

    Raises:
        Conflict: the address is in use.
        UsageError: it is no address, not of this machine, or not permitted.
    """
    if not 0 <= port <= HIGHEST:
        raise UsageError(f"{port} is no port; accepted: 1 to {HIGHEST}, or 0 for a free one")
    sockets: list[socket.socket] = []
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # SO_REUSEPORT alone would join another server of this user without a word, so a bind
        # that does not share goes first. SO_REUSEADDR lets it pass what is only in TIME_WAIT.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        for _ in range(count):
            sockets.append(sock := socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            address = sock.getsockname()
    except OSError as error:
        for sock in sockets:
            sock.close()
        kind = Conflict if error.errno == errno.EADDRINUSE else UsageError
        raise kind(_refusal(host, port, error), host=host, port=port) from error
    return sockets


def listen(sockets: Sequence[socket.socket]) -> None:
    """Let clients connect; they wait until a gateway accepts them."""
    for sock in sockets:
        # Inherited by connections, whose TIME_WAIT then does not stop the next server's probe.
        # Not set before: until it listens, it would let another server's probe pass.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.listen(BACKLOG)


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{host}:{port} is already in use; stop what listens there or choose another port"
    if error.errno == errno.EACCES:
        return f"{host}:{port} needs more rights than this user has; accepted: a port from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; accepted: one of its own, or 0.0.0.0"
    if isinstance(error, socket.gaierror):
        return f"{host} is not known as a host: {error.strerror}"
    return f"cannot listen on {host}:{port}: {os.strerror(error.errno) if error.errno else error}"


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """Where a person on this machine reaches what is bound there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — compared
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
