"""Serve mode without processes: real reconciler, updates and admin over the in-memory engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import msgspec
from msgspec.structs import replace

from modelcloud.config import ServeConfig
from modelcloud.data_types import category, image, number, text
from modelcloud.dataplane.messages import AdminRequest, AdminResponse, Stats
from modelcloud.engines.fake import FakeEngine
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.sdk.contract import CallKind, Command, Signature
from modelcloud.serve.admin import Admin
from modelcloud.serve.settings import checked
from modelcloud.serve.updates import Updates
from modelcloud.types import Observed

P = ParamSpec("P")

#: Seconds; only a test that hangs waits as long.
PATIENCE_S = 20.0

OPTIONS = {"model": category(["big", "small"]), "version": text(default="0.1.0")}
SIGNATURE = Signature(
    options=OPTIONS,
    commands=(
        Command(
            name="fib",
            inputs={"n": number(min=0, max=40, step=1), "note": text(default="")},
            outputs={"result": number()},
            description="Fibonacci numbers",
        ),
        Command(
            name="draw",
            inputs={"picture": image(default=None)},
            outputs={"picture": image()},
            kind=CallKind.GENERATOR,
        ),
        Command(name="raw", whole_body=True),
        Command(name="page", with_request=True),
    ),
)


class Engine(FakeEngine):
    """Offers each generation's option values, as a worker sends them."""

    def observe(self, service: str) -> Observed:
        observed = super().observe(service)
        values = {wish.spec.generation: wish.spec.options for wish in self.desired.generations}
        defaults = {name: kind.default for name, kind in OPTIONS.items()}
        signatures = {
            generation: {**signature, "optionValues": {**defaults, **values.get(generation, {})}}
            for generation, signature in observed.signatures.items()
        }
        return replace(observed, signatures=signatures)


class World:
    """A service whose code lies in `folder`; its workers move when the loop is idle.

    Args:
        holds: whether workers stay as they are until `settle` is called.
    """

    def __init__(self, folder: Path, *, holds: bool = False, **settings: Any) -> None:
        self.folder = folder / "code"
        self.folder.mkdir()
        self.model = self.folder / "model.py"
        self.model.write_text("version = 1\n")
        self.config = checked(ServeConfig(target=str(self.model), service="fib", **settings))
        self.now = 1000.0
        self.engine = Engine(SIGNATURE.to_dict())
        self.reconciler = Reconciler(self.engine, "fib", replicas=2, clock=lambda: self.now)
        self.stats: list[Stats] = []
        self.staged = folder / "staged"
        self.updates = Updates(self.config, self.reconciler, self.observe, self.staged)
        self.admin = Admin(
            self.config,
            reconciler=self.reconciler,
            updates=self.updates,
            observe=self.observe,
            stats=self._stats,
            worker_deaths=lambda: 3,
            clock=lambda: self.now,
        )
        self.holds = holds
        self.engine.on_change(lambda _: self._moved())

    async def serve(self) -> None:
        """Bring the first generation up."""
        rollout = await self.updates.begin_first()
        self.engine.settle()
        await self.reconciler.wait(rollout.id, PATIENCE_S)

    async def ask(
        self, method: str, path: str, body: Any = b"", query: str = "", **headers: str
    ) -> AdminResponse:
        """One request as a gateway hands it on, from loopback."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"host": "127.0.0.1:8080", **headers}
        return await self.admin.answer(
            AdminRequest(
                id=7,
                method=method,
                path=path,
                query=query,
                headers=[(name.replace("_", "-"), value) for name, value in headers.items()],
                body=content,
                peer="127.0.0.1",
            )
        )

    def observe(self) -> Observed:
        return self.engine.observe("fib")

    def snapshots(self) -> set[str]:
        """Names of the snapshots that are kept."""
        return {entry.name for entry in self.staged.iterdir()}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to come true."""
        while not condition():  # noqa: ASYNC110 — what tests wait for has no event
            await asyncio.sleep(0.001)

    def _moved(self) -> None:
        if not self.holds:
            self.engine.settle()

    async def _stats(self) -> list[Stats]:
        return self.stats


def decoded(response: AdminResponse) -> Any:
    """An answer's JSON."""
    return msgspec.json.decode(response.body)
