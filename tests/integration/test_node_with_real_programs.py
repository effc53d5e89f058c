"""The node with the real gateway and worker: their protocols fit, and no request is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from modelcloud.artifacts import snapshot
from modelcloud.node import sockets
from modelcloud.types import DeploymentRoute, GenerationSpec, Routing, ServiceRouting
from support import node as support
from support.node import Node, candidate, ready, running, serving
from support.node_children import children, proc


def real_node() -> AbstractAsyncContextManager[Node]:
    return running(
        worker_module="modelcloud.dataplane.worker",
        gateway_module="modelcloud.dataplane.gateway",
    )


def stage(folder: Path, generation: int, key: str = support.SERVICE) -> GenerationSpec:
    """A generation of this deployment whose answer is its number."""
    model = folder / "model.py"
    model.write_text(f"def answer(a: int = 0) -> int:\n    return {generation}\n")
    target = f"{model}:answer"
    taken = snapshot.take(target, folder / "snapshots")
    return GenerationSpec(
        service=key.partition("/")[0], deployment=key, generation=generation, version=generation,
        target=target, snapshot=str(taken.folder), digest=taken.digest,
    )  # fmt: skip


async def answer(port: int, path: str) -> bytes:
    """Status and body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}".encode()
    )
    found = await asyncio.wait_for(reader.read(), support.PATIENCE_S)
    writer.close()
    await writer.wait_closed()
    head, _, body = found.partition(b"\r\n\r\n")
    return head[9:12] + b" " + body


async def answers(port: int, end: asyncio.Event, path: str = "/answer") -> Counter[bytes]:
    """Status and body of one request after another."""
    found: Counter[bytes] = Counter()
    while not end.is_set():
        found[await answer(port, path)] += 1
    return found


def test_a_killed_worker_and_a_switch_cost_no_request(tmp_path: Path) -> None:
    async def scenario() -> Counter[bytes]:
        async with real_node() as node:
            first, second = stage(tmp_path, 1), stage(tmp_path, 2)
            node.want(serving(first, 2))
            await node.until_ready(1, 2)
            await node.until_routed(1)
            end = asyncio.Event()
            load = [asyncio.create_task(answers(node.port, end)) for _ in range(4)]
            killed = ready(node.seen, 1)[0]
            os.kill(killed, signal.SIGKILL)
            await node.until(lambda seen: len(set(ready(seen, 1)) - {killed}) == 2)
            node.want(serving(first, 2), candidate(second, 2))
            await node.until_ready(2, 2)
            node.want(serving(second, 2))
            await node.until_routed(2)
            await node.until(lambda seen: {w.generation for w in seen.workers} == {2})
            end.set()
            return sum(await asyncio.gather(*load), Counter())

    found = asyncio.run(scenario())
    assert set(found) == {b'200 {"result":1}', b'200 {"result":2}'}


#: Two deployments of one service, and one of another.
KEYS = ("fib/1", "fib/2", "sums/3")


def by_version(sums_port: int = 0) -> Routing:
    first, second, third = (
        DeploymentRoute(deployment=key, versions=(number,)) for number, key in enumerate(KEYS, 1)
    )
    return Routing(
        services=(
            ServiceRouting(service="fib", deployments=(first, second)),
            ServiceRouting(service="sums", deployments=(third,), port=sums_port),
        )
    )


def test_deployments_beside_each_other_are_updated_killed_and_forgotten_one_at_a_time(
    tmp_path: Path,
) -> None:
    async def scenario() -> list[Counter[bytes]]:
        async with real_node() as node:
            node.supervisor.route(by_version())
            first, second, other = map(node.deployed, KEYS)
            for number, deployed in enumerate((first, second, other), 1):
                deployed.want(serving(stage(tmp_path, number, deployed.key), 2))
            for number, deployed in enumerate((first, second, other), 1):
                await deployed.until_ready(number, 2)
                await deployed.until_routed(number)
            stay = second.pids | other.pids
            end = asyncio.Event()
            paths = ("/fib/1/answer", "/fib/2/answer", "/predict/sums")
            load = [asyncio.create_task(answers(node.port, end, path)) for path in paths]
            new = stage(tmp_path, 4, first.key)
            old = serving(stage(tmp_path, 1, first.key), 2)
            first.want(old, candidate(new, 2))
            await first.until_ready(4, 2)
            first.want(serving(new, 2))
            await first.until_routed(4)
            await first.until(lambda seen: {w.generation for w in seen.workers} == {4})
            killed = ready(first.seen, 4)[0]
            os.kill(killed, signal.SIGKILL)
            await first.until(lambda seen: len(set(ready(seen, 4)) - {killed}) == 2)
            end.set()
            found = await asyncio.gather(*load)
            assert second.pids | other.pids == stay
            second.want()
            await second.until(lambda _: second.key not in node.supervisor.deployments)
            assert (await answer(node.port, "/fib/2/answer"))[:3] == b"404"
            assert await answer(node.port, "/fib/answer") == b'200 {"result":4}'
            return found

    first, second, other = asyncio.run(scenario())
    assert set(first) == {b'200 {"result":1}', b'200 {"result":4}'}
    assert set(second) == {b'200 {"result":2}'}
    assert set(other) == {b'200 {"message": "SUCCESS", "code": 0, "data": {"result":3}}'}


def test_a_port_of_its_own_is_served_again_by_the_next_gateway(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with real_node() as node:
            sums = node.deployed("sums/3")
            sums.want(serving(stage(tmp_path, 3, sums.key)))
            await sums.until_routed(3)
            (free,) = sockets.reserve("127.0.0.1", 0, 1)
            port = free.getsockname()[1]
            free.close()
            node.supervisor.route(by_version(sums_port=port))
            await until_it_answers(port)
            (gateway,) = (pid for pid in children() if b"dataplane.gateway" in proc(pid, "cmdline"))
            os.kill(gateway, signal.SIGKILL)
            assert await answer(port, "/answer") == b'200 {"result":3}'
            assert await answer(node.port, "/sums/answer") == b'200 {"result":3}'
            assert node.supervisor.gateway_deaths == 1

    asyncio.run(scenario())


async def until_it_answers(port: int) -> None:
    """Wait until the service is there; a table names its port just after it is open."""
    deadline = asyncio.get_running_loop().time() + support.PATIENCE_S
    found = b""
    while found != b'200 {"result":3}':
        assert asyncio.get_running_loop().time() < deadline
        try:
            found = await answer(port, "/answer")
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
