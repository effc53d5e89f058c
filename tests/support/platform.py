"""The whole control plane over a node in memory: services, versions, deployments, no process.

with PlatformRig(url) as rig:
    ann = rig.user("ann")
    rig.service("m261", group="ann", versions=2)
    rig.deploy(ann, "m261", 1)
    assert rig.deployment("m261", 1)["status"] == "Serving"
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from modelcloud.config import PlatformConfig
from modelcloud.control.data_plane import DataPlane
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.dataplane.messages import AdminRequest, AdminResponse, CommandStats, Stats
from modelcloud.engines.fake import FakeEngine
from modelcloud.node.orders import Counters
from modelcloud.sdk.data_types import number
from modelcloud.store.store import Store
from modelcloud.store.tables import Artifact, Deployment, Group, InstanceType, Service, Version
from modelcloud.types import Desired, Observed, Routing
from support.control import GIB, ControlRig

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Of a model that takes one number as its option.
SIGNATURE: dict[str, Any] = {
    "options": [{"name": "depth", **number(default=1).to_dict()}],
    "optionsSchema": {"type": "object", "properties": {"depth": {"type": "integer"}}},
    "commands": [
        {
            "name": "predict",
            "description": "",
            "inputs": [],
            "outputs": [],
            "inputSchema": {"type": "object", "properties": {}},
            "outputSchema": {"type": "object", "properties": {}},
            "streams": False,
            "idempotent": True,
            "wholeBody": False,
            "withRequest": False,
            "wholeSite": False,
            "maxBatchSize": 1,
            "example": {},
        }
    ],
}
WAIT_S = 20.0


class FakeNode:
    """A node as the control plane knows it: a fake engine, what it has, and its counters.

    It outlives control planes; what they wanted of it stays.
    """

    def __init__(self) -> None:
        self.engine = FakeEngine(SIGNATURE)
        self.commands: list[CommandStats] = []
        self.refused_ports: Mapping[int, str] = {}
        self.deaf = False

    def want(self, desired: Desired) -> None:
        if not self.deaf:
            self.engine.want(desired)

    def route(self, routing: Routing) -> None:
        if not self.deaf:
            self.engine.route(routing)

    def observe(self, deployment: str) -> Observed:
        return self.engine.observe(deployment)

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        return self.engine.on_change(callback)

    def deployments(self) -> list[str]:
        return list(self.engine.deployments)

    def lose_listeners(self) -> None:
        """Forget who listened, as a control plane that was killed does not say good-bye."""
        engine = self.engine
        engine._callbacks.clear()
        engine._touched.clear()
        engine._notice = None

    async def counters(self) -> Counters:
        stats = Stats(
            seq=1,
            gateway_id=1,
            connections=0,
            connections_total=0,
            in_flight=0,
            queued={},
            rejected={},
            retried=0,
            commands=self.commands,
        )
        return Counters(seq=1, gateways=[stats], workers=[])

    async def routed(self, timeout_s: float) -> bool:
        return True


class PlatformRig(ControlRig):
    """A control plane with its reconcilers, over `node`.

    Args:
        url: of a migrated store.
        node: one that outlived an earlier control plane; a new one when None.
    """

    def __init__(
        self, url: str, node: FakeNode | None = None, *, store: Store | None = None,
        engine: str = "local",
    ) -> None:  # fmt: skip
        store = store or Store(url)
        self.url = url
        self.node = node or FakeNode()
        self.log: list[tuple[str, str]] = []  # service and line
        self.forgotten: list[str] = []  # services whose logs were removed
        self.reconcilers = Reconcilers(
            store,
            self.node,
            artifacts=Path("/data/artifacts"),
            write=lambda service, line: self.log.append((service, line)),
            forget=self.forgotten.append,
            clock=lambda: time.monotonic() + self.now,
        )
        super().__init__(
            store,
            engine=self.node,
            config=PlatformConfig(data="/data", engine=engine),
            parts=(self.reconcilers,),
        )
        self.data_plane = DataPlane(self.state, self.app.state.auth)
        self._alive = True
        self.run(self.reconcilers.start())
        self.app.state.started = True

    def __enter__(self) -> PlatformRig:  # noqa: PYI034 — Self is not in Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._alive:
            self.run(self.reconcilers.stop())
        super().__exit__(kind, error, traceback)

    def kill(self) -> None:
        """End as by SIGKILL: nothing is written, nobody is told."""
        self._alive = False
        self.node.lose_listeners()
        self.node.deaf = True
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.node.lose_listeners()
        self.node.deaf = False

    # ---- what is there

    def service(
        self, name: str, *, group: str, versions: int = 1, port: int | None = None, **more: Any
    ) -> None:
        """Register a service with versions 1 to `versions`, and the instance type `small`."""

        def work(tx: Session) -> None:
            group_id = tx.scalars(select(Group.id).where(Group.name == group)).one()
            service = Service(
                name=name, group_id=group_id, port=port, sticky=None, created_by=group, created_at=0
            )
            tx.add(service)
            if tx.scalar(select(InstanceType).where(InstanceType.name == "small")) is None:
                tx.add(InstanceType(name="small", cpu=1.0, memory=GIB))
            tx.flush()
            for version in range(1, versions + 1):
                self._version(tx, service, version, **more)

        self.do(work)

    def _version(self, tx: Session, service: Service, number: int, **more: Any) -> None:
        digest = f"{service.name}{number}"
        tx.add(Artifact(digest=digest, size=1, files=1, created_at=0))
        given = {
            "options": {},
            "metrics": {},
            "curves": {},
            "signature": SIGNATURE,
            "origin": {},
            **more,
        }
        tx.add(
            Version(
                service_id=service.id,
                number=number,
                artifact=digest,
                main="model.py",
                runtime="decorated",
                created_by="ann",
                created_at=0,
                **given,
            )
        )

    # ---- asking

    def deploy(self, token: str, service: str, version: int, **more: Any) -> dict[str, Any]:
        """Deploy a version and let it settle; return what was accepted."""
        body = {"version": version, "instance_type": "small", **more}
        answer = self.call(token, "POST", f"/services/{service}/deployments", body)
        assert answer.status_code == 202, answer.text
        self.settle()
        accepted: dict[str, Any] = answer.json()
        return accepted

    def act(
        self, token: str, service: str, version: int, verb: str, body: Any = None
    ) -> dict[str, Any]:
        """Do something to a deployment and let it settle; return what was accepted."""
        path = f"/services/{service}/deployments/{version}"
        if verb == "delete":
            answer = self.call(token, "DELETE", path)
        else:
            answer = self.call(token, "POST", f"{path}/{verb}", body)
        assert answer.status_code == 202, answer.text
        self.settle()
        accepted: dict[str, Any] = answer.json()
        return accepted

    def deployment(self, token: str, service: str, version: int) -> dict[str, Any]:
        """The record of a deployment."""
        answer = self.call(token, "GET", f"/services/{service}/deployments/{version}")
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()
        return record

    def rollout(self, token: str, rollout_id: int) -> dict[str, Any]:
        """The record of a rollout."""
        record: dict[str, Any] = self.call(token, "GET", f"/rollouts/{rollout_id}").json()
        return record

    def forward(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: bytes = b"",
        port: int = 0,
        query: str = "",
    ) -> AdminResponse:
        """What the data plane answers to a request that a gateway forwards, while things move."""
        headers = [] if token is None else [("authorization", f"Bearer {token}")]
        request = AdminRequest(
            id=1, method=method, path=path, query=query, headers=headers, body=body, port=port
        )

        async def ask() -> AdminResponse:
            asked = asyncio.ensure_future(self.data_plane.answer(request))
            await self.moves(asked.done)
            return await asked

        return self.run(ask())

    # ---- moving

    def settle(self, *, loads: bool = True) -> None:
        """Let everything move until nothing does and all is stored."""
        self.run(self._settle(loads))

    def until(self, done: Callable[[], bool], *, loads: bool = True) -> None:
        """Let everything move until `done`."""
        self.run(self.moves(done, loads=loads))

    async def moves(self, done: Callable[[], bool], *, loads: bool = True) -> None:
        deadline = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < deadline, "it did not come to that"
            self.node.engine.settle(loads=loads)
            await asyncio.sleep(0.002)

    async def _settle(self, loads: bool) -> None:
        quiet = 0
        deadline = time.monotonic() + WAIT_S
        before: object = None
        while quiet < 5:
            assert time.monotonic() < deadline, "it does not settle"
            self.node.engine.settle(loads=loads)
            await asyncio.sleep(0.002)
            await self.reconcilers.idle(WAIT_S)
            now = len(self.node.engine.wants), self.node.engine.routing, self.states()
            quiet = quiet + 1 if now == before else 0
            before = now

    def states(self) -> list[tuple[int, int, str]]:
        """Each worker's id, generation and state."""
        found = []
        for key in self.node.deployments():
            found += [(w.id, w.generation, w.state.value) for w in self.node.observe(key).workers]
        return found

    def rows(self) -> dict[int, tuple[int, str, str]]:
        """Version, wanted and state of each deployment in the store, by its id."""
        rows = self.do(lambda tx: tx.scalars(select(Deployment)).all())
        return {row.id: (row.version, row.wanted, row.state) for row in rows}
