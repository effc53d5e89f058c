"""What the connections of one gateway share: route table, pools, links to workers, counters.

Must never: run user code, read a model, or decide on versions. It follows the route table that
the node publishes, and goes on with the last one it has.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable
from datetime import datetime, timezone
from time import monotonic
from typing import Protocol

import msgspec

from modelcloud.dataplane import handshake, messages, responses
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.http import HttpConnection
from modelcloud.dataplane.link import WorkerLink
from modelcloud.dataplane.messages import PoolRoutes, RouteTable, WorkerAddress
from modelcloud.dataplane.metrics import Counters
from modelcloud.dataplane.peer import address_of, user_of
from modelcloud.dataplane.pool import Pool
from modelcloud.dataplane.router import RequestHead
from modelcloud.dataplane.sites import GRACE_S, OpenSite
from modelcloud.dataplane.targets import lookup_of
from modelcloud.waiting import within

CONNECT_TIMEOUT_S = 5.0
#: How long a switch waits for a worker's hello. One in a long call says it afterwards, and gets its
#: first request only then; whether a worker hangs is for the node to find out.
HELLO_S = 1.0
MAX_ADMIN_BODY = 1024 * 1024
MAX_ADMIN_PENDING = 64
#: Unsent bytes to the node beyond which requests for it are refused: a backlog of bodies that
#: clients sent must never look like a node that died.
MAX_ADMIN_BACKLOG = 8 * 1024 * 1024
#: Characters of a path that the access log shows; a line stays below what the node takes as one.
LOGGED_PATH = 1024
#: Generations of a service whose counters are kept beside those the table names; memory stays flat
#: over any number of updates.
COUNTED_GENERATIONS = 16


class NodeChannel(Protocol):
    """The way to the node."""

    def send(self, message: messages.Message) -> None:
        """Tell the node."""

    def backlog(self) -> int:
        """Bytes that the node has not read yet."""


class Gateway:
    """State shared by the connections of one gateway process (`answers.Hub`)."""

    def __init__(self, start: messages.StartGateway, node: NodeChannel) -> None:
        self.limits = start.limits
        self.cors = start.cors.encode()
        self.access_log = bool(start.access_log)
        self.gateway_id = start.gateway_id
        self.node = node
        self.sites = {0: OpenSite(0)}
        self.connections: set[HttpConnection] = set()
        self.turned_away: set[HttpConnection] = set()
        self.connections_total = 0
        self.buffered = 0
        self.retried = 0
        self.rejected: dict[str, int] = {}
        self.presented: dict[str, float] = {}
        self.date = b""
        self.ok_head = b""
        self.starting = False
        self.pools: dict[str, Pool] = {}
        self._heirs: dict[str, str] = {}
        self._links: dict[int, WorkerLink] = {}
        #: Workers of the newest table, even before it holds.
        self._named: frozenset[int] = frozenset()
        self._counted: frozenset[tuple[str, int]] = frozenset()  # service, generation of those
        self._counters: dict[tuple[str, str, int, int], Counters] = {}
        self._admin: dict[int, Exchange] = {}
        self._admin_ids = 0
        self._wanted: RouteTable | None = None
        self._applying = False
        self._log_path = start.access_log
        self._log_lines: list[bytes] = []
        self.tick_clock()

    # ---- the route table

    async def publish(self, table: RouteTable) -> bool:
        """Follow `table`, or a newer one that arrives meanwhile, and say so to the node.

        Returns:
            False if another call is at it, and will see to this table too.
        """
        self._wanted = table
        if self._applying:
            return False
        self._applying = True
        try:
            while self._wanted is not None:
                wanted, self._wanted = self._wanted, None
                unreachable = await self._apply(wanted)
                self.node.send(
                    messages.Published(snapshot=wanted.snapshot, unreachable=unreachable)
                )
        finally:
            self._applying = False
        return True

    async def _apply(self, table: RouteTable) -> list[int]:
        """Connect to the workers first, then switch every service at every site in one go."""
        self._named = frozenset(w.id for routes in table.pools for w in routes.workers)
        self._counted = frozenset(
            (routes.service, w.generation) for routes in table.pools for w in routes.workers
        )
        missing = [
            (self._pool(routes), address)
            for routes in table.pools
            for address in routes.workers
            if address.id not in self._links
        ]
        links = await asyncio.gather(*(self._connect(pool, address) for pool, address in missing))
        unreachable = [
            address.id for (_, address), link in zip(missing, links, strict=True) if link is None
        ]
        for routes in table.pools:
            pool = self._pool(routes)
            pool.limit = routes.queue
            pool.deadline_s = routes.deadline_s
            pool.dispatch = routes.dispatch
        self._switch_sites(table)
        self.starting = table.starting
        valid = {digest for digests in table.token_sets.values() for digest in digests}
        for digest in self.presented.keys() - valid:
            del self.presented[digest]
        for routes in table.pools:
            self._switch_pool(routes)
        for name in self.pools.keys() - {routes.name for routes in table.pools}:
            self._give_up_pool(name)
        self._heirs = {routes.name: routes.heir for routes in table.pools}
        return unreachable

    def _switch_sites(self, table: RouteTable) -> None:
        for site in table.sites:
            self.site(site.port).switch(lookup_of(site, self.pools, table.token_sets))
        gone = self.sites.keys() - {0, *(site.port for site in table.sites)}
        for port in [port for port in gone if self.sites[port].named]:
            self.sites.pop(port).close(monotonic())

    def _switch_pool(self, routes: PoolRoutes) -> None:
        pool = self.pools[routes.name]
        live = [self._links[w.id] for w in routes.workers if w.id in self._links]
        for link in live:
            if link.pool is not pool:
                link.pool.let_go(link)
                link.pool = pool
        pool.switch(live, available=routes.available)

    def _give_up_pool(self, name: str) -> None:
        """A pool that the table names no more: what it has is its heir's."""
        pool = self.pools[name]
        heir = self._heirs.get(name, "")
        if heir in self.pools:
            del self.pools[name]
            pool.give_to(self.pools[heir])
            return
        pool.switch([], available=False)
        if not pool.retiring:
            del self.pools[name]

    def site(self, port: int) -> OpenSite:
        """The site of a port; not named yet if no table has it."""
        return self.sites.setdefault(port, OpenSite(port))

    def _pool(self, routes: PoolRoutes) -> Pool:
        if routes.name not in self.pools:
            self.pools[routes.name] = Pool(self, routes.name, routes.service)
        return self.pools[routes.name]

    async def _connect(self, pool: Pool, address: WorkerAddress) -> WorkerLink | None:
        link = WorkerLink(pool, address)
        connecting: Awaitable[object]
        if address.secret:
            connecting = handshake.call(address.socket, "", address.secret, link)
        else:
            loop = asyncio.get_running_loop()
            connecting = loop.create_unix_connection(lambda: link, address.socket)
        try:
            await within(connecting, CONNECT_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            if link.transport is not None:
                link.transport.abort()
            return None
        await asyncio.wait([link.greeted], timeout=HELLO_S)
        if link.transport.is_closing():
            return None
        self._links[address.id] = link
        return link

    def link_idle(self, link: WorkerLink) -> None:
        """A retired worker owes nothing more: hang up and tell the node."""
        if link.address.id in self._named:  # a table that is about to hold names it again
            if link.transport.is_closing():
                self.link_broken(link)
        elif self._links.get(link.address.id) is link:
            del self._links[link.address.id]
            link.transport.close()
            self.node.send(messages.Idle(workers=[link.address.id]))

    def link_broken(self, link: WorkerLink) -> None:
        """A worker in use hung up; if it is not dead, the node makes it so."""
        if self._links.get(link.address.id) is link:
            del self._links[link.address.id]
            self.node.send(messages.WorkerOverdue(worker_id=link.address.id, overdue_s=0.0))

    def worker_overdue(self, link: WorkerLink, overdue_s: float) -> None:
        """Have the node stop a worker that does not come back."""
        self.node.send(messages.WorkerOverdue(worker_id=link.address.id, overdue_s=overdue_s))

    # ---- requests

    def submit_admin(self, exchange: Exchange, head: RequestHead, path: str) -> None:
        """Hand a request to the node; its answer comes back as an AdminResponse."""
        if len(exchange.body) > MAX_ADMIN_BODY:
            exchange.fail(413, f"body: accepted here up to {MAX_ADMIN_BODY} bytes")
            return
        if len(self._admin) >= MAX_ADMIN_PENDING or self.node.backlog() > MAX_ADMIN_BACKLOG:
            exchange.fail(503, "too many requests of this kind at once; try again later",
                          extra=b"retry-after: 1\r\n")  # fmt: skip
            return
        connection = exchange.connection
        assert connection is not None  # it has just asked
        self._admin_ids += 1
        exchange.tries = 1
        self._admin[self._admin_ids] = exchange
        self.node.send(
            messages.AdminRequest(
                id=self._admin_ids,
                method=head.method,
                path=path,
                query=head.query.decode("latin-1"),
                headers=head.text_headers(),
                body=exchange.body,
                peer=head.peer,
                port=connection.site.port,
                uid=user_of(connection.transport),
            )
        )
        exchange.body = b""

    def admin_answered(self, answer: messages.AdminResponse) -> None:
        """Pass the node's answer on to the client."""
        exchange = self._admin.pop(answer.id, None)
        connection = exchange.connection if exchange is not None else None
        if exchange is None or connection is None or exchange.finished:
            return
        try:
            connection.write_raw(exchange, answer)
        except ValueError as error:
            print(f"admin: {error}", file=sys.stderr, flush=True)  # noqa: T201 — captured
            exchange.fail(500, "the answer has a header that cannot be sent")

    # ---- counting

    def counters(self, service: str, command: str, version: int, generation: int) -> Counters:
        """The counters of one command of one generation."""
        key = (service, command, version, generation)
        if key not in self._counters:
            self._forget_old_counters(service)
            self._counters[key] = Counters()
        return self._counters[key]

    def _forget_old_counters(self, service: str) -> None:
        """Of a service's generations that the table does not name, keep the newest."""
        counted = {key[3] for key in self._counters if key[0] == service}
        unnamed = sorted(n for n in counted if (service, n) not in self._counted)
        forgotten = set(unnamed[:-COUNTED_GENERATIONS])
        for key in [key for key in self._counters if key[0] == service and key[3] in forgotten]:
            del self._counters[key]

    def count_rejected(self, reason: str) -> None:
        """A request was refused before it reached a model."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def stats(self, seq: int) -> messages.Stats:
        """All counters, for the node."""
        links = [*self._links.values()]
        now = monotonic()
        return messages.Stats(
            seq=seq,
            gateway_id=self.gateway_id,
            connections=len(self.connections),
            connections_total=self.connections_total,
            in_flight=sum(len(link.inflight) for link in links),
            queued={name: len(pool.queue) for name, pool in self.pools.items()},
            rejected=dict(self.rejected),
            retried=self.retried,
            commands=[
                counters.to_stats(service, command, version, generation)
                for (service, command, version, generation), counters in self._counters.items()
            ],
            tokens={digest: now - when for digest, when in self.presented.items()},
        )

    def log_access(self, exchange: Exchange, status: int, size: int) -> None:
        """One line of the access log, as JSON so that no value can forge a line."""
        if exchange.log is None:
            return
        connection = exchange.connection
        self._log_lines.append(
            msgspec.json.encode(
                {
                    "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                    "peer": address_of(connection.transport) if connection else "",
                    "method": exchange.log[0],
                    "path": exchange.log[1][:LOGGED_PATH],
                    "status": status,
                    "bytes": size,
                    "ms": round((monotonic() - exchange.arrived) * 1000, 3),
                    "request_id": exchange.request_id.decode("latin-1"),
                }
            )
            + b"\n"
        )

    def flush_log(self) -> None:
        """Append what was logged. The file is opened each time, so that it may be rotated."""
        if not self._log_lines:
            return
        lines, self._log_lines = b"".join(self._log_lines), []
        if self._log_path == "-":
            sys.stdout.buffer.write(lines)
            sys.stdout.buffer.flush()
            return
        try:
            descriptor = os.open(self._log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as error:
            print(f"access log: {error}", file=sys.stderr, flush=True)  # noqa: T201 — captured
            return
        try:
            os.write(descriptor, lines)
        finally:
            os.close(descriptor)

    # ---- time

    def tick_clock(self) -> None:
        """Once a second: the Date header, idle and slow clients."""
        self.date = responses.http_date()
        self.ok_head = b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: application/json\r\n" % (
            self.date
        )
        now = monotonic()
        for connection in (*self.connections, *self.turned_away):
            connection.check_time(now)
            if connection.site.closing and now >= connection.site.ends:
                connection.close_if_idle()

    def tick_deadlines(self) -> None:
        """Ten times a second: requests whose time is up."""
        now = monotonic()
        for pool in self.pools.values():
            pool.check_deadlines(now)
        self.flush_log()

    async def drain(self, deadline_s: float) -> None:
        """Answer what is under way, then end; clients are told not to reuse their connection."""
        end = monotonic() + deadline_s
        for site in self.sites.values():
            site.closing = True
        await asyncio.sleep(0)  # connections that are waiting to be accepted get in
        for site in self.sites.values():
            site.close(monotonic())
        grace = min(monotonic() + GRACE_S, end)
        while self.connections and monotonic() < end:
            if monotonic() >= grace or deadline_s < GRACE_S:
                for connection in list(self.connections):
                    connection.close_if_idle()
            await asyncio.sleep(0.02)
        for connection in (*self.connections, *self.turned_away):
            connection.transport.abort()
        self.flush_log()
