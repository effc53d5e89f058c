"""A supervisor over stub programs, and the means to wait for what it should come to."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from modelcloud.config import ServeConfig
from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.node.cluster import ClusterSettings
from modelcloud.node.logs import Logs
from modelcloud.node.run_dir import RunDir
from modelcloud.node.supervisor import Supervisor
from modelcloud.serve.app import routing
from modelcloud.types import Desired, GenerationSpec, GenerationWish, Observed, State

TESTS = Path(__file__).parent.parent
SERVICE = "fib"
PATIENCE_S = 30.0


def spec(generation: int = 1, /, key: str = SERVICE, python: str = "", timeout_s: float = 60.0,
         **options: Any) -> GenerationSpec:  # fmt: skip
    """A generation of the stub worker with these options; `key` is the deployment's."""
    return GenerationSpec(
        service=key.partition("/")[0], deployment=key, generation=generation, version=1,
        target="model.py", snapshot="", digest="", options=options, python=python,
        load_timeout_s=timeout_s,
    )  # fmt: skip


def serving(spec: GenerationSpec, replicas: int = 1) -> GenerationWish:
    """Wanted as the generation that serves."""
    return GenerationWish(spec=spec, replicas=replicas, routed=True, restart=True)


def candidate(spec: GenerationSpec, replicas: int = 1) -> GenerationWish:
    """Wanted as one that has to prove itself."""
    return GenerationWish(spec=spec, replicas=replicas, routed=False, restart=False)


def warm(spec: GenerationSpec, replicas: int = 1) -> GenerationWish:
    """Wanted as the one before, kept for a rollback."""
    return GenerationWish(spec=spec, replicas=replicas, routed=False, restart=True)


class Deployed:
    """What a test holds of a deployment."""

    def __init__(self, supervisor: Supervisor, key: str) -> None:
        self.supervisor = supervisor
        self.key = key
        self._changed = asyncio.Event()
        supervisor.on_change(self._look)

    def _look(self, key: str) -> None:
        if key == self.key:
            self._changed.set()

    @property
    def seen(self) -> Observed:
        return self.supervisor.observe(self.key)

    @property
    def pids(self) -> set[int]:
        return {worker.pid for worker in self.seen.workers}

    def want(self, *wishes: GenerationWish) -> None:
        self.supervisor.want(Desired(deployment=self.key, generations=wishes))

    async def until(self, condition: Callable[[Observed], Any]) -> Observed:
        """Wait until what is observed meets the condition."""

        async def wait() -> Observed:
            while not condition(seen := self.seen):
                self._changed.clear()
                await self._changed.wait()
            return seen

        try:
            return await asyncio.wait_for(wait(), PATIENCE_S)
        except asyncio.TimeoutError:
            raise AssertionError(f"never came: {self.seen}") from None

    async def until_ready(self, generation: int, count: int = 1) -> list[int]:
        """Wait until that many workers are ready; their pids."""
        seen = await self.until(lambda seen: len(ready(seen, generation)) == count)
        return ready(seen, generation)

    async def until_routed(self, generation: int) -> tuple[int, ...]:
        """Wait until all gateways route to this generation alone; the ids of its workers."""
        seen = await self.until(lambda seen: list(seen.routed) == [generation])
        return seen.routed[generation]


class Node(Deployed):
    """What a test holds of a running supervisor, and of the deployment that is `SERVICE`."""

    def __init__(self, supervisor: Supervisor, logs: Logs, run_dir: RunDir, port: int) -> None:
        super().__init__(supervisor, SERVICE)
        self.logs = logs
        self.run_dir = run_dir
        self.port = port

    def deployed(self, key: str) -> Deployed:
        """Another deployment of the same node."""
        return Deployed(self.supervisor, key)

    async def ask(self, line: str, port: int = 0) -> Any:
        """Send a line to the gateway that takes the connection; its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        writer.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        writer.close()
        await writer.wait_closed()
        return json.loads(answer)


def ready(seen: Observed, generation: int) -> list[int]:
    """Pids of the ready workers of a generation."""
    return [w.pid for w in seen.workers
            if w.generation == generation and w.state is State.SERVING]  # fmt: skip


async def refuse(request: AdminRequest) -> AdminResponse:
    """Answers admin requests where a test sends none."""
    raise AssertionError(f"{request.path} was asked for")


@asynccontextmanager
async def running(
    *,
    on_admin: Callable[[AdminRequest], Awaitable[AdminResponse]] = refuse,
    worker_module: str = "support.stub_worker",
    gateway_module: str = "support.stub_gateway",
    environ: dict[str, str] | None = None,
    gpus: int | None = None,
    envs: tuple[str, float] | None = None,
    cluster: ClusterSettings | None = None,
    **config: Any,
) -> AsyncIterator[Node]:
    """A node that listens, of the stub programs unless told otherwise."""
    settings = msgspec.convert(
        {"target": "model.py", "service": SERVICE, "port": 0, "drain_s": 20.0, **config},
        ServeConfig,
    )
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(TESTS)
    os.environ.update(environ or {})
    logs = Logs(settings.log_dir, console=io.StringIO())
    with RunDir() as run_dir:
        supervisor = Supervisor(
            settings,
            run_dir=run_dir,
            logs=logs,
            on_admin=on_admin,
            worker_module=worker_module,
            gateway_module=gateway_module,
            gpus=gpus,
            envs=envs,
            cluster=cluster,
        )
        try:
            node = Node(supervisor, logs, run_dir, supervisor.bind())
            supervisor.route(routing(SERVICE))
            await supervisor.listen()
            yield node
        finally:
            await supervisor.stop(1.0)
            logs.close()
            os.environ.clear()
            os.environ.update(before)
