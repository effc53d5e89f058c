"""Workers on real unix sockets for a hub in the process of the test, and the end of the node."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from modelcloud.codecs.media import Codec
from modelcloud.config import Limits
from modelcloud.dataplane import messages
from modelcloud.dataplane.frames import HEADER, HEADER_SIZE, Kind, pack_header
from modelcloud.dataplane.hub import Gateway
from modelcloud.dataplane.messages import LENGTH, RequestMeta, WorkerAddress
from support.gateway_rig import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HELLO = msgspec.msgpack.encode((["ask", "meta"], 2, []))


def command(name: str = "ask", **fields: bool) -> dict[str, Any]:
    """One command of a signature."""
    plain = {"idempotent": True, "streams": False, "withRequest": False, "wholeSite": False}
    return {"name": name, **plain, **fields}


SIGNATURE = {"commands": [command()]}


class Received(NamedTuple):
    """A request as a worker has it."""

    codec: int
    body: bytes
    meta: RequestMeta | None


class SocketWorker:
    """Answers `{"worker": N}` to every request; says hello when `awake` is set."""

    def __init__(self, folder: Path, number: int, generation: int, version: int) -> None:
        self.address = WorkerAddress(number, str(folder / f"w{number}.sock"), generation, version)
        self.awake = asyncio.Event()
        self.awake.set()
        self.answering = asyncio.Event()
        self.answering.set()
        self.received: list[Received] = []
        self.connections = 0
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self.awake.wait()
        writer.write(pack_header(len(HELLO), 0, Kind.HELLO, Codec.BINARY, 0) + HELLO)
        answer = b'{"worker":%d}' % self.address.id
        try:
            while True:
                length, rid, kind, codec, _ = HEADER.unpack(await reader.readexactly(HEADER_SIZE))
                body = await reader.readexactly(length)
                if kind not in {Kind.REQUEST, Kind.REQUEST_WITH_META}:
                    continue
                self.received.append(_received(kind, codec, body))
                await self.answering.wait()
                writer.write(pack_header(len(answer), rid, Kind.RESPONSE, Codec.JSON, 200) + answer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.ended += 1


def _received(kind: int, codec: int, body: bytes) -> Received:
    if kind == Kind.REQUEST:
        return Received(codec, body, None)
    (size,) = LENGTH.unpack_from(body)
    start = LENGTH.size + size
    meta = msgspec.msgpack.decode(body[LENGTH.size : start], type=RequestMeta)
    return Received(codec, body[start:], meta)


@asynccontextmanager
async def worker_in(
    hub: Gateway, folder: Path, number: int, *, generation: int = 0, version: int = 1
) -> AsyncIterator[SocketWorker]:
    """A worker that listens; the gateway hangs up before it ends."""
    worker = SocketWorker(folder, number, generation or number, version)
    server = await asyncio.start_unix_server(worker.serve, worker.address.socket)
    yield worker
    if number in hub._links:
        hub._links[number].transport.abort()
    server.close()
    await until(lambda: worker.ended == worker.connections)


class Node:
    """What a gateway tells the node."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def send(self, message: messages.Message) -> None:
        self.told.append(message)

    def backlog(self) -> int:
        return 0


def gateway(**limits: Any) -> tuple[Gateway, Node]:
    """A gateway's hub, and the node it talks to."""
    node = Node()
    start = messages.StartGateway(gateway_id=0, listen_fd=-1, limits=Limits(**limits))
    return Gateway(start, node), node
