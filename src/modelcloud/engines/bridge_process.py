"""The process around a bridge: its socket to the node, by whose end it ends.

Must never: outlive the node.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import Any

from modelcloud.dataplane.lifeline import tie_to_parent
from modelcloud.dataplane.messages import Message, MessageReader, encode
from modelcloud.engines.bridge import BACKLOG, Bridge, Cluster
from modelcloud.node.replicas import StartBridge, ToBridge


class NodeLink(asyncio.Protocol):
    """The socket to the node; without the node there is no bridge."""

    def __init__(self, cluster: Cluster) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cluster = cluster
        self._reader = MessageReader(ToBridge)
        self._bridge: Bridge | None = None
        self._running: asyncio.Task[None] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The node's first message says what to be."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Without the node there is no bridge."""
        if not self.finished.done():
            self.finished.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Messages from the node."""
        for message in self._reader.feed(data):
            if isinstance(message, StartBridge):
                self._bridge = Bridge(message, self._cluster, self._send)
                self._running = asyncio.get_running_loop().create_task(self._bridge.run())
                self._running.add_done_callback(self._ended)
            elif self._bridge is not None:
                self._bridge.take(message)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.finished.done() or task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)

    def _send(self, message: Message) -> None:
        if self._transport.get_write_buffer_size() > BACKLOG:
            self._transport.abort()
        if not self._transport.is_closing():
            self._transport.write(encode(message))


async def _serve(control_fd: int, cluster: Cluster) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)  # the node says when to end
    sock = socket.socket(fileno=control_fd)
    sock.setblocking(False)
    _, link = await loop.create_unix_connection(lambda: NodeLink(cluster), sock=sock)
    await link.finished


def run(control_fd: int, cluster: Cluster) -> None:
    """Be a bridge to this cluster, until the node ends it."""
    tie_to_parent()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(_serve(control_fd, cluster))
