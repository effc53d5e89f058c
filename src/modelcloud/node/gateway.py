"""One gateway process: what it was told, what it has acknowledged, what it may still use.

Must never: read a prediction; lose a listening socket, which outlives every process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import NamedTuple

from modelcloud.config import ServeConfig
from modelcloud.dataplane.messages import (
    DrainGateway,
    FromGateway,
    Idle,
    Listening,
    Publish,
    Published,
    StartGateway,
    Stats,
    StatsRequest,
    WorkerOverdue,
)
from modelcloud.node.admin import AdminDesk, AdminHandler
from modelcloud.node.brake import Brake
from modelcloud.node.logs import Logs
from modelcloud.node.processes import Child, command
from modelcloud.node.publication import Publication
from modelcloud.node.reaper import Reaper
from modelcloud.waiting import within

log = logging.getLogger(__name__)

#: For a gateway to say that it listens, and to take a table.
START_S = 30.0
TABLE_S = 15.0
HEARTBEAT_S = 2.0
#: Beyond its drain time, for a gateway to end.
DRAIN_GRACE_S = 1.0
TAIL_LINES = 5

#: A port, as it travels with its socket.
_PORT = struct.Struct("<I")


class GatewaySetup(NamedTuple):
    """What all gateways of a node share.

    Attributes:
        module: its `main(fd)` is a gateway.
        on_change: called after anything observable changed.
        on_sick: called with the id of a worker that hangs, and how that shows.
        on_suspect: called with the id of a worker that has died or is to be ended, and why.
        on_admin: answers requests for the node's own addresses.
    """

    module: str
    config: ServeConfig
    reaper: Reaper
    logs: Logs
    clock: Callable[[], float]
    on_change: Callable[[], None]
    on_sick: Callable[[int, str], None]
    on_suspect: Callable[[int, str], None]
    on_admin: AdminHandler


class Gateway:
    """One place of a gateway: its socket, and the process of the moment, if there is one."""

    def __init__(self, number: int, listener: socket.socket, setup: GatewaySetup) -> None:
        self.number = number
        self.deaths = 0
        self.last_death = ""
        self.brake = Brake()
        #: Deployments that it uses a worker less of, since someone last looked.
        self.released: set[str] = set()
        self._listener = listener
        self._ports: dict[int, socket.socket] = {}
        self._channel: socket.socket | None = None  # takes the sockets of ports
        self._setup = setup
        self._seqs = count(1)
        self._stats: dict[int, asyncio.Future[Stats | None]] = {}
        self._child: Child | None = None
        self._desk = AdminDesk(setup.on_admin)
        self._reset()

    def _reset(self) -> None:
        self.listening = False
        self.acknowledged = 0
        #: Worker id → its deployment and the last table that named it, until it is idle.
        self.uses: dict[int, tuple[str, int]] = {}
        self._idle: set[int] = set()
        self._unanswered: dict[int, float] = {}  # tables, and when they were sent
        self._draining = self._failed = False
        self._started = self._heard = self._asked = self._setup.clock()

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self._child is not None

    @property
    def answering(self) -> bool:
        """Whether it accepts connections and has been heard of within the time it has for that."""
        silent_s = self._setup.clock() - self._heard
        return self.listening and silent_s <= self._setup.config.health_timeout_s

    def start(self, publication: Publication) -> None:
        """Start a process and give it the table before it can accept anyone."""
        self._reset()
        self.brake.started(self._started)
        try:
            child, ports_fd = self._launch()
        except OSError as error:
            self._died(f"could not be started: {error}")
            return
        self._child = child
        config = self._setup.config
        access_log = "-"  # its standard output, which the node echoes
        if config.log_dir:
            access_log = str(Path(config.log_dir).absolute() / "access.log")
        child.send(
            StartGateway(
                gateway_id=self.number,
                listen_fd=self._listener.fileno(),
                limits=config.limits,
                ports_fd=ports_fd,
                cors=config.cors,
                tls_cert=config.tls_cert,
                tls_key=config.tls_key,
                access_log=access_log if config.access_log else "",
                runenv=config.runenv,
            )
        )
        for port in self._ports:
            self._hand_over(port)
        self.publish(publication)

    def _launch(self) -> tuple[Child, int]:
        """A process, and its descriptor of the channel for ports."""
        setup = self._setup
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        with theirs:
            child = Child(
                f"gateway-{self.number}-{self.deaths}",
                command(sys.executable, setup.module),
                reaper=setup.reaper,
                union=FromGateway,
                output=setup.logs.gateway(self.number),
                on_message=self._message,
                on_exit=self._ended,
                secret=setup.config.admin_token,
                pass_fds=(self._listener.fileno(), theirs.fileno()),
            )
            return child, theirs.fileno()

    def listen_at(self, ports: dict[int, socket.socket]) -> None:
        """Have it accept at these ports of services too, and hand them to those after it.

        It has them before it gets a later table, which is what tells it to use or close one.
        """
        new = [port for port, sock in ports.items() if self._ports.get(port) is not sock]
        self._ports = ports
        for port in new:
            self._hand_over(port)

    def _hand_over(self, port: int) -> None:
        if self._channel is None:
            return
        try:
            socket.send_fds(self._channel, [_PORT.pack(port)], [self._ports[port].fileno()])
        except OSError as error:
            self._fail(f"did not take the socket of port {port}: {error.strerror}")

    def publish(self, publication: Publication) -> None:
        """Have it route by this table from now on."""
        if self._child is None:
            return
        snapshot = publication.table.snapshot
        for deployment, routed in publication.routed.items():
            for workers in routed.workers.values():
                self.uses.update(dict.fromkeys(workers, (deployment, snapshot)))
        self._unanswered[snapshot] = self._setup.clock()
        self._child.send(Publish(table=publication.table))

    def forget(self, workers: Iterable[int]) -> None:
        """No answer of these workers, of those it uses, can come any more."""
        for worker in workers:
            self.released.add(self.uses.pop(worker)[0])

    def check(self) -> None:
        """End it if it starts, takes a table or answers too slowly; else ask for a sign of life."""
        if self._child is None or self._draining or self._failed:
            return
        now = self._setup.clock()
        silent_s = now - self._heard
        if not self.listening:
            if now - self._started > START_S:
                self._fail(f"did not listen within {START_S:g} s")
        elif any(now - sent > TABLE_S for sent in self._unanswered.values()):
            self._fail(f"did not take a route table within {TABLE_S:g} s")
        elif silent_s > self._setup.config.health_timeout_s:
            self._fail(f"was silent for {silent_s:.0f} s")
        elif now - self._asked >= HEARTBEAT_S:
            self._asked = now
            self._child.send(StatsRequest(seq=next(self._seqs)))

    def forgive(self) -> None:
        """The node itself stood still: start counting the silence anew."""
        self._heard = now = self._setup.clock()
        self._unanswered = dict.fromkeys(self._unanswered, now)

    async def stats(self, timeout_s: float) -> Stats | None:
        """Its counters, or None when it does not answer in time."""
        if self._child is None or not self.listening:
            return None
        seq = next(self._seqs)
        answer: asyncio.Future[Stats | None] = asyncio.get_running_loop().create_future()
        self._stats[seq] = answer
        self._child.send(StatsRequest(seq=seq))
        try:
            return await within(answer, timeout_s)
        except asyncio.TimeoutError:
            return None
        finally:
            self._stats.pop(seq, None)

    def drain(self, deadline_s: float) -> None:
        """Have it answer what is under way and end; the node lets go of the socket."""
        if self._child is not None:
            self._draining = True
            self._child.send(DrainGateway(deadline_s=deadline_s))
            self._child.end((deadline_s + DRAIN_GRACE_S, signal.SIGKILL))
        self._listener.close()

    def kill(self) -> None:
        """End it at once."""
        if self._child is not None:
            self._child.kill()

    async def close(self) -> None:
        """Cancel the admin requests that nobody waits for any more."""
        await self._desk.close()

    def _fail(self, reason: str) -> None:
        if self._child is not None:
            log.warning("gateway %d %s; replaced", self.number, reason)
            self._failed = True
            self._child.abort()

    def _message(self, message: FromGateway) -> None:
        child = self._child
        match message:
            case Listening():
                self.listening = True
                self._heard = self._setup.clock()
            case Published(snapshot=snapshot):
                self.acknowledged = max(self.acknowledged, snapshot)
                for sent in [sent for sent in self._unanswered if sent <= snapshot]:
                    del self._unanswered[sent]
                self._release()
                self._idle.clear()
                for worker in message.unreachable:
                    self._setup.on_suspect(worker, "took no connection of a gateway")
            case Idle(workers=workers):
                self._idle.update(workers)
                self._release()
            case Stats(seq=seq):
                self._heard = self._setup.clock()
                answer = self._stats.get(seq)
                if answer is not None and not answer.done():
                    answer.set_result(message)
                return
            case WorkerOverdue(worker_id=worker, overdue_s=0):
                self._setup.on_suspect(worker, "hung up on a gateway")
            case WorkerOverdue(worker_id=worker, overdue_s=overdue_s):
                late = f"did not answer a request until {overdue_s:.1f} s after its deadline"
                self._setup.on_sick(worker, late)
            case _:
                if child is not None:
                    self._desk.take(message, child.send, child.drained)
                return
        self._setup.on_change()

    def _release(self) -> None:
        """Free the idle workers, unless a table that is still to be taken names them again.

        A gateway may say Idle just before it acknowledges the table that made it so.
        """
        used = self._idle & self.uses.keys()
        self.forget(worker for worker in used if self.uses[worker][1] < self.acknowledged)

    def _ended(self, how: str) -> None:
        for answer in self._stats.values():
            if not answer.done():
                answer.set_result(None)
        tail = self._setup.logs.gateway_tail(self.number, TAIL_LINES)
        self._died("\n  ".join([f"{how}; its last output:", *tail]) if tail else how)

    def _died(self, how: str) -> None:
        self._child = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.listening = False
        self.forget(list(self.uses))
        if not self._draining:
            self.deaths += 1
            self.last_death = f"gateway {self.number} {how}"
            self.brake.died(self._setup.clock(), 1)
            log.warning("%s", self.last_death)
        self._setup.on_change()
