"""Operations that follow each other more quickly than reconcilers look at what they wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete

from modelcloud.control.access.permissions import Actor, Level
from modelcloud.control.deployments import deployments, lifecycle
from modelcloud.control.deployments.deploying import deploy
from modelcloud.control.deployments.deployment_forms import DeployBody
from modelcloud.control.deployments.generation_specs import ground_of
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.store.tables import Deployment, Service
from support.platform import PlatformRig

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def late_reconcilers(rig: PlatformRig) -> Reconcilers:
    """Of another control plane over the same node and store."""
    folder = Path("/data/artifacts")
    return Reconcilers(rig.store, rig.node, artifacts=folder, write=lambda _service, _line: None)


class Quick:
    """Writes several operations down in one go, then has them followed."""

    def __init__(self, rig: PlatformRig) -> None:
        self.rig = rig
        self.token = rig.user("ann")
        rig.service("m261", group="ann", versions=2)
        rig.deploy(self.token, "m261", 1)
        group = rig.do(lambda tx: deployments.service_of(tx, self.admin, "m261").group_id)
        self.actor = Actor(user_id=2, name="ann", levels={group: Level.MANAGE})

    admin = Actor(user_id=1, name="admin", is_admin=True)

    def do(self, *verbs: str) -> None:
        ground = ground_of(self.rig.state)
        asked = DeployBody(version=1, instance_type="small")
        operations: dict[str, Callable[[Session], object]] = {
            "start": lambda tx: lifecycle.start(tx, self.actor, ground, "m261", 1, 0.0),
            "stop": lambda tx: lifecycle.stop(tx, self.actor, "m261", 1),
            "delete": lambda tx: lifecycle.delete(tx, self.actor, "m261", 1),
            "deploy": lambda tx: deploy(tx, self.actor, ground, "m261", asked, 0.0),
        }
        for verb in verbs:
            self.rig.do(operations[verb])
        self.rig.run(self.rig.reconcilers.refresh("m261"))
        self.rig.settle()


@pytest.fixture
def quick(platform: PlatformRig) -> Quick:
    return Quick(platform)


@pytest.mark.parametrize("end", ["stop", "delete"])
def test_what_is_started_and_ended_before_anyone_looked_does_not_run(
    quick: Quick, end: str
) -> None:
    quick.do("stop")
    assert quick.rig.states() == []
    quick.do("start", end)
    assert quick.rig.states() == []
    newest = quick.rig.call(quick.token, "GET", "/rollouts?service=m261").json()["items"][0]
    assert newest["state"] == "superseded"


def test_what_is_stopped_and_started_before_anyone_looked_serves(quick: Quick) -> None:
    quick.do("stop", "start")
    record = quick.rig.deployment(quick.token, "m261", 1)
    assert (record["status"], record["current"]["generation"]) == ("Serving", 2)
    assert len(quick.rig.states()) == 2  # the one before stays warm for a while


def test_the_logs_of_a_deleted_service_go_at_once_and_again_with_its_last_worker(
    quick: Quick,
) -> None:
    rig = quick.rig
    assert rig.call(quick.token, "DELETE", "/services/m261/deployments/1").status_code == 202
    rig.settle()
    assert rig.forgotten == []
    quick.do("deploy")
    rig.do(lambda tx: tx.execute(delete(Service)))
    rig.run(rig.reconcilers.refresh("m261"))
    assert (rig.forgotten, len(rig.states())) == (["m261"], 1)
    rig.settle()
    assert (rig.forgotten, rig.states()) == (["m261", "m261"], [])


def test_an_operation_before_everything_was_taken_up_takes_no_other_service_away(
    quick: Quick,
) -> None:
    rig = quick.rig
    rig.service("fib", group="ann")
    rig.deploy(quick.token, "fib", 1)
    routing = rig.node.engine.routing
    assert len(routing.services) == 2
    late = late_reconcilers(rig)
    rig.run(late.refresh("m261"))  # as after an operation, once a store that was away is back
    assert rig.node.engine.routing is routing


def test_what_serves_with_facts_that_cannot_be_read_is_left_as_it_is_and_reachable(
    quick: Quick,
) -> None:
    rig = quick.rig
    routing, wants = rig.node.engine.routing, len(rig.node.engine.wants)
    unreadable = {"serving": {"version": 1, "generation": 1}}
    rig.do(lambda tx: setattr(tx.get_one(Deployment, 1), "facts", unreadable))
    late = late_reconcilers(rig)
    rig.run(late.start())
    assert rig.node.engine.routing == routing
    assert len(rig.node.engine.wants) == wants
    rig.run(late.stop())


def test_a_version_deployed_again_as_it_drains_is_another_deployment(quick: Quick) -> None:
    quick.do("delete", "deploy")
    record = quick.rig.deployment(quick.token, "m261", 1)
    assert (record["key"], record["status"]) == ("m261/2", "Serving")
    assert list(quick.rig.rows()) == [2]


def test_an_end_is_not_shown_before_it_is_kept(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = quick.rig
    transact, held, free = rig.store.transact, asyncio.Event(), asyncio.Event()

    async def slowly(work: Callable[[Session], Any]) -> Any:
        if 2 in rig.node.observe("m261/1").routed:  # what is to be kept now is the end
            held.set()
            await free.wait()
        return await transact(work)

    body = {"version": 2, "mode": "replace", "replaces": 1, "instance_type": "small"}
    answer = rig.call(quick.token, "POST", "/services/m261/deployments", body)
    monkeypatch.setattr(rig.store, "transact", slowly)
    rig.until(held.is_set)
    rollout = rig.rollout(quick.token, answer.json()["rollout"]["id"])
    assert (rollout["state"], rollout["finished_at"]) == ("running", None)
    free.set()
    rig.settle()
    assert rig.rollout(quick.token, rollout["id"])["state"] == "succeeded"
    assert rig.deployment(quick.token, "m261", 2)["status"] == "Serving"
