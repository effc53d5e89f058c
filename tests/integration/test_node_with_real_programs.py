"""The node with the real gateway and worker: their protocols fit, and no request is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

from modelcloud.artifacts import snapshot
from modelcloud.types import GenerationSpec
from support import node as support
from support.node import candidate, ready, running, serving

REQUEST = (
    b"POST /answer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
)


def stage(folder: Path, generation: int) -> GenerationSpec:
    """A generation whose answer is its number."""
    model = folder / "model.py"
    model.write_text(f"def answer(a: int = 0) -> int:\n    return {generation}\n")
    target = f"{model}:answer"
    taken = snapshot.take(target, folder / "snapshots")
    return GenerationSpec(
        service=support.SERVICE, generation=generation, version=generation, target=target,
        snapshot=str(taken.folder), digest=taken.digest,
    )  # fmt: skip


async def answers(port: int, end: asyncio.Event) -> Counter[bytes]:
    """Status and body of one request after another, each on a connection of its own."""
    found: Counter[bytes] = Counter()
    while not end.is_set():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        answer = await asyncio.wait_for(reader.read(), support.PATIENCE_S)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        found[head[9:12] + b" " + body] += 1
    return found


def test_a_killed_worker_and_a_switch_cost_no_request(tmp_path: Path) -> None:
    async def scenario() -> Counter[bytes]:
        async with running(
            worker_module="modelcloud.dataplane.worker",
            gateway_module="modelcloud.dataplane.gateway",
        ) as node:
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
