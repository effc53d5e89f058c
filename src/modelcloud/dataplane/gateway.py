"""The gateway process: accepts clients on the node's socket and follows the node's route tables.

Must never: outlive the node, run user code, or write anywhere but to clients, workers and node.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from modelcloud.dataplane import messages
from modelcloud.dataplane.http import HttpConnection
from modelcloud.dataplane.hub import Gateway
from modelcloud.dataplane.lifeline import tie_to_parent
from modelcloud.dataplane.messages import RouteTable
from modelcloud.dataplane.ports import take_ports
from modelcloud.dataplane.sites import OpenSite

DEADLINE_TICK_S = 0.1
CLOCK_TICK_S = 1.0
#: Unsent bytes to the node beyond which it counts as dead.
MAX_CONTROL_BACKLOG = 64 * 1024 * 1024
LISTEN_BACKLOG = 2048
#: For a client to answer the end of a TLS connection.
TLS_GOODBYE_S = 5.0


class Control(asyncio.Protocol):
    """The gateway's end of the socket to the node. Its loss means that the node died."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.gateway: Gateway | None = None
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = messages.MessageReader(messages.ToGateway)
        self._listening = False
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The node's first message says what to be."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Without the node there is no gateway."""
        if not self.finished.done():
            self.finished.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Messages from the node."""
        for message in self._reader.feed(data):
            self._handle(message)

    def send(self, message: messages.Message) -> None:
        """Tell the node. A node that reads nothing while its backlog grows is as good as dead."""
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() > MAX_CONTROL_BACKLOG:
            self.transport.abort()
            return
        self.transport.write(messages.encode(message))

    def backlog(self) -> int:
        """Bytes that the node has not read yet."""
        size: int = self.transport.get_write_buffer_size()
        return size

    def _handle(self, message: Any) -> None:
        gateway = self.gateway
        if isinstance(message, messages.StartGateway):
            self.gateway = Gateway(message, self)
            self._start = message
        elif gateway is None:
            raise RuntimeError(f"{type(message).__name__} came before StartGateway")
        elif isinstance(message, messages.Publish):
            self._run(self._publish(gateway, message.table))
        elif isinstance(message, messages.AdminResponse):
            gateway.admin_answered(message)
        elif isinstance(message, messages.StatsRequest):
            self.send(gateway.stats(message.seq))
        elif isinstance(message, messages.DrainGateway):
            self._run(self._drain(gateway, message.deadline_s))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self.finished.done():
            self.finished.set_exception(task.exception() or RuntimeError())

    async def _publish(self, gateway: Gateway, table: RouteTable) -> None:
        applied = await gateway.publish(table)
        if applied and not self._listening:
            self._listening = True
            await self._listen(gateway)
            self.send(messages.Listening())

    async def _listen(self, gateway: Gateway) -> None:
        """Accept clients on the socket that the node made; only now that there is a table."""
        start = self._start
        context = None
        if start.tls_cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(start.tls_cert, start.tls_key or None)
        await self._accept(gateway, gateway.site(0), socket.socket(fileno=start.listen_fd), context)
        if start.ports_fd >= 0:
            take_ports(
                start.ports_fd,
                lambda port, sock: self._run(
                    self._accept(gateway, gateway.site(port), sock, context)
                ),
            )
        _every(CLOCK_TICK_S, gateway.tick_clock)
        _every(DEADLINE_TICK_S, gateway.tick_deadlines)
        gc.collect()
        gc.freeze()  # what exists now stays; collections look only at what requests leave behind

    async def _accept(
        self, gateway: Gateway, site: OpenSite, sock: socket.socket,
        context: ssl.SSLContext | None,
    ) -> None:  # fmt: skip
        """Take the clients of a listening socket as those of a site, in place of an earlier one."""
        if self._draining:
            sock.close()
            return
        loop = asyncio.get_running_loop()
        serve: Any = loop.create_server
        if sock.family == socket.AF_UNIX:
            serve = loop.create_unix_server
        server: asyncio.AbstractServer = await serve(
            lambda: HttpConnection(gateway, site),
            sock=sock,
            ssl=context,
            backlog=LISTEN_BACKLOG,
            ssl_handshake_timeout=self._start.limits.header_timeout_s if context else None,
            ssl_shutdown_timeout=TLS_GOODBYE_S if context else None,
        )
        site.listen(server)

    async def _drain(self, gateway: Gateway, deadline_s: float) -> None:
        self._draining = True
        if self._listening:
            await gateway.drain(deadline_s)
        if not self.finished.done():
            self.finished.set_result(None)


def _every(seconds: float, action: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def tick() -> None:
        loop.call_later(seconds, tick)
        action()

    loop.call_later(seconds, tick)


async def _serve(control_fd: int) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)  # the node says when to end
    sock = socket.socket(fileno=control_fd)
    sock.setblocking(False)
    _, control = await loop.create_unix_connection(Control, sock=sock)
    await control.finished


def main(control_fd: int) -> None:
    """Run a gateway whose control socket is the inherited `control_fd`, until the node ends it."""
    tie_to_parent()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for every connection
    uvloop.install()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(control_fd))
    sys.stderr.flush()
    os._exit(0)  # skip the interpreter's farewell: nothing is left to save
