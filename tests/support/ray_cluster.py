"""A real Ray cluster of one or more nodes on this machine, ended by the ids of its processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.server import wait_for

START_S = 90.0
#: Of all that is started here and for who talks to it: no token, nothing sent to anybody.
ENV = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # raylets of one machine must not take each other's processes for memory to be freed
    "RAY_memory_monitor_refresh_ms": "0",
}
#: Ports of one node: its own, and a hundred for its workers.
_PORTS = 110


class RayNode:
    """One `ray start --block`, and all that it started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def pids(self) -> list[int]:
        """Its processes, children before parents."""
        return below(self.process.pid)

    def kill(self) -> None:
        """As when the machine loses its power: all at once."""
        for pid in [self.process.pid, *self.pids()]:  # who would tidy up goes first
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


class RayCluster:
    """A head, and nodes that joined it.

    Attributes:
        address: for `--ray-address`.
        http_port: for `--ray-http-port`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: list[RayNode] = []
        self._base = free_range()
        self.address = f"127.0.0.1:{self._base}"
        self.http_port = self._base + 9

    def start_head(self, cpus: int) -> RayNode:
        base = self._base
        return self._start(
            "--head", f"--port={base}", f"--dashboard-port={base + 1}",
            f"--ray-client-server-port={base + 2}", *self._common(cpus),
        )  # fmt: skip

    def join(self, cpus: int) -> RayNode:
        return self._start(f"--address={self.address}", *self._common(cpus))

    def _common(self, cpus: int) -> list[str]:
        number = len(self.nodes)
        base = self._base + number * _PORTS
        return [
            f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=100000000",
            f"--min-worker-port={base + 10}", f"--max-worker-port={base + _PORTS - 1}",
            f"--temp-dir={self._folder / str(number)}", "--node-ip-address=127.0.0.1",
            f"--node-manager-port={base + 3}", f"--object-manager-port={base + 4}",
            f"--runtime-env-agent-port={base + 5}", f"--dashboard-agent-grpc-port={base + 6}",
            f"--dashboard-agent-listen-port={base + 7}", f"--metrics-export-port={base + 8}",
            "--disable-usage-stats", "--block",
        ]  # fmt: skip

    def _start(self, *arguments: str) -> RayNode:
        log = self._folder / f"{len(self.nodes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("ray"), "start", *arguments],
                env={**os.environ, **ENV, "XDG_DATA_HOME": str(self._folder / "kept")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        node = RayNode(process, log)
        self.nodes.append(node)

        def started() -> bool:
            assert process.poll() is None, node.output
            return "Ray runtime started" in node.output

        wait_for("ray start", started, START_S)
        return node

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.kill()


@contextlib.contextmanager
def ray_cluster(cpus: int = 4) -> Iterator[RayCluster]:
    """A cluster of one node; its folder has a short path, for Ray keeps sockets there."""
    folder = Path(tempfile.mkdtemp(prefix="mc-ray-", dir="/tmp"))
    cluster = RayCluster(folder)
    try:
        cluster.start_head(cpus)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def processes(cluster: RayCluster, name: str) -> list[int]:
    """Ids of the cluster's processes whose command line has this in it."""
    found = []
    for node in cluster.nodes:
        for pid in node.pids():
            with contextlib.suppress(OSError):
                if name in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                    found.append(pid)
    return found


def below(root: int) -> list[int]:
    """Processes that came of one, children before parents."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int(stat.read_text(errors="replace").rpartition(") ")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    todo = [root]
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += more
    return found[::-1]


def free_range() -> int:
    """The first of a row of ports, enough for three nodes, of which none is taken now.

    Below what the kernel gives to connections, and apart for test runs beside each other.
    """
    bases = range(20000, 30000, _PORTS * 3)
    first = os.getpid() % len(bases)
    turned: list[int] = [*bases[first:], *bases[:first]]
    for base in turned:
        if all(_is_free(base + offset) for offset in (*range(11), _PORTS, 2 * _PORTS)):
            return base
    raise AssertionError("no ports are free for a Ray cluster")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
