"""A node whose workers a cluster holds: same states, same rules, and gateways ask them by TCP.

The cluster is a stub of threads; node, gateway, bridge, replicas and workers are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelcloud.artifacts import snapshot
from modelcloud.node.cluster import ClusterSettings
from modelcloud.types import GenerationSpec, Observed
from support import node as support
from support.loops import on_a_loop
from support.node import Node, candidate, running, serving
from support.node_children import proc
from support.ray_cluster import below

pytestmark = pytest.mark.xdist_group("node-cluster")


#: Status and body, by generation.
ANSWERS = {number: b'200 {"result":%d}' % number for number in (1, 2)}


@contextlib.asynccontextmanager
async def clustered(folder: Path) -> AsyncIterator[Node]:
    """A node with a cluster beside it."""
    place = folder / "cluster"
    place.mkdir(exist_ok=True)
    settings = ClusterSettings(
        module="support.stub_cluster", address=str(place), http_port=0, data=folder, confine=False
    )
    async with running(
        worker_module="modelcloud.dataplane.worker",
        gateway_module="modelcloud.dataplane.gateway",
        cluster=settings,
    ) as node:
        yield node


def stage(folder: Path, generation: int, code: str = "") -> GenerationSpec:
    """A generation that answers its number, to be run in the cluster."""
    model = folder / "model.py"
    model.write_text(f"{code}\ndef answer(a: int = 0) -> int:\n    return {generation}\n")
    target = f"{model}:answer"
    taken = snapshot.take(target, folder / "snapshots")
    return GenerationSpec(
        service=support.SERVICE, deployment=support.SERVICE, generation=generation,
        version=generation, target=target, snapshot=str(taken.folder), digest=taken.digest,
        engine="ray",
    )  # fmt: skip


async def answer(port: int) -> bytes:
    """Status and body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /answer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )
    found = await asyncio.wait_for(reader.read(), support.PATIENCE_S)
    writer.close()
    await writer.wait_closed()
    head, _, body = found.partition(b"\r\n\r\n")
    return head[9:12] + b" " + body


@contextlib.asynccontextmanager
async def asked(port: int) -> AsyncIterator[Counter[bytes]]:
    """One request after another on four connections; what came of them, complete at the end."""
    found: Counter[bytes] = Counter()
    end = asyncio.Event()

    async def ask() -> None:
        while not end.is_set():
            found[await answer(port)] += 1

    load = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield found
    finally:
        end.set()
        await asyncio.gather(*load)


def serves(seen: Observed, generation: int) -> list[int]:
    """Ids of the ready workers of a generation."""
    return [w.id for w in seen.workers if w.generation == generation and w.state.value == "serving"]


async def until_serving(node: Node, generation: int, count: int) -> list[int]:
    seen = await node.until(lambda seen: len(serves(seen, generation)) == count)
    return serves(seen, generation)


def workers() -> list[int]:
    """Ids of the worker processes below this one."""
    return [
        pid for pid in below(os.getpid()) if b"modelcloud.dataplane.worker" in proc(pid, "cmdline")
    ]


def damage(spec: GenerationSpec) -> None:
    """Change a file of the artifact, of which its manifest knows nothing."""
    (code,) = Path(spec.snapshot).rglob("model.py")
    code.chmod(0o600)
    code.write_text(code.read_text() + "# changed")


@on_a_loop
async def test_updates_deaths_and_fewer_replicas_cost_no_request(tmp_path: Path) -> None:
    async with clustered(tmp_path) as node:
        first, second = stage(tmp_path, 1), stage(tmp_path, 2)
        node.want(serving(first, 2))
        before = await until_serving(node, 1, 2)
        await node.until_routed(1)
        async with asked(node.port) as found:
            os.kill(workers()[0], signal.SIGKILL)
            await node.until(lambda seen: not {*before} <= {w.id for w in seen.workers})
            await until_serving(node, 1, 2)
            node.want(serving(first, 2), candidate(second, 2))
            await until_serving(node, 2, 2)
            node.want(serving(second, 2))
            await node.until_routed(2)
            await node.until(lambda seen: {w.generation for w in seen.workers} == {2})
            node.want(serving(second, 1))  # the cluster lets another one go than the node does
            await node.until(lambda seen: len(seen.workers) == 1 and serves(seen, 2))
        assert found.keys() == {ANSWERS[1], ANSWERS[2]}


@on_a_loop
async def test_a_candidate_that_fails_says_why_in_the_words_of_its_author(tmp_path: Path) -> None:
    async with clustered(tmp_path) as node:
        first = stage(tmp_path, 1)
        bad = stage(tmp_path, 2, code="raise ValueError('no weights')")
        node.want(serving(first))
        await until_serving(node, 1, 1)
        await node.until_routed(1)
        node.want(serving(first), candidate(bad))
        seen = await node.until(lambda seen: seen.failures)
        assert "no weights" in seen.failures[2]
        assert "model.py" in seen.failures[2]
        assert str(tmp_path / "cluster") not in seen.failures[2]
        assert await answer(node.port) == ANSWERS[1]


@on_a_loop
async def test_an_artifact_that_is_not_what_its_digest_says_is_not_served(tmp_path: Path) -> None:
    async with clustered(tmp_path) as node:
        spec = stage(tmp_path, 1)
        damage(spec)
        node.want(candidate(spec))
        seen = await node.until(lambda seen: seen.failures)
        assert "damaged" in seen.failures[1]
        assert not list((tmp_path / "cluster" / "kept" / "artifacts").glob("[0-9a-f]*[0-9a-f]"))


@on_a_loop
async def test_without_its_cluster_a_worker_fails_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "away").touch()
    async with clustered(tmp_path) as node:
        local = replace(stage(tmp_path, 1), engine="")
        here = node.deployed("local")
        here.want(serving(replace(local, deployment="local", service="local")))
        node.want(candidate(stage(tmp_path, 1)))
        seen = await node.until(lambda seen: seen.failures)
        assert "cannot be reached: nobody is there" in seen.failures[1]
        await here.until_ready(1)
