"""The engine of the control plane: the node it belongs to, at the other end of a socket.

Must never: block, or go on when the node is gone; whoever uses it ends then too.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

from modelcloud.dataplane.messages import (
    AdminRequest,
    AdminResponse,
    Message,
    MessageReader,
    encode,
)
from modelcloud.errors import DeadlineExceeded, ModelcloudError
from modelcloud.node.admin import AdminDesk
from modelcloud.node.orders import (
    Counters,
    CountersRequest,
    Ports,
    Route,
    Routed,
    Seen,
    Standing,
    ToControl,
    Want,
    WorkerLine,
)
from modelcloud.types import Desired, Observed, Routing
from modelcloud.waiting import within

#: For a node to say what it is and runs.
STANDING_S = 30.0

LineCallback = Callable[[WorkerLine], None]


class RemoteEngine(asyncio.Protocol):
    """`engines.base.Engine` over the node's orders. Make one with `connect`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.refused_ports: Mapping[int, str] = {}
        self._standing: asyncio.Future[Standing] = loop.create_future()
        self._told: Standing | None = None
        self._left = 0  # deployments that the node has still to tell of at the start
        self._transport: Any = None
        self._reader = MessageReader(ToControl)
        self._observed: dict[str, Observed] = {}
        self._changed: set[str] = set()
        self._callbacks: list[Callable[[str], None]] = []
        self._line_callbacks: list[LineCallback] = []
        self._seqs = count(1)
        self._route, self._routed = 0, 0  # the last one that was sent, and that is followed
        self._routes_taken = asyncio.Event()
        self._counters: dict[int, asyncio.Future[Counters]] = {}
        self._desk = AdminDesk(_not_ready)
        self._room = asyncio.Event()
        self._room.set()

    @classmethod
    async def connect(cls, descriptor: int) -> RemoteEngine:
        """The engine behind an inherited socket."""
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, engine = await loop.create_unix_connection(cls, sock=sock)
        return engine

    # ---- the seam

    def want(self, desired: Desired) -> None:
        """Make this so; returns at once."""
        self.send(Want(desired=desired))

    def route(self, routing: Routing) -> None:
        """Reach the services like this from now on."""
        self._route += 1
        self.send(Route(seq=self._route, routing=routing))

    def observe(self, deployment: str) -> Observed:
        """What the node last told of a deployment."""
        return self._observed.get(deployment, Observed())

    def deployments(self) -> list[str]:
        """The keys of all deployments that the node has anything of."""
        return [key for key, seen in self._observed.items() if seen != Observed()]

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` with the key of a deployment that has changed."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    # ---- beyond it

    async def standing(self) -> Standing:
        """What the node is; from then on `observe` knows all that runs.

        Raises:
            DeadlineExceeded: it did not say so in time.
            ModelcloudError: it is gone.
        """
        try:
            return await within(asyncio.shield(self._standing), STANDING_S)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(
                f"the node did not say what it runs within {STANDING_S:g} s"
            ) from None

    async def routed(self, timeout_s: float) -> bool:
        """Whether all gateways follow the last `route`: once they do, or after so long."""
        route, end = self._route, time.monotonic() + timeout_s
        while self._routed < route and not self.lost.done():
            self._routes_taken.clear()
            try:
                await within(self._routes_taken.wait(), end - time.monotonic())
            except asyncio.TimeoutError:
                break
        return self._routed >= route

    async def counters(self, timeout_s: float = 5.0) -> Counters:
        """The gateways' counters and what the workers use.

        Raises:
            DeadlineExceeded: no answer came in time.
        """
        seq = next(self._seqs)
        answer: asyncio.Future[Counters] = asyncio.get_running_loop().create_future()
        self._counters[seq] = answer
        self.send(CountersRequest(seq=seq))
        try:
            return await within(answer, timeout_s)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"the node gave no counters within {timeout_s:g} s") from None
        finally:
            self._counters.pop(seq, None)

    def on_admin(self, handler: Callable[[AdminRequest], Awaitable[AdminResponse]]) -> None:
        """Have `handler` answer requests for the control plane that came to a gateway."""
        self._desk = AdminDesk(handler)

    def on_line(self, callback: LineCallback) -> Callable[[], None]:
        """Call `callback` with every line that a worker, or a preparation, writes."""
        self._line_callbacks.append(callback)
        return lambda: self._line_callbacks.remove(callback)

    def send(self, message: Message) -> None:
        """Tell the node."""
        if not self._transport.is_closing():
            self._transport.write(encode(message))

    async def close(self) -> None:
        """Hang up."""
        await self._desk.close()
        self._transport.close()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there from the start."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Without the node there is nothing to control."""
        self._room.set()
        self._routes_taken.set()
        if not self.lost.done():
            self.lost.set_result(None)
        if not self._standing.done():
            self._standing.set_exception(ModelcloudError("the node is gone"))

    def pause_writing(self) -> None:
        """The node reads slowly: answers wait, wishes are small and do not."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Messages from the node."""
        for message in self._reader.feed(data):
            self._take(message)
        changed, self._changed = self._changed, set()
        for key in changed:
            for callback in [*self._callbacks]:
                callback(key)

    def _take(self, message: ToControl) -> None:
        match message:
            case Seen(deployment=key, observed=observed):
                self._observed[key] = observed
                if observed == Observed():
                    del self._observed[key]
                self._changed.add(key)
                self._count_told()
            case Counters(seq=seq):
                answer = self._counters.get(seq)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case Routed(seq=seq):
                self._routed = seq
                self._routes_taken.set()
            case WorkerLine():
                for callback in self._line_callbacks:
                    callback(message)
            case AdminRequest():
                self._desk.take(message, self.send, self._room.wait)
            case Ports(refused=refused):
                self.refused_ports = refused
            case Standing():
                self._told = message
                self._left = message.deployments
                self._count_told(0)

    def _count_told(self, seen: int = 1) -> None:
        """The node stands as soon as it has told of everything it had when this began."""
        if self._told is None or self._standing.done():
            return
        self._left -= seen
        if self._left <= 0:
            self._standing.set_result(self._told)


async def _not_ready(request: AdminRequest) -> AdminResponse:
    return AdminResponse(
        id=request.id,
        status=503,
        body=b'{"error":"the control plane is starting"}',
        headers=[("retry-after", "1")],
    )
