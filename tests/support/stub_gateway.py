"""A gateway that follows tables and answers every connection with what it knows, as JSON.

It reads one line per connection: `tables` (every table so far, as lists of worker ids), `hold`
and `release` (keep the Idle messages back), `overdue N` (call worker N so), `admin PATH` (pass
a request on to the node and give back its status and body). Anything else gets `pong`. It listens
at the ports that the newest table has sites for, and expects each socket before that table.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
from functools import partial
from typing import Any

from modelcloud.dataplane import messages
from modelcloud.dataplane.lifeline import tie_to_parent


class StubGateway:
    """State of the program."""

    def __init__(self, control_fd: int) -> None:
        self.control = socket.socket(fileno=control_fd)
        self.reader = messages.MessageReader(messages.ToGateway)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.control, selectors.EVENT_READ, self.on_control)
        self.ports: dict[int, socket.socket] = {}
        self.tables: list[list[int]] = []
        self.idle: set[int] = set()
        self.hold = False
        self.waiting: socket.socket | None = None
        self.done = False

    def run(self) -> None:
        while not self.done:
            for key, _ in self.selector.select():
                key.data()

    def send(self, message: messages.Message) -> None:
        self.control.sendall(messages.encode(message))

    def on_control(self) -> None:
        data = self.control.recv(1 << 20)
        self.done = not data
        for message in self.reader.feed(data):
            self.handle(message)

    def handle(self, message: Any) -> None:
        if isinstance(message, messages.StartGateway):
            self.listener = socket.socket(fileno=message.listen_fd)
            self.listener.setblocking(False)
            self.channel = socket.socket(fileno=message.ports_fd)
            self.channel.setblocking(False)
        elif isinstance(message, messages.Publish):
            if not self.tables:
                self.accept(self.listener)
                self.send(messages.Listening())
            self.take_ports({site.port for site in message.table.sites} - {0})
            workers = [w.id for pool in message.table.pools for w in pool.workers]
            before = self.tables[-1] if self.tables else []
            self.tables.append(workers)
            self.idle = (self.idle | set(before)) - set(workers)
            self.tell_idle()
            self.send(messages.Published(snapshot=message.table.snapshot))
        elif isinstance(message, messages.StatsRequest):
            self.send(
                messages.Stats(
                    seq=message.seq, gateway_id=0, connections=0, connections_total=0,
                    in_flight=0, queued={}, rejected={}, retried=0, commands=[],
                )
            )  # fmt: skip
        elif isinstance(message, messages.AdminResponse) and self.waiting is not None:
            self.reply(self.waiting, {"status": message.status, "body": message.body.decode()})
            self.waiting = None
        elif isinstance(message, messages.DrainGateway):
            self.done = True

    def tell_idle(self) -> None:
        if self.idle and not self.hold:
            self.send(messages.Idle(workers=sorted(self.idle)))
            self.idle = set()

    def accept(self, listener: socket.socket) -> None:
        self.selector.register(listener, selectors.EVENT_READ, partial(self.on_client, listener))

    def take_ports(self, named: set[int]) -> None:
        """Listen at these; a socket that was handed over anew replaces the one before."""
        while True:
            try:
                data, (descriptor,), _, _ = socket.recv_fds(self.channel, 4, 1)
            except BlockingIOError:
                break
            (port,) = struct.unpack("<I", data)
            self.close(port)
            self.ports[port] = socket.socket(fileno=descriptor)
            self.ports[port].setblocking(False)
            self.accept(self.ports[port])
        for port in self.ports.keys() - named:
            self.close(port)
        assert self.ports.keys() == named

    def close(self, port: int) -> None:
        if port in self.ports:
            self.selector.unregister(self.ports[port])
            self.ports.pop(port).close()

    def on_client(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        client.setblocking(True)
        verb, _, argument = client.makefile().readline().strip().partition(" ")
        if verb == "admin":
            self.waiting = client
            self.send(
                messages.AdminRequest(
                    id=1, method="GET", path=argument, query="", headers=[], body=b""
                )
            )
            return
        if verb == "overdue":
            self.send(messages.WorkerOverdue(worker_id=int(argument), overdue_s=1.0))
        if verb in {"hold", "release"}:
            self.hold = verb == "hold"
            self.tell_idle()
        self.reply(client, self.tables if verb == "tables" else "pong")

    def reply(self, client: socket.socket, answer: Any) -> None:
        client.sendall(json.dumps(answer).encode() + b"\n")
        client.close()


def main(control_fd: int) -> int:
    tie_to_parent()
    StubGateway(control_fd).run()
    return 0
