"""All services at a glance: what is added up, and for whom."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelcloud.control.access.permissions import Actor, Level
from modelcloud.control.deployments.deployment_states import Status
from modelcloud.control.observe.glance import NOW_S, PAST_S, STEP_S, curves, glance
from modelcloud.control.observe.metric_sums import Sum, VersionKey
from modelcloud.control.observe.metrics_keeper import Place, add_points
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.store.store import Store
from modelcloud.store.tables import Deployment, Group, Service

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NOW = 1_700_001_000.0
ADMIN = Actor(user_id=1, name="admin", is_admin=True)
READER = Actor(user_id=2, name="ann", levels={1: Level.READ})
NOBODY = Actor(user_id=3, name="bob")


def fill(tx: Session) -> None:
    """`fib` and `idle` in the first group, `other` in the second."""
    groups = [Group(name=name, created_at=0.0) for name in ("one", "two")]
    tx.add_all(groups)
    tx.flush()
    for name, group in (("fib", 0), ("idle", 0), ("other", 1)):
        tx.add(Service(name=name, group=groups[group], created_by="ann", created_at=0.0))
    tx.flush()
    for service_id, state, wanted in (
        (1, "failed", "online"), (1, "serving", "online"), (1, "serving", "deleted"),
        (2, "serving", "deleted"), (3, "loading", "online"),
    ):  # fmt: skip
        tx.add(
            Deployment(
                service_id=service_id, version=1, wanted=wanted, state=state, reason="",
                instance_type="small", cpu=1, memory=1, gpu=0, replicas=1, threads=1, dispatch={},
                strategy={}, keep_warm_s=0, options={}, answers=[1], weight=1, shadow=0, facts={},
                deployed_by="ann", created_at=0, revision=1,
            )
        )  # fmt: skip
    slow = [0] * (len(BUCKETS) + 1)
    slow[5] = 4
    done = Sum(requests=4, errors=1, buckets=slow)
    add_points(
        tx,
        {
            Place(int(NOW - 60), VersionKey("fib", 1)): done,
            Place(int(NOW - 1200), VersionKey("fib", 2)): done,
            Place(int(NOW - 60), VersionKey("other", 1)): done,
            Place(int(NOW - 2 * PAST_S), VersionKey("fib", 1)): done,
        },
    )


def test_services_are_counted_by_the_best_of_their_deployments(store: Store) -> None:
    asyncio.run(store.transact(fill))
    seen = asyncio.run(store.read(lambda tx: glance(tx, ADMIN, NOW)))
    assert seen.services == {
        Status.SERVING: 1, Status.DEPLOYING: 1, Status.FAILED: 0, Status.OFFLINE: 1,
    }  # fmt: skip


def test_traffic_is_added_up_by_steps_and_for_now(store: Store) -> None:
    asyncio.run(store.transact(fill))
    seen = asyncio.run(store.read(lambda tx: glance(tx, ADMIN, NOW)))
    assert len(seen.steps) == PAST_S // STEP_S
    assert [step.at for step in seen.steps] == sorted(step.at for step in seen.steps)
    assert (sum(s.requests for s in seen.steps), sum(s.errors for s in seen.steps)) == (12, 3)
    assert NOW_S < 1200
    assert (seen.requests, seen.errors) == (8, 2)
    assert seen.p99_ms is not None
    assert 0 < seen.p99_ms <= BUCKETS[5] * 1000


def test_only_what_one_may_read_is_counted(store: Store) -> None:
    asyncio.run(store.transact(fill))
    mine = asyncio.run(store.read(lambda tx: glance(tx, READER, NOW)))
    assert sum(mine.services.values()) == 2
    assert (mine.requests, mine.errors) == (4, 1)
    nothing = asyncio.run(store.read(lambda tx: glance(tx, NOBODY, NOW)))
    assert sum(nothing.services.values()) == 0
    assert (nothing.requests, nothing.p99_ms) == (0, None)


def test_each_service_has_its_curve_and_no_other_is_told_of(store: Store) -> None:
    asyncio.run(store.transact(fill))
    found = asyncio.run(store.read(lambda tx: curves(tx, READER, ["fib", "other"], NOW)))
    assert (sum(found["fib"]), sum(found["other"])) == (8, 0)
    assert {len(curve) for curve in found.values()} == {PAST_S // STEP_S}
