"""A gateway's whole request path in one process: clients and workers are fake transports.

What a client sends and a worker answers is given byte by byte, so that every order of events
can be played, the ones that sockets make rare too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple, ParamSpec

import msgspec

from modelcloud.codecs.media import Codec
from modelcloud.config import Limits
from modelcloud.dataplane import messages
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.frames import HEADER_SIZE, Kind, pack_header, unpack_header
from modelcloud.dataplane.http import HttpConnection
from modelcloud.dataplane.hub import Gateway
from modelcloud.dataplane.link import WorkerLink
from modelcloud.dataplane.messages import (
    LENGTH,
    AdminRoute,
    CommandRoute,
    Share,
    Site,
    WorkerAddress,
)
from modelcloud.dataplane.pool import Pool
from modelcloud.dataplane.targets import lookup_of

P = ParamSpec("P")

PATIENCE_S = 60.0


async def settle() -> None:
    """Let everything that was scheduled for now happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something to come true."""
    while not condition():  # noqa: ASYNC110 — what tests wait for has no event
        await asyncio.sleep(0.001)


class FakeTransport:
    """Keeps what is written; `stalled` bytes and more stay in its buffer as if nobody read.

    As in asyncio, writing after `write_eof` raises, and a lost connection is told on the loop.
    """

    HIGH = 64 * 1024

    def __init__(self, protocol: Any, *, tls: bool = False) -> None:
        self.protocol = protocol
        self.tls = tls
        self.sent = bytearray()
        self.buffered = 0
        self.stalled = False
        self.paused_reading = self.paused_protocol = False
        self.eof = self.closing = self.lost = self.aborted = False

    def write(self, data: bytes) -> None:
        if self.eof:
            raise RuntimeError("write after write_eof")
        if self.aborted or (self.closing and not self.buffered):
            return
        self.sent += data
        if self.stalled:
            self.buffered += len(data)
            if self.buffered > self.HIGH and not self.paused_protocol:
                self.paused_protocol = True
                self.protocol.pause_writing()

    def take(self, size: int | None = None) -> None:
        """The other side reads so much of what is in the buffer, or all of it."""
        self.buffered -= self.buffered if size is None else min(size, self.buffered)
        if self.paused_protocol and self.buffered <= self.HIGH // 4 and not self.lost:
            self.paused_protocol = False
            self.protocol.resume_writing()
        if self.closing and not self.buffered:
            self._lose()

    def can_write_eof(self) -> bool:
        return not self.tls

    def write_eof(self) -> None:
        assert not self.tls
        self.eof = True

    def pause_reading(self) -> None:
        self.paused_reading = True

    def resume_reading(self) -> None:
        self.paused_reading = False

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 4711) if name == "peername" else None

    def close(self) -> None:
        self.closing = True
        if not self.buffered:
            self._lose()

    def abort(self) -> None:
        self.aborted = self.closing = True
        self._lose()

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Frame(NamedTuple):
    """One frame as a worker sees it; `number` is the command's."""

    kind: int
    rid: int
    codec: int
    number: int
    body: bytes


class FakeWorker:
    """The far end of a `WorkerLink`."""

    def __init__(self, link: WorkerLink, commands: list[str], credit: int) -> None:
        self.link = link
        self.transport = FakeTransport(link)
        self._hello = msgspec.msgpack.encode((commands, credit, []))
        self._read = 0

    def hello(self) -> None:
        self._frame(Kind.HELLO, 0, Codec.BINARY, 0, self._hello)

    def frames(self) -> list[Frame]:
        """What came since the last look."""
        out = []
        data = self.transport.sent
        while len(data) - self._read >= HEADER_SIZE:
            length, rid, kind, codec, number = unpack_header(data, self._read)
            start = self._read + HEADER_SIZE
            out.append(Frame(kind, rid, codec, number, bytes(data[start : start + length])))
            self._read = start + length
        return out

    def answer(self, rid: int, body: bytes = b"{}", status: int = 200) -> None:
        self._frame(Kind.RESPONSE, rid, Codec.JSON, status, body)

    def piece(self, rid: int, body: bytes) -> None:
        self._frame(Kind.CHUNK, rid, Codec.EVENT_STREAM, 200, body)

    def end(self, rid: int, status: int = 200) -> None:
        self._frame(Kind.END, rid, Codec.JSON, status, b"")

    def _frame(self, kind: int, rid: int, codec: int, status: int, body: bytes) -> None:
        self.link.data_received(pack_header(len(body), rid, kind, codec, status) + body)


class Client:
    """The far end of an `HttpConnection`."""

    def __init__(self, hub: Gateway, *, port: int = 0, tls: bool = False) -> None:
        self.connection = HttpConnection(hub, hub.site(port))
        self.transport = FakeTransport(self.connection, tls=tls)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        if not self.transport.lost:
            self.connection.data_received(data)

    @property
    def got(self) -> bytes:
        return bytes(self.transport.sent)

    @property
    def statuses(self) -> list[int]:
        """Of the answers so far; their bodies must not hold a status line."""
        parts = self.got.split(b"HTTP/1.1 ")[1:]
        return [int(part[:3]) for part in parts]


class Rig:
    """A gateway whose service has the commands `ask` and `flow` (streams)."""

    SERVICE = "svc"

    def __init__(self, *, tls: bool = False, **limits: Any) -> None:
        self.told: list[Any] = []
        self.tls = tls
        start = messages.StartGateway(gateway_id=0, listen_fd=-1, limits=Limits(**limits))
        self.hub = Gateway(start, self)
        self.pool = self.hub.pools[self.SERVICE] = Pool(self.hub, self.SERVICE)
        self.pool.limit = self.hub.limits.queue
        self.pool.deadline_s = self.hub.limits.deadline_s
        here = (Share(self.SERVICE),)
        site = Site(
            commands=(
                CommandRoute(paths=("/ask",), command="ask", shares=here),
                CommandRoute(paths=("/once",), command="once", shares=here, idempotent=False),
                CommandRoute(paths=("/flow",), command="flow", shares=here, streams=True),
            ),
            admin=(AdminRoute(path="/meta", methods=("GET",)),),
        )
        self.hub.site(0).switch(lookup_of(site, self.hub.pools, {}))

    # ---- the node

    def send(self, message: messages.Message) -> None:
        self.told.append(message)

    def backlog(self) -> int:
        return 0

    def answer_admin(self, number: int = -1, **fields: Any) -> None:
        """The node's answer to one of the admin requests so far."""
        asked = [m for m in self.told if isinstance(m, messages.AdminRequest)][number]
        answer = messages.AdminResponse(**{"id": asked.id, "status": 200, "body": b"{}", **fields})
        self.hub.admin_answered(answer)

    # ---- the others

    def client(self) -> Client:
        return Client(self.hub, tls=self.tls)

    def worker(self, number: int = 1, *, generation: int = 1, credit: int = 2) -> FakeWorker:
        """A worker that is connected and said hello, not yet named by a table."""
        address = WorkerAddress(number, f"w{number}.sock", generation, generation)
        link = WorkerLink(self.pool, address)
        worker = FakeWorker(link, ["ask", "once", "flow"], credit)
        link.connection_made(worker.transport)  # type: ignore[arg-type]
        self.hub._links[number] = link
        worker.hello()
        return worker

    def switch(self, *workers: FakeWorker, available: bool = True) -> None:
        """What a route table with these workers does."""
        self.pool.switch([worker.link for worker in workers], available=available)


def post(path: str = "/ask", body: bytes = b"{}", *headers: bytes) -> bytes:
    """The bytes of a JSON POST."""
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % (path.encode(), len(body))
    return head + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body


def submit(pool: Pool, client: Client, body: bytes = b"{}", *, key: bytes = b"") -> Exchange:
    """A request for `ask`, as the router hands it to a pool."""
    exchange = Exchange(client.connection, body, monotonic(), b"id", b"")
    exchange.command, exchange.key = "ask", key
    client.connection.pending.append(exchange)
    pool.submit(exchange)
    return exchange


def get(path: str, *headers: bytes, method: str = "GET") -> bytes:
    """The bytes of a request without a body."""
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\n".encode()
    return head + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


STREAM = b"Accept: text/event-stream"


def credit_of(frames: list[Frame]) -> int:
    """Bytes of streams that a gateway told a worker went out."""
    return sum(LENGTH.unpack(frame.body)[0] for frame in frames if frame.kind == Kind.CREDIT)
