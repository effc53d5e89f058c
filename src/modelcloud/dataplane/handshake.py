"""Proof, at the start of a TCP connection inside a cluster, that both ends hold one secret.

Must never: send the secret, or hand a connection on before both ends have proven it. It hides
nothing of what follows: a cluster's network is a private one.

    listener: MAGIC, 32 random bytes
    caller:   u8 length of its name, the name, 32 random bytes, HMAC("caller", both, name)
    listener: HMAC("listener", both, name)

The name says which secret is meant, where a listener knows several.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

MAGIC = b"modelcloud 1\n"
NONCE = 32
MAC = hashlib.sha256().digest_size
#: For each end to say its part.
TIMEOUT_S = 5.0
#: For data to be acknowledged by the other machine's kernel, after which it counts as gone.
LOST_S = 5.0
SCHEME = "tcp"


class NotProven(ConnectionError):
    """The other end does not hold the secret, or is something else altogether."""


def secret_of(master: str, name: str) -> str:
    """The secret of one generation, from that of the platform."""
    return hmac.new(master.encode(), name.encode(), hashlib.sha256).hexdigest()


def frames_secret(app_secret: str) -> str:
    """What a worker and who calls it hold; by it nobody learns that of the application."""
    return secret_of(app_secret, "frames")


def proof(secret: str, role: str, listener: bytes, caller: bytes, name: bytes) -> bytes:
    """What `role` sends to show that it holds the secret, in a connection of these two nonces."""
    text = b"\0".join((role.encode(), listener, caller, name))
    return hmac.new(secret.encode(), text, hashlib.sha256).digest()


def address_of(endpoint: str) -> tuple[str, int]:
    """`tcp://host:port` → host and port.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(endpoint)
    if parts.scheme != SCHEME or not parts.hostname or parts.port is None:
        raise ValueError(f"{endpoint!r} is no address tcp://host:port")
    return parts.hostname, parts.port


def endpoint_of(host: str, port: int) -> str:
    """Host and port → `tcp://host:port`."""
    return f"{SCHEME}://{f'[{host}]' if ':' in host else host}:{port}"


def tune(sock: Any) -> None:
    """Small messages go at once, and a machine that is lost is noticed in seconds.

    Of a process that dies its kernel says so; of a kernel that dies nobody does.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(LOST_S * 1000))


class _Knock(asyncio.Protocol):
    """One end until the other has proven itself; then `behind` has the connection."""

    def __init__(self, behind: asyncio.Protocol) -> None:
        self.proven: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._behind = behind
        self._buffer = b""
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        tune(transport.get_extra_info("socket"))
        self._timer = asyncio.get_running_loop().call_later(TIMEOUT_S, self._refuse)

    def connection_lost(self, exc: Exception | None) -> None:
        self._refuse()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._take():
            return
        self._done()
        if not self.proven.done():
            self.proven.set_result(None)
        self._transport.set_protocol(self._behind)
        self._behind.connection_made(self._transport)
        if self._buffer and not self._transport.is_closing():
            self._behind.data_received(self._buffer)

    def _take(self) -> bool:
        """Read what has come; whether the other end is proven by it."""
        raise NotImplementedError

    def _cut(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _refuse(self) -> None:
        self._done()
        if not self.proven.done():
            self.proven.set_exception(NotProven("the other end did not prove who it is"))
            self.proven.exception()  # a listener asks nobody for it
        self._transport.abort()

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Listener(_Knock):
    """The end that listens.

    Args:
        secret: gives the secret that a name means; "" where there is none.
        behind: has the connection once the caller is proven.
    """

    def __init__(self, secret: Callable[[str], str], behind: asyncio.Protocol) -> None:
        super().__init__(behind)
        self._secret = secret
        self._nonce = os.urandom(NONCE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a proof."""
        super().connection_made(transport)
        self._transport.write(MAGIC + self._nonce)

    def _take(self) -> bool:
        if not self._buffer:
            return False
        length = self._buffer[0]
        if len(self._buffer) < 1 + length + NONCE + MAC:
            return False
        name = self._cut(1 + length)[1:]
        theirs, mac = self._cut(NONCE), self._cut(MAC)
        secret = self._secret(name.decode("utf-8", "replace"))
        expected = proof(secret, "caller", self._nonce, theirs, name)
        if not secret or not hmac.compare_digest(mac, expected):
            self._refuse()
            return False
        self._transport.write(proof(secret, "listener", self._nonce, theirs, name))
        return True


class Caller(_Knock):
    """The end that calls. `proven` is set once both are, or fails with `NotProven`."""

    def __init__(self, name: str, secret: str, behind: asyncio.Protocol) -> None:
        super().__init__(behind)
        self._name = name.encode()
        self._secret = secret
        self._nonce = os.urandom(NONCE)
        self._theirs = b""

    def _take(self) -> bool:
        if not self._theirs:
            greeting = self._buffer[: len(MAGIC)]
            if greeting != MAGIC[: len(greeting)]:
                self._refuse()
                return False
            if len(self._buffer) < len(MAGIC) + NONCE:
                return False
            self._theirs = self._cut(len(MAGIC) + NONCE)[len(MAGIC) :]
            mac = proof(self._secret, "caller", self._theirs, self._nonce, self._name)
            self._transport.write(bytes([len(self._name)]) + self._name + self._nonce + mac)
        if len(self._buffer) < MAC:
            return False
        expected = proof(self._secret, "listener", self._theirs, self._nonce, self._name)
        if not hmac.compare_digest(self._cut(MAC), expected):
            self._refuse()
            return False
        return True


async def call(endpoint: str, name: str, secret: str, behind: asyncio.Protocol) -> None:
    """Connect `behind` to an endpoint that holds the secret.

    Raises:
        OSError: it cannot be reached (`NotProven`: it does not hold it).
    """
    host, port = address_of(endpoint)
    loop = asyncio.get_running_loop()
    _, knock = await loop.create_connection(lambda: Caller(name, secret, behind), host, port)
    await knock.proven
