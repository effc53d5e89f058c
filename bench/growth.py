"""How cost grows: with services online, with idle connections, with the size of a body.

`python -m bench.growth` starts a real gateway with real workers behind it, without a node: many
services stand behind one gateway only in the platform, whose node is not needed to measure them.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.processes import cpu_s, pss_mb
from modelcloud.artifacts.snapshot import take
from modelcloud.config import Limits
from modelcloud.dataplane import messages
from modelcloud.types import GenerationSpec

SERVICES = (1, 10, 100)
CONNECTIONS = (1, 10, 100, 1000)
BODY_MB = 10
SWITCHES = 20
ASKED = 2000

MODEL = """
import modelcloud
from modelcloud.data_types import any, number, text

@modelcloud.command("ask", inputs={"x": number}, outputs={"result": number})
def ask(model, inputs):
    return inputs["x"]

@modelcloud.command("size", inputs={"data": text}, outputs={"result": number})
def size(model, inputs):
    return len(inputs["data"])
"""


class Child:
    """A gateway or worker process and its control socket."""

    def __init__(self, module: str, union: Any, *fds: int) -> None:
        self._socket, theirs = socket.socketpair()
        code = f"import sys, {module} as m; sys.exit(m.main({theirs.fileno()}))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno(), *fds], stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._reader = messages.MessageReader(union)
        self._waiting: list[Any] = []

    def send(self, message: messages.Message) -> None:
        """Tell it."""
        self._socket.sendall(messages.encode(message))

    def wait(self, kind: type[Any]) -> Any:
        """Its next message of a kind."""
        while True:
            while not self._waiting:
                data = self._socket.recv(1 << 20)
                if not data:
                    raise RuntimeError("the process ended")
                self._waiting += self._reader.feed(data)
            message = self._waiting.pop(0)
            if isinstance(message, kind):
                return message

    def end(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self._socket.close()


class Rig:
    """One gateway and a worker for each service."""

    def __init__(self, services: int, folder: Path) -> None:
        (folder / "model.py").write_text(MODEL)
        staged = take(str(folder / "model.py"), folder / "staged")
        self.workers = []
        self.pools = []
        self.commands = []
        for number in range(services):
            worker = Child("modelcloud.dataplane.worker", messages.FromWorker)
            path = str(folder / f"w{number}.sock")
            spec = GenerationSpec(
                service=f"s{number}", generation=1, version=1, target="model.py",
                snapshot=str(staged.folder), digest=staged.digest,
            )  # fmt: skip
            files = folder / f"w{number}.files"
            files.mkdir()
            worker.send(messages.Load(spec=spec, worker_id=number, socket=path, files=str(files)))
            self.workers.append(worker)
            self.commands += [
                messages.CommandRoute(
                    paths=(f"/s{number}/{name}",),
                    command=name,
                    shares=(messages.Share(f"s{number}"),),
                )
                for name in ("ask", "size")
            ]
            address = messages.WorkerAddress(number, path, 1, 1)
            self.pools.append(
                messages.PoolRoutes(name=f"s{number}", service=f"s{number}", workers=(address,))
            )
        for worker in self.workers:
            worker.wait(messages.Ready)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.gateway = Child(
            "modelcloud.dataplane.gateway", messages.FromGateway, listener.fileno()
        )
        self.gateway.send(
            messages.StartGateway(gateway_id=0, listen_fd=listener.fileno(), limits=Limits())
        )
        self.snapshot = 0
        self.switch_s()
        self.gateway.wait(messages.Listening)
        listener.close()

    def switch_s(self) -> float:
        """Publish a new table; returns the seconds until new requests follow it."""
        self.snapshot += 1
        begin = time.monotonic()
        self.gateway.send(
            messages.Publish(
                table=messages.RouteTable(
                    snapshot=self.snapshot,
                    pools=tuple(self.pools),
                    sites=(messages.Site(commands=tuple(self.commands)),),
                )
            )
        )
        self.gateway.wait(messages.Published)
        return time.monotonic() - begin

    def post(self, path: str, body: Any) -> Any:
        """One request on a connection of its own."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
            {"content-type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def end(self) -> None:
        """End all processes."""
        for child in (self.gateway, *self.workers):
            child.end()


@contextlib.contextmanager
def rig(services: int) -> Iterator[Rig]:
    """A running rig."""
    with tempfile.TemporaryDirectory() as folder:
        running = Rig(services, Path(folder))
        try:
            yield running
        finally:
            running.end()


def gateway_us(running: Rig, path: str) -> float:
    """CPU µs of the gateway for one request on a kept connection, others idle."""
    body = b'{"x": 1}'
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        before = cpu_s(running.gateway.process.pid)
        for _ in range(ASKED):
            client.sendall(head + body)
            client.recv(4096)
        spent = cpu_s(running.gateway.process.pid) - before
    return spent / ASKED * 1e6


def services_table() -> list[str]:
    """Idle memory, cost of a request and of a switch, by the number of services."""
    out = [
        "| services | gateway MB (PSS) | each worker MB (PSS) | gateway µs/request | switch ms |",
        "|---:|---:|---:|---:|---:|",
    ]
    for count in SERVICES:
        with rig(count) as running:
            running.post(f"/s{count - 1}/ask", {"x": 1})
            cost = gateway_us(running, f"/s{count - 1}/ask")
            switch = statistics.median(running.switch_s() for _ in range(SWITCHES)) * 1000
            memory = pss_mb(running.gateway.process.pid)
            each = statistics.mean(pss_mb(worker.process.pid) for worker in running.workers)
            out.append(f"| {count} | {memory:.0f} | {each:.0f} | {cost:.0f} | {switch:.2f} |")
    return out


def connections_table() -> list[str]:
    """Memory of idle keep-alive connections, and what they cost a request beside them."""
    out = ["| idle connections | gateway MB (PSS) | gateway CPU µs/request |", "|---:|---:|---:|"]
    with rig(1) as running, contextlib.ExitStack() as stack:
        held = 0
        for count in CONNECTIONS:
            for _ in range(count - held):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", running.port)))
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                client.recv(4096)
            held = count
            cost = gateway_us(running, "/s0/ask")
            out.append(f"| {count} | {pss_mb(running.gateway.process.pid):.0f} | {cost:.0f} |")
    return out


def peak_mb(pid: int) -> float:
    """The most memory a process ever had resident, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def body_table() -> list[str]:
    """What a large body adds to the peak memory of each process it passes through."""
    out = ["| body | gateway: peak over idle, bodies | worker: peak over idle, bodies | ms |",
           "|---|---:|---:|---:|"]  # fmt: skip
    with rig(1) as running:
        running.post("/s0/size", {"data": "x"})
        pids = (running.gateway.process.pid, running.workers[0].process.pid)
        idle = [peak_mb(pid) for pid in pids]
        body = {"data": "x" * (BODY_MB << 20)}
        times = []
        for _ in range(5):
            begin = time.monotonic()
            running.post("/s0/size", body)
            times.append(time.monotonic() - begin)
        extra = [(peak_mb(pid) - was) / BODY_MB for pid, was in zip(pids, idle, strict=True)]
        out.append(f"| {BODY_MB} MB of JSON text | {extra[0]:.1f} | {extra[1]:.1f} "
                   f"| {statistics.median(times) * 1000:.0f} |")  # fmt: skip
    return out


def main() -> int:
    """Measure and print the tables."""
    for title, table in (
        ("Services online", services_table),
        ("Keep-alive connections", connections_table),
        ("Large bodies", body_table),
    ):
        print(f"### {title}\n", *table(), "", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
