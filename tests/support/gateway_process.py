"""A real gateway process, whose node is the test: it hands over sockets and publishes tables."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from modelcloud.config import Limits
from modelcloud.dataplane import messages

M = TypeVar("M", bound=messages.Message)
PATIENCE_S = 60.0


class GatewayProcess:
    """The node's end of a gateway that listens at `port`."""

    def __init__(self, **start: Any) -> None:
        self._control, control = socket.socketpair()
        self._channel, channel = socket.socketpair()
        self._control.settimeout(PATIENCE_S)
        self._reader = messages.MessageReader(messages.FromGateway)
        self._came: list[Any] = []
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self.snapshot = 0
        with control, channel, listener:
            fds = [control.fileno(), channel.fileno(), listener.fileno()]
            code = f"import modelcloud.dataplane.gateway as g; g.main({control.fileno()})"
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=fds, stdin=subprocess.DEVNULL
            )
            self.send(
                messages.StartGateway(
                    gateway_id=0, listen_fd=listener.fileno(), ports_fd=channel.fileno(),
                    limits=Limits(), **start,
                )
            )  # fmt: skip

    def send(self, message: messages.Message) -> None:
        """Tell it."""
        self._control.sendall(messages.encode(message))

    def wait(self, kind: type[M]) -> M:
        """Its next message of a kind; others that came before are kept."""
        while True:
            for message in self._came:
                if isinstance(message, kind):
                    self._came.remove(message)
                    return message
            data = self._control.recv(1 << 20)
            assert data, "the gateway ended"
            self._came += self._reader.feed(data)

    def publish(self, *sites: messages.Site) -> None:
        """Have it follow these sites, beside its own address."""
        self.snapshot += 1
        table = messages.RouteTable(snapshot=self.snapshot, sites=(SITE, *sites))
        self.send(messages.Publish(table=table))
        self.wait(messages.Published)

    def hand_over(self, listener: socket.socket) -> int:
        """Give it a listening socket, as that of the port it is bound to; the node's is closed."""
        with listener:
            port = int(listener.getsockname()[1])
            socket.send_fds(self._channel, [struct.pack("<I", port)], [listener.fileno()])
        return port

    def close(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self._control.close()
        self._channel.close()


ADMIN = (messages.AdminRoute(path="/meta", methods=("GET",)),)
SITE = messages.Site(admin=ADMIN)


@contextmanager
def gateway_process(**start: Any) -> Iterator[GatewayProcess]:
    """A gateway that listens."""
    gateway = GatewayProcess(**start)
    try:
        gateway.publish()
        gateway.wait(messages.Listening)
        yield gateway
    finally:
        gateway.close()
