"""The control plane as a child of the node: started, told what runs, listened to, started again.

Must never: let a control plane that dies, hangs or floods cost a prediction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.errors import NotReady
from modelcloud.node.brake import Brake
from modelcloud.node.logs import LineCutter
from modelcloud.node.orders import (
    Answering,
    Counters,
    CountersRequest,
    Ports,
    Route,
    Routed,
    Seen,
    Standing,
    ToNode,
    Want,
    WorkerLine,
)
from modelcloud.node.processes import Child, command
from modelcloud.node.reaper import Reaper
from modelcloud.types import Desired, Observed, Routing
from modelcloud.waiting import within

log = logging.getLogger(__name__)

#: For a control plane to end after SIGTERM, then after SIGKILL.
STOP_GRACE_S = 5.0
KILL_S = 5.0
#: It shows that it lives far more often than this (`ALIVE_S`); silence for so long is a hang.
SILENT_S = 30.0
#: A check that comes later than this shows that the node stood still, not its child.
STALL_S = 1.0
#: For it to answer a request that a gateway passed on; it gives up the longest wait before.
ADMIN_S = 1800.0
#: Lines of workers that wait for it to read; more are dropped, for they are in their log.
LINES_WAITING = 2000


class Place(NamedTuple):
    """What a control plane needs of its node.

    Attributes:
        standing: what the node is and runs now.
        deployments: the keys of all deployments.
        counters: the gateways' counters and the workers' usage, as `seq`'s answer.
        route: reach services like this; gives a number that `routing` reaches once all gateways do.
        listen_fd: the socket of its address.
        further_fds: others that it gets.
        on_answering: called once the API answers.
    """

    module: str
    listen_fd: int
    reaper: Reaper
    output: Callable[[], LineCutter]
    clock: Callable[[], float]
    standing: Callable[[], Standing]
    deployments: Callable[[], list[str]]
    observe: Callable[[str], Observed]
    refused_ports: Callable[[], dict[int, str]]
    counters: Callable[[int], Awaitable[Counters]]
    want: Callable[[Desired], None]
    route: Callable[[Routing], int]
    routing: Callable[[], int]
    on_answering: Callable[[], None]
    further_fds: tuple[int, ...] = ()


class ControlPlane:
    """The place of the control plane, and the process of the moment, if there is one."""

    def __init__(self, place: Place) -> None:
        self.deaths = 0
        self.last_death = ""
        self.answering = False
        self._place = place
        self._brake = Brake()
        self._child: Child | None = None
        self._stopping = False
        self._gone = asyncio.Event()
        self._heard = 0.0
        self._checked = 0.0
        self._told: dict[str, Observed] = {}
        self._changed: set[str] = set()
        self._routes: dict[int, int] = {}  # number of an order → of its routing
        self._lines = 0
        self._telling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = count(1)
        self._asked: dict[int, asyncio.Future[AdminResponse]] = {}

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self._child is not None

    def check(self) -> None:
        """Start it, or start it again, if it is time for that."""
        now = self._place.clock()
        if now - self._checked > STALL_S:
            self._heard = now
        self._checked = now
        self._brake.relax(now)
        if self._child is None:
            if not self._stopping and self._brake.starts(now, 1):
                self._start(now)
        elif not self._stopping and now - self._heard > SILENT_S:
            self._heard = now
            log.warning("the control plane was silent for %g s; replaced", SILENT_S)
            self._child.abort()

    def changed(self, deployment: str) -> None:
        """Tell it what is there of a deployment now, as soon as it reads."""
        self._changed.add(deployment)
        if self._child is not None and self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell(self._child))

    def ports_changed(self) -> None:
        """Tell it which ports cannot be had."""
        if self._child is not None:
            self._child.send(Ports(refused=self._place.refused_ports()))

    def routing_changed(self) -> None:
        """Tell it which of its routes all gateways follow by now."""
        routing = self._place.routing()
        followed = [seq for seq, number in self._routes.items() if number <= routing]
        for seq in followed:
            del self._routes[seq]
        if followed and self._child is not None:
            self._child.send(Routed(seq=max(followed)))

    def line(self, line: WorkerLine) -> None:
        """Pass on a line of a worker, unless it is far behind with reading."""
        if self._child is None or self._lines >= LINES_WAITING:
            return
        self._lines += 1
        self._child.send(line)
        if self._lines == 1:
            self._run(self._read_lines(self._child))

    async def answer(self, request: AdminRequest) -> AdminResponse:
        """Have it answer a request that came to a gateway.

        Raises:
            NotReady: it is not there, or ended before it answered.
        """
        child = self._child
        if child is None or not self.answering:
            raise NotReady("the control plane is starting; predictions are not touched by that")
        number = next(self._ids)
        answer: asyncio.Future[AdminResponse] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        child.send(replace(request, id=number))
        try:
            return replace(await within(answer, ADMIN_S), id=request.id)
        except asyncio.TimeoutError:
            raise NotReady("the control plane did not answer") from None
        finally:
            self._asked.pop(number, None)

    async def stop(self) -> None:
        """Have it end, by force if need be, and cancel what nobody waits for any more."""
        self._stopping = True
        if self._child is not None:
            self._child.end((0.0, signal.SIGTERM), (STOP_GRACE_S, signal.SIGKILL))
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._gone.wait(), STOP_GRACE_S + KILL_S)
        tasks = [*self._tasks, *filter(None, [self._telling])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- inside

    def _start(self, now: float) -> None:
        place = self._place
        self._brake.started(now)
        self._gone.clear()
        self._heard = now
        try:
            child = self._child = Child(
                f"control-{self.deaths}",
                command(sys.executable, place.module),
                reaper=place.reaper,
                union=ToNode,
                output=place.output(),
                on_message=self._message,
                on_exit=self._ended,
                pass_fds=(place.listen_fd, *place.further_fds),
            )
        except OSError as error:
            self._died(f"could not be started: {error}")
            return
        keys = place.deployments()
        child.send(replace(place.standing(), deployments=len(keys)))
        self._told, self._changed, self._routes, self._lines = {}, set(), {}, 0
        for key in keys:
            self._send_seen(child, key)
        child.send(Ports(refused=place.refused_ports()))

    def _message(self, message: ToNode) -> None:
        place = self._place
        self._heard = place.clock()
        match message:
            case Want(desired=desired):
                place.want(desired)
                self.changed(desired.deployment)
            case Route(seq=seq, routing=routing):
                self._routes[seq] = place.route(routing)
                self.routing_changed()
            case CountersRequest(seq=seq):
                if self._child is not None:
                    self._run(self._count(self._child, seq))
            case AdminResponse(id=number):
                answer = self._asked.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case Answering():
                self.answering = True
                place.on_answering()

    async def _count(self, child: Child, seq: int) -> None:
        child.send(await self._place.counters(seq))

    async def _tell(self, child: Child) -> None:
        try:
            while self._changed:
                await child.drained()
                key = self._changed.pop()
                self._send_seen(child, key)
        finally:
            self._telling = None

    def _send_seen(self, child: Child, key: str) -> None:
        observed = self._place.observe(key)
        if self._told.get(key) != observed:
            child.send(Seen(deployment=key, observed=observed))
            self._told[key] = observed
            if observed == Observed():
                del self._told[key]

    async def _read_lines(self, child: Child) -> None:
        await child.drained()
        self._lines = 0

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ended(self, how: str) -> None:
        self._child = None
        self._gone.set()
        self.answering = False
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(NotReady("the control plane ended before it answered"))
        if not self._stopping:
            self._died(how)

    def _died(self, how: str) -> None:
        self.deaths += 1
        self.last_death = f"the control plane {how}"
        self._brake.died(self._place.clock(), 1)
        log.warning("%s; predictions go on, it is started again", self.last_death)
