"""The processes of a node that runs in this one, as the kernel shows them."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

from support import node as support
from support.node import Node, ready, serving, spec


async def gone(pid: int) -> None:
    """Wait until there is no such process (a zombie counts as one)."""
    deadline = asyncio.get_running_loop().time() + support.PATIENCE_S
    while proc(pid, "stat"):
        assert asyncio.get_running_loop().time() < deadline, f"{pid} lives on"
        await asyncio.sleep(0.01)


def proc(pid: int, file: str) -> bytes:
    """A file of /proc/PID; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except FileNotFoundError:
        return b""


def names(folder: str | Path) -> list[str]:
    """What a folder holds."""
    return sorted(path.name for path in Path(folder).iterdir())


def descriptors() -> int:
    """How many this process has open, but for those that other tests let go of."""
    gc.collect()
    return len(names("/proc/self/fd"))


async def until_descriptors(count: int) -> None:
    """Wait until just so many are open: a socket or a pipe is let go of after its end was seen."""
    deadline = asyncio.get_running_loop().time() + support.PATIENCE_S
    while (found := descriptors()) != count:
        assert asyncio.get_running_loop().time() < deadline, f"{found} are open, not {count}"
        await asyncio.sleep(0.01)


#: Children of this process that other tests keep, such as a database server.
OTHERS: set[int] = set()


def children(pid: int | str = "self") -> set[int]:
    """Direct children of a process, zombies included."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = {int(child) for task in tasks for child in (task / "children").read_text().split()}
    return found - OTHERS


def descendants(pid: int) -> set[int]:
    found = children(pid)
    return found.union(*(descendants(child) for child in found))


async def serve_one(node: Node, **options: Any) -> int:
    """One routed worker of generation 1; its pid."""
    node.want(serving(spec(1, **options)))
    await node.until_routed(1)
    return ready(node.seen, 1)[0]


def gateways(node: Node) -> set[int]:
    workers = {worker.pid for worker in node.seen.workers}
    return children() - workers
