"""Every route and verb, asked by everybody, against a written table. A new route needs a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import select

from modelcloud.config import PlatformConfig
from modelcloud.control.monitors.monitoring import Monitoring
from modelcloud.control.observe.metrics_keeper import MetricsKeeper
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.services.registration import Registration
from modelcloud.control.state import PlatformState
from modelcloud.control.web.gate import PUBLIC_PAGES
from modelcloud.control.workspaces.workspaces import Workspaces
from modelcloud.engines.fake import FakeEngine
from modelcloud.node.orders import Counters
from modelcloud.store.store import Store
from modelcloud.store.tables import (
    Artifact,
    Deployment,
    Group,
    InstanceType,
    Monitor,
    RolloutRow,
    Service,
    Version,
)
from support.control import PASSWORD, ControlRig, standing_of
from support.stores import Databases

if TYPE_CHECKING:
    from fastapi import FastAPI
    from sqlalchemy.orm import Session

T = TypeVar("T")

#: Who asks, of the objects of group `lab`, for each column of the table below: nobody; somebody
#: signed in who has nothing to do with the group; the manager's token that may predict; members
#: at each level; an administrator's token that opens `lab` only; an administrator.
ROLES = ("anonymous", "stranger", "predict", "read", "modify", "manage", "scoped", "admin")

PUBLIC = "ok ok ok ok ok ok ok ok"
ANYBODY = "401 ok ok ok ok ok ok ok"
NOT_BY_PREDICT = "401 ok 403 ok ok ok ok ok"
SIGNED_IN = "401 ok 403 ok ok ok 403 ok"
ADMIN = "401 403 403 403 403 403 403 ok"
MODIFY = "401 404 404 403 ok ok ok ok"
READ = "401 404 404 ok ok ok ok ok"
MANAGE = "401 404 404 403 403 ok ok ok"

#: Bodies that are filled in later.
MODEL, UPLOAD = "a model below a root", "an archive"
#: Of a place that is refused before anybody connects to it.
SOURCE = {
    "type": "general", "general_host": "http://127.0.0.1:9", "remote_path": "/",
    "remote_model_name": "m.tar", "remote_donefile_name": "done",
    "deploy": {"instance_type": "small"},
}  # fmt: skip
MONITOR = {"name": "new", "paused": True, **SOURCE}

#: Route → the JSON body that is sent, and what each role gets: `ok` is an answer below 400, or
#: what the work itself could not do (409, 422, 504).
TABLE: dict[str, tuple[Any, str]] = {
    "POST /api/v1/session": ({"user": "admin", "password": PASSWORD}, PUBLIC),
    "GET /api/v1/session": (None, ANYBODY),
    "DELETE /api/v1/session": (None, SIGNED_IN),
    "PUT /api/v1/session/password": ({"current": PASSWORD, "new": "another one"}, SIGNED_IN),
    "GET /api/v1/users": (None, ADMIN),
    "POST /api/v1/users": ({"name": "new", "password": PASSWORD}, ADMIN),
    "GET /api/v1/users/{name}": (None, ADMIN),
    "PATCH /api/v1/users/{name}": ({"disabled": True}, ADMIN),
    "DELETE /api/v1/users/{name}": (None, ADMIN),
    "GET /api/v1/tokens": (None, SIGNED_IN),
    "POST /api/v1/tokens": ({"level": "read"}, SIGNED_IN),
    # Of the stranger: nobody else's to see, but for administrators.
    "DELETE /api/v1/tokens/{token_id}": (None, "401 ok 404 404 404 404 404 ok"),
    "GET /api/v1/groups": (None, ANYBODY),
    "POST /api/v1/groups": ({"name": "new"}, SIGNED_IN),
    "GET /api/v1/groups/{group}": (None, READ),
    "PATCH /api/v1/groups/{group}": ({"description": "x"}, MANAGE),
    "DELETE /api/v1/groups/{group}": (None, MANAGE),
    "PUT /api/v1/groups/{group}/quota": ({"cpu": 1}, ADMIN),
    "GET /api/v1/groups/{group}/members": (None, READ),
    "PUT /api/v1/groups/{group}/members/{user}": ({"level": "read"}, MANAGE),
    "DELETE /api/v1/groups/{group}/members/{user}": (None, MANAGE),
    "GET /api/v1/instance-types": (None, NOT_BY_PREDICT),
    "POST /api/v1/instance-types": ({"name": "new"}, ADMIN),
    "GET /api/v1/instance-types/{name}": (None, NOT_BY_PREDICT),
    "PATCH /api/v1/instance-types/{name}": ({"cpu": 2}, ADMIN),
    "DELETE /api/v1/instance-types/{name}": (None, ADMIN),
    "GET /api/v1/uploads": (None, "401 ok 403 ok ok ok ok ok"),
    "POST /api/v1/uploads": (UPLOAD, "401 ok 403 ok ok ok ok ok"),
    "DELETE /api/v1/uploads/{upload}": (None, "401 404 404 404 404 404 404 404"),
    "GET /api/v1/services": (None, ANYBODY),
    "POST /api/v1/services": ({"name": "new", "group": "lab"}, MODIFY),
    "GET /api/v1/services/{service}": (None, READ),
    "PATCH /api/v1/services/{service}": ({"description": "x"}, MODIFY),
    "DELETE /api/v1/services/{service}": (None, MANAGE),
    "GET /api/v1/services/{service}/versions": (None, READ),
    "POST /api/v1/services/{service}/versions": (
        MODEL, "401 ok 404 403 ok ok ok ok"),
    "GET /api/v1/services/{service}/versions/{version}": (None, READ),
    "PATCH /api/v1/services/{service}/versions/{version}": ({"description": "x"}, MODIFY),
    "DELETE /api/v1/services/{service}/versions/{version}": (None, MANAGE),
    "GET /api/v1/services/{service}/versions/{version}/curves": (None, READ),
    "GET /api/v1/services/{service}/versions/{version}/logs": (None, READ),
    "GET /api/v1/services/{service}/versions/{version}/metrics": (None, READ),
    "GET /api/v1/services/{service}/logs": (None, READ),
    "GET /api/v1/services/{service}/metrics": (None, READ),
    "GET /api/v1/services/{service}/deployments": (None, READ),
    "POST /api/v1/services/{service}/deployments": (
        {"version": 2, "instance_type": "small", "replicas": 1}, MODIFY),
    "DELETE /api/v1/services/{service}/deployments": (None, MANAGE),
    "GET /api/v1/services/{service}/deployments/{version}": (None, READ),
    "DELETE /api/v1/services/{service}/deployments/{version}": (None, MANAGE),
    "POST /api/v1/services/{service}/deployments/{version}/redeploy": (None, MODIFY),
    "POST /api/v1/services/{service}/deployments/{version}/start": (None, MODIFY),
    "POST /api/v1/services/{service}/deployments/{version}/stop": (None, MANAGE),
    "POST /api/v1/services/{service}/deployments/{version}/update": ({"options": {}}, MODIFY),
    "POST /api/v1/services/{service}/deployments/{version}/rollback": (None, MODIFY),
    "POST /api/v1/services/{service}/deployments/{version}/scale": ({"replicas": 2}, MODIFY),
    "GET /api/v1/monitors": (None, ANYBODY),
    "GET /api/v1/services/{service}/monitors": (None, READ),
    "POST /api/v1/services/{service}/monitors": (MONITOR, MODIFY),
    "POST /api/v1/services/{service}/monitors/test": (MONITOR, MODIFY),
    "GET /api/v1/services/{service}/monitors/{monitor}": (None, READ),
    "PATCH /api/v1/services/{service}/monitors/{monitor}": ({"interval": 20}, MODIFY),
    "DELETE /api/v1/services/{service}/monitors/{monitor}": (None, MANAGE),
    "POST /api/v1/services/{service}/monitors/{monitor}/pause": (None, MODIFY),
    "POST /api/v1/services/{service}/monitors/{monitor}/resume": (None, MODIFY),
    "POST /api/v1/services/{service}/monitors/{monitor}/run": (None, MODIFY),
    "POST /api/v1/services/{service}/monitors/{monitor}/test": (None, MODIFY),
    "GET /api/v1/services/{service}/monitors/{monitor}/events": (None, READ),
    "GET /api/v1/services/{service}/traffic": (None, READ),
    "PUT /api/v1/services/{service}/traffic": ({"labels": {}}, MODIFY),
    "GET /api/v1/rollouts": (None, ANYBODY),
    "GET /api/v1/rollouts/{rollout}": (None, READ),
    "GET /api/v1/rollouts/{rollout}/events": (None, READ),
    "GET /api/v1/workspaces": (None, ANYBODY),
    "POST /api/v1/workspaces/{group}": (None, MODIFY),
    # None runs: not found by those who may.
    "POST /api/v1/workspaces/{group}/open": (None, "401 404 404 403 404 404 404 404"),
    "DELETE /api/v1/workspaces/{group}": (None, "401 404 404 403 404 404 404 404"),
    "DELETE /api/v1/workspaces/{group}?user=modify": (
        None, "401 404 404 403 404 404 404 404"),
    "GET /api/v1/workspaces/{group}/folders": (None, MODIFY),
    "GET /metrics": (None, ADMIN),
    "GET /api/v1/node": (None, NOT_BY_PREDICT),
    "GET /api/v1/audit": (None, ADMIN),
    "GET /api/v1/audit?group=lab": (None, MANAGE),
}  # fmt: skip

#: What stands for the parameters of a path.
OBJECTS: dict[str, Any] = {
    "group": "lab", "user": "read", "service": "fib", "version": 1, "rollout": 1,
    "monitor": "daily",
}  # fmt: skip
NAMES = {"/users/": "victim", "/instance-types/": "small"}


class _Undone(Exception):
    def __init__(self, result: object) -> None:
        self.result = result


class UndoingStore(Store):
    """A store on which every transaction is done and then undone, once `undoing` is set."""

    undoing = False

    async def transact(self, work: Callable[[Session], T]) -> T:
        if not self.undoing:
            return await super().transact(work)

        def undone(tx: Session) -> T:
            result = work(tx)
            tx.flush()
            raise _Undone(result)

        try:
            return await super().transact(undone)
        except _Undone as done:
            return done.result  # type: ignore[return-value]


class World:
    """A group, everybody who has to do with it, and objects to ask for."""

    def __init__(self, rig: ControlRig) -> None:
        self.rig = rig
        self.tokens: dict[str, str | None] = {
            "anonymous": None,
            "admin": rig.user("admin", admin=True),
            **{name: rig.user(name) for name in ("stranger", "read", "modify", "manage")},
        }
        rig.user("victim")
        assert rig.call(self.tokens["admin"], "POST", "/groups", {"name": "lab"}).is_success
        rig.do(_fill)
        for name in ("read", "modify", "manage"):
            rig.share("lab", name, name)
        self.tokens["predict"] = rig.token("manage", "predict")
        self.tokens["scoped"] = rig.token("admin", group="lab")
        sessions = rig.call(self.tokens["stranger"], "GET", "/tokens").json()["items"]
        self.session_of_stranger = sessions[0]["id"]

    def status(self, role: str, route: str, body: Any) -> str:
        method, _, path = route.partition(" ")
        path = path.format(
            **OBJECTS,
            upload="none",
            token_id=self.session_of_stranger,
            name=next((n for noun, n in NAMES.items() if noun in path), ""),
        )
        if body == MODEL:
            (root,) = self.rig.state.config.roots
            body = {"path": f"{root}/model.py"}
        content = b"archive" if body == UPLOAD else None
        body = None if body == UPLOAD else body
        url = f"http://127.0.0.1:8000{path}"
        headers = {"content-type": "application/octet-stream"} if content else {}
        answer = self.rig.call(
            self.tokens[role], method, url, body, content=content, headers=headers
        )
        if answer.status_code < 400 or answer.status_code in {409, 422, 504}:
            return "ok"
        return str(answer.status_code)


class Node(FakeEngine):
    """An engine with what a control plane asks of its node beyond the seam."""

    refused_ports: Mapping[int, str] = {}

    def deployments(self) -> list[str]:  # type: ignore[override]
        return [*self._deployments]

    async def counters(self, timeout_s: float = 5.0) -> Counters:
        return Counters(seq=0, gateways=[], workers=[])

    async def routed(self, timeout_s: float) -> bool:
        return True


def _fill(tx: Session) -> None:
    """A service of the group with two versions, the first deployed by `manage`."""
    group_id = tx.scalars(select(Group.id).where(Group.name == "lab")).one()
    service = Service(
        name="fib", group_id=group_id, sticky=None, next_version=3, next_generation=2,
        created_by="manage", created_at=1.0,
    )  # fmt: skip
    tx.add_all(
        [
            InstanceType(name="small"),
            Artifact(digest="0" * 64, size=1, files=1, created_at=1.0),
            service,
        ]
    )
    tx.flush()
    for number in (1, 2):
        version = Version(
            service_id=service.id, number=number, artifact="0" * 64, main="model.py",
            runtime="decorated", options={}, metrics={}, curves={}, signature={}, origin={},
            created_by="manage", created_at=1.0,
        )  # fmt: skip
        tx.add(version)
    deployment = Deployment(
        service_id=service.id, version=1, wanted="online", state="serving", instance_type="small",
        cpu=0.0, memory=0, gpu=0.0, replicas=1, dispatch={}, strategy={}, options={},
        answers=[1], facts={}, deployed_by="manage", created_at=1.0,
    )  # fmt: skip
    tx.add(deployment)
    tx.flush()
    rollout = RolloutRow(
        service_id=service.id, deployment_id=deployment.id, kind="update", state="succeeded",
        step="serving", strategy={}, source=None, target={"generation": 1, "version": 1}, change={},
        actor="manage", accepted_at=1.0, started_at=1.0, finished_at=2.0,
    )  # fmt: skip
    monitor = Monitor(
        service_id=service.id, name="daily", settings=SOURCE, secret_names=[], paused=True,
        created_by="manage", created_at=1.0,
    )  # fmt: skip
    tx.add_all([rollout, monitor])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    databases = Databases(tmp_path_factory.mktemp("databases"))
    folder = tmp_path_factory.mktemp("store")
    store = UndoingStore(databases.sqlite(folder))
    models = tmp_path_factory.mktemp("models")
    (models / "model.py").write_text("def fib(n: int) -> int:\n    return n\n")
    config = PlatformConfig(data=str(folder), roots=(str(models),), load_timeout_s=0.1)
    engine = Node()
    reconcilers = Reconcilers(store, engine, artifacts=Path("/"), write=lambda service, line: None)
    standing = standing_of(config)
    registration = Registration(
        store,
        engine,
        standing,
        write=lambda service, line: None,
        in_use=reconcilers.in_use,
        clock=time.monotonic,
    )
    state = PlatformState(store=store, engine=engine, standing=standing)
    parts = (
        reconcilers,
        registration,
        MetricsKeeper(store, engine.counters),
        Monitoring(state, registration, reconcilers),
        Workspaces(state),
    )
    with ControlRig(store, engine=engine, config=config, parts=parts) as rig:
        found = World(rig)
        rig.start()
        store.undoing = True
        yield found


def routes_of(app: FastAPI) -> Iterator[str]:
    """`METHOD /path` of every route, however FastAPI nests them."""
    pending = list(app.routes)
    while pending:
        route = pending.pop()
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                yield f"{method} {route.path}"
        else:
            pending += route.original_router.routes  # type: ignore[attr-defined]


def test_every_route_has_a_row_and_every_row_a_route(world: World) -> None:
    public = {f"GET {path}" for path in PUBLIC_PAGES} | {"GET /api/docs/{name}"}
    found = set(routes_of(world.rig.app)) - public
    assert found == {row.partition("?")[0] for row in TABLE}


@pytest.mark.parametrize("route", TABLE)
def test_a_route_is_open_to_these_and_closed_to_all_others(world: World, route: str) -> None:
    body, expected = TABLE[route]
    got = {role: world.status(role, route, body) for role in ROLES}
    assert got == dict(zip(ROLES, expected.split(), strict=True))
