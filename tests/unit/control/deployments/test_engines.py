"""Where a deployment's workers run: as it asks, else where they are, else as the platform says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.platform import PlatformRig
from support.stores import Databases

ALL = "/services/m261/deployments"


@pytest.fixture
def clustered(databases: Databases, tmp_path: Path) -> Iterator[PlatformRig]:
    """A platform that has a cluster."""
    with PlatformRig(databases.sqlite(tmp_path), engine="ray") as made:
        yield made


def engine(rig: PlatformRig) -> str:
    """Of the newest generation that is wanted of the deployment that was told last."""
    newest = max(rig.node.engine.desired.generations, key=lambda wish: wish.spec.generation)
    return newest.spec.engine


def test_a_deployment_runs_where_the_platform_says_unless_it_asks(clustered: PlatformRig) -> None:
    ann = clustered.user("ann")
    clustered.service("m261", group="ann", versions=2)
    clustered.deploy(ann, "m261", 1)
    assert engine(clustered) == "ray"
    clustered.deploy(ann, "m261", 2, engine="local")
    assert engine(clustered) == ""


def test_it_stays_where_it_is_until_it_is_moved_by_an_update(clustered: PlatformRig) -> None:
    ann = clustered.user("ann")
    clustered.service("m261", group="ann", versions=3)
    clustered.deploy(ann, "m261", 1, engine="local")
    clustered.deploy(ann, "m261", 2, mode="replace", replaces=1, instance_type=None)
    assert engine(clustered) == ""
    clustered.act(ann, "m261", 2, "redeploy")
    assert engine(clustered) == ""
    clustered.deploy(ann, "m261", 3, mode="replace", replaces=2, instance_type=None, engine="ray")
    assert engine(clustered) == "ray"
    clustered.act(ann, "m261", 3, "redeploy")
    assert engine(clustered) == "ray"


def test_the_node_bounds_what_runs_on_it_alone(clustered: PlatformRig) -> None:
    ann = clustered.user("ann")
    clustered.service("m261", group="ann", versions=3)
    clustered.deploy(ann, "m261", 1, replicas=20)  # of 8 cores; a cluster may have more
    clustered.deploy(ann, "m261", 2, replicas=8, engine="local")
    accepted = clustered.deploy(ann, "m261", 3, replicas=1, engine="local")
    sums = "cpu: 1 asked for + 8 in use = 9, the node has 8"
    assert (accepted["rollout"]["state"], accepted["rollout"]["reason"]) == (
        "failed", f"over quota: {sums}",
    )  # fmt: skip
    body = {"replicas": 9}
    path = f"{ALL}/2/scale"
    assert clustered.call(ann, "POST", path, body).status_code == 409
    assert clustered.call(ann, "POST", f"{ALL}/1/scale", {"replicas": 30}).status_code == 202


def test_an_engine_that_the_platform_does_not_have_is_refused(platform: PlatformRig) -> None:
    ann = platform.user("ann")
    platform.service("m261", group="ann", versions=1)
    body = {"version": 1, "instance_type": "small"}
    answer = platform.call(ann, "POST", ALL, {**body, "engine": "ray"})
    assert answer.status_code == 409
    assert "modelcloud up --engine ray" in answer.json()["detail"]
    assert platform.call(ann, "POST", ALL, {**body, "engine": "moon"}).status_code == 400
    platform.deploy(ann, "m261", 1, engine="local")
    assert engine(platform) == ""
