"""A connection in a cluster is handed on once both ends have proven the same secret, else never."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, final

import pytest

from modelcloud.dataplane import handshake
from modelcloud.dataplane.handshake import MAGIC, NONCE, NotProven, address_of, endpoint_of

SECRETS = {"app": "one", "other": "two"}


class Behind(asyncio.Protocol):
    """What the connection is for: keeps what comes."""

    def __init__(self, greets: bytes = b"") -> None:
        self.transport: Any = None
        self.data = b""
        self.came = asyncio.Event()
        self._greets = greets

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self._greets:
            transport.write(self._greets)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()


@final
class Place:
    """A listener, and what stands behind each of its connections."""

    def __init__(self) -> None:
        self.behind: list[Behind] = []
        self.endpoint = ""

    async def __aenter__(self) -> Place:
        def door() -> handshake.Listener:
            self.behind.append(Behind(b"hello"))
            return handshake.Listener(lambda name: SECRETS.get(name, ""), self.behind[-1])

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(door, "127.0.0.1", 0)
        self.endpoint = endpoint_of(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for one in self.behind:
            if one.transport is not None:
                one.transport.abort()
        await asyncio.sleep(0)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Hang up, and leave nothing open."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("name", SECRETS)
def test_who_holds_the_secret_is_let_in_and_nothing_said_is_lost(name: str) -> None:
    async def scene() -> None:
        async with Place() as place:
            caller = Behind()
            await handshake.call(place.endpoint, name, SECRETS[name], caller)
            caller.transport.write(b"request")
            await asyncio.wait_for(caller.came.wait(), 10)
            await asyncio.wait_for(place.behind[0].came.wait(), 10)
            assert caller.data == b"hello"
            assert place.behind[0].data == b"request"
            caller.transport.abort()
            await asyncio.sleep(0)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("name", "secret"), [("app", "two"), ("app", ""), ("unknown", "one"), ("unknown", "")]
)
def test_who_does_not_hold_it_reaches_nothing(name: str, secret: str) -> None:
    async def scene() -> None:
        async with Place() as place:
            caller = Behind()
            with pytest.raises(NotProven):
                await handshake.call(place.endpoint, name, secret, caller)
            assert caller.transport is None
            assert place.behind[0].transport is None

    asyncio.run(scene())


def test_a_listener_that_does_not_hold_it_gets_nothing_either() -> None:
    async def scene() -> None:
        async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(MAGIC + b"n" * NONCE)
            await reader.read(1024)
            writer.write(b"m" * handshake.MAC)
            await reader.read(1024)
            await closed(writer)
            left.set()

        left = asyncio.Event()
        server = await asyncio.start_server(impostor, "127.0.0.1", 0)
        caller = Behind()
        endpoint = endpoint_of(*server.sockets[0].getsockname()[:2])
        with pytest.raises(NotProven):
            await handshake.call(endpoint, "app", "one", caller)
        assert caller.transport is None
        await asyncio.wait_for(left.wait(), 10)
        server.close()

    asyncio.run(scene())


def test_a_proof_that_was_listened_to_is_worth_nothing_the_next_time() -> None:
    async def scene() -> None:
        async with Place() as place:
            host, port = address_of(place.endpoint)
            reader, writer = await asyncio.open_connection(host, port)
            theirs = (await reader.readexactly(len(MAGIC) + NONCE))[len(MAGIC) :]
            proof = handshake.proof("one", "caller", theirs, b"c" * NONCE, b"app")
            said = b"\x03app" + b"c" * NONCE + proof
            writer.write(said)
            assert await reader.readexactly(handshake.MAC)
            await closed(writer)
            reader, writer = await asyncio.open_connection(host, port)
            await reader.readexactly(len(MAGIC) + NONCE)
            writer.write(said)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1)
            await closed(writer)

    asyncio.run(scene())


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "TIMEOUT_S", 0.05)

    async def scene() -> None:
        async with Place() as place:
            reader, writer = await asyncio.open_connection(*address_of(place.endpoint))
            await reader.readexactly(len(MAGIC) + NONCE)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asyncio.wait_for(reader.readexactly(1), 10)
            await closed(writer)

    asyncio.run(scene())


@pytest.mark.parametrize("endpoint", ["tcp://[::1]:80", "tcp://10.0.0.1:8080"])
def test_an_address_reads_as_it_is_written(endpoint: str) -> None:
    assert endpoint_of(*address_of(endpoint)) == endpoint


@pytest.mark.parametrize("endpoint", ["/run/sock", "tcp://host", "http://host:1", ""])
def test_anything_else_is_no_address(endpoint: str) -> None:
    with pytest.raises(ValueError, match="tcp://host:port"):
        address_of(endpoint)
