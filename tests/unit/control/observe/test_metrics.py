"""What versions did over time, read back, and everything for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelcloud.control.access.permissions import Actor, Level
from modelcloud.control.observe.metric_sums import Sum, VersionKey
from modelcloud.control.observe.metrics import MOST_POINTS, Window, history, window
from modelcloud.control.observe.metrics_keeper import MetricsKeeper, Place, add_points
from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.engines.fake import FakeEngine
from modelcloud.errors import InvalidInput, NotFound, NotReady
from modelcloud.node.orders import Counters, WorkerUsage
from modelcloud.store.store import Store
from modelcloud.store.tables import Artifact, Deployment, Group, RolloutRow, Service, Version
from support.control import ControlRig

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

DAY_S = 24 * 3600
#: The end of a span of every length that is asked for.
NOW = 1_700_001_000.0
READER = Actor(user_id=1, name="ann", levels={1: Level.READ})


def add_services(tx: Session, *groups: Group) -> None:
    """`fib` with the versions 1 and 2 in the first group, `other` in the second."""
    tx.add(Artifact(digest="d", size=0, files=0, created_at=0.0))
    for name, group in zip(["fib", "other"], groups, strict=True):
        tx.add(Service(name=name, group=group, created_by="ann", created_at=0.0))
        tx.flush()
    for number in (1, 2):
        tx.add(
            Version(
                service_id=1, number=number, artifact="d", main="m.py", runtime="function",
                options={}, metrics={}, curves={}, signature={}, origin={}, created_by="ann",
                created_at=0.0,
            )
        )  # fmt: skip


def add_sums(tx: Session, sums: Mapping[tuple[int, int], Sum]) -> None:
    """Add what versions of `fib` did, by the seconds before `NOW` and the version."""
    places = {
        Place(int(NOW - ago_s), VersionKey("fib", version)): done
        for (ago_s, version), done in sums.items()
    }
    add_points(tx, places)


@pytest.fixture
def filled(store: Store) -> Store:
    def work(tx: Session) -> None:
        add_services(tx, Group(name="g", created_at=0.0), Group(name="h", created_at=0.0))

    asyncio.run(store.transact(work))
    return store


def read(store: Store, asked: Window, version: int | None = None) -> list[dict[str, Any]]:
    """The points, by `ago`, without what is zero or unknown."""
    found = asyncio.run(
        store.read(lambda tx: history(tx, READER, "fib", version=version, asked=asked))
    )
    assert found.span_s == asked.span_s
    return [
        {"ago": NOW - point.at, **{k: v for k, v in dict(point).items() if v and k != "at"}}
        for point in found.points
    ]


@pytest.mark.parametrize(
    ("since", "until", "span", "expected"),
    [
        (None, None, None, (3600, 0, 10)),
        (600, None, None, (600, 0, 10)),
        (600, 300, None, (600, 300, 10)),
        (25 * 3600, None, None, (90000, 0, 300)),
        (15_000, None, None, (15_000, 0, 10)),
        (30_000, None, None, (30_000, 0, 300)),
        (29 * DAY_S, None, None, (2_506_500, 0, 1500)),
        (900 * DAY_S, None, None, (30 * DAY_S, 0, 1500)),
        (600, None, 60, (600, 0, 60)),
        (605, 7, 10, (610, 0, 10)),
        (600, -9999, None, (600, 0, 10)),
    ],
)
def test_what_is_left_open_is_filled_in(
    since: int | None, until: int | None, span: int | None, expected: tuple[int, int, int]
) -> None:
    start, end = (None if ago is None else NOW - ago for ago in (since, until))
    found = window(NOW, start, end, span)
    first, last, span_s = expected
    assert (NOW - found.since, NOW - found.until, found.span_s) == (first, last, span_s)
    assert len(range(*found)) <= MOST_POINTS + 1


@pytest.mark.parametrize(
    ("since", "until", "span", "says"),
    [
        (0, None, None, "since"),
        (-60, None, None, "since"),
        (60, 120, None, "since"),
        (600, None, 0, "multiple of 10"),
        (600, None, -10, "multiple of 10"),
        (600, None, 15, "multiple of 10"),
        (600, None, 10 * DAY_S, "multiple of 10"),
        (2 * DAY_S, None, 60, "multiple of 300"),
        (20 * DAY_S, None, 300, "900, say"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_can(
    since: int, until: int | None, span: int | None, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        window(NOW, NOW - since, None if until is None else NOW - until, span)


def test_points_are_in_a_row_and_zero_where_nothing_was_done(filled: Store) -> None:
    asyncio.run(
        filled.transact(
            lambda tx: add_sums(tx, {(30, 1): Sum(requests=1), (10, 1): Sum(requests=2)})
        )
    )
    found = read(filled, window(NOW, NOW - 40))
    assert found == [
        {"ago": 40}, {"ago": 30, "requests": 1}, {"ago": 20}, {"ago": 10, "requests": 2},
    ]  # fmt: skip


def test_a_point_tells_all_that_was_counted(filled: Store) -> None:
    done = Sum(
        requests=100, errors=5, buckets=[0, 0, 0, 90, 0, 10] + [0] * (len(BUCKETS) - 5),
        latency_sum_s=20.0, queue_sum_s=1.0, batches=4, batched=10, shadowed=6, shadow_same=4,
        shadow_different=2, memory=1000, cpu_s=5.0,
    )  # fmt: skip
    asyncio.run(filled.transact(lambda tx: add_sums(tx, {(10, 1): done})))
    assert read(filled, window(NOW, NOW - 10)) == [
        {
            "ago": 10, "requests": 100, "errors": 5, "p50_ms": 0.778, "p95_ms": 3.75,
            "p99_ms": 4.75, "queue_ms": 10.0, "in_flight": 2.0, "batch_size": 2.5,
            "memory": 1000, "cpu": 0.5, "shadowed": 6, "shadow_same": 4, "shadow_different": 2,
        }
    ]  # fmt: skip


def test_a_service_is_the_sum_of_its_versions(filled: Store) -> None:
    sums = {
        (30, 1): Sum(requests=1, memory=10),
        (20, 1): Sum(requests=2, memory=30),
        (20, 2): Sum(requests=4, memory=100),
    }
    asyncio.run(filled.transact(lambda tx: add_sums(tx, sums)))
    asked = window(NOW, NOW - 60, span=60)
    assert [p["requests"] for p in read(filled, asked) if "requests" in p] == [7]
    assert [p["memory"] for p in read(filled, asked) if "memory" in p] == [130]
    assert [p["requests"] for p in read(filled, asked, version=1) if "requests" in p] == [3]


def test_long_times_are_read_from_long_points(filled: Store) -> None:
    asyncio.run(
        filled.transact(
            lambda tx: add_sums(
                tx, {(20 * DAY_S, 1): Sum(requests=1), (20 * DAY_S - 600, 1): Sum(requests=2)}
            )
        )
    )
    found = read(filled, window(NOW, NOW - 25 * DAY_S, span=1500))
    assert [point["requests"] for point in found if "requests" in point] == [3]


@pytest.mark.parametrize(
    ("service", "version", "says"),
    [
        ("none", None, "no service 'none'"),
        ("other", None, "no service 'other'"),
        ("fib", 3, "no version 3 of 'fib'; there are: 1, 2"),
    ],
)
def test_what_is_not_there_for_the_actor_is_not_found(
    filled: Store, service: str, version: int | None, says: str
) -> None:
    with pytest.raises(NotFound, match=says):
        asyncio.run(
            filled.read(lambda tx: history(tx, READER, service, version=version, asked=window(NOW)))
        )


# ---- over the API


async def _counters() -> Counters:
    command = CommandStats(
        service="fib", command="fib", version=1, generation=3, by_status={200: 2, 500: 1},
        buckets=[3] + [0] * len(BUCKETS), shadowed=3, shadow_same=1, shadow_different=1,
    )  # fmt: skip
    gateway = Stats(
        seq=1, gateway_id=0, connections=1, connections_total=1, in_flight=0, queued={"fib": 4},
        rejected={"queue_full": 5}, retried=0, commands=[command],
    )  # fmt: skip
    usage = WorkerUsage(
        worker=9, deployment="fib/1", generation=3, version=1, memory=100, cpu_s=1.5, batches=2,
        batched=8,
    )  # fmt: skip
    return Counters(seq=1, gateways=[gateway], workers=[usage])


def _put_online(tx: Session) -> None:
    add_services(tx, Group(name="g", created_at=0.0), Group(name="h", created_at=0.0))
    tx.flush()
    tx.add(
        Deployment(
            service_id=1, version=1, wanted="online", state="serving", instance_type="small",
            cpu=1.0, memory=0, gpu=0.0, replicas=1, dispatch={}, strategy={}, options={},
            answers=[1], facts={}, deployed_by="ann", created_at=0.0,
        )
    )  # fmt: skip
    for state in ("succeeded", "failed", "succeeded", "running"):
        tx.add(
            RolloutRow(
                service_id=1, deployment_id=1, kind="update", state=state, step="serving",
                strategy={}, target={}, change={}, actor="ann", accepted_at=0.0,
            )
        )  # fmt: skip


def test_prometheus_sees_everything_and_only_an_administrator_may_ask(store: Store) -> None:
    keeper = MetricsKeeper(store, _counters)
    with ControlRig(store, engine=FakeEngine(), parts=(keeper,)) as rig:
        rig.do(_put_online)
        admin, ann = rig.user("admin", admin=True), rig.user("ann")
        url = "http://127.0.0.1:8000/metrics"
        assert rig.call(None, "GET", url).status_code == 401
        assert rig.call(ann, "GET", url).status_code == 403
        answer = rig.call(admin, "GET", url)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name.removeprefix("modelcloud_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    fib = ("1", "3", "fib", "fib")
    expected = {
        ("requests_total", "1", "200", "3", "fib", "fib"): 2,
        ("requests_total", "1", "3", "500", "fib", "fib"): 1,
        ("request_duration_seconds_count", *fib): 3,
        ("shadowed_total", *fib): 3,
        ("shadow_compared_total", "1", "3", "different", "fib", "fib"): 1,
        ("queued", "0", "fib"): 4,
        ("rejected_total", "0", "queue_full"): 5,
        ("deployments", "fib", "serving"): 1,
        ("rollouts_total", "fib", "succeeded"): 2,
        ("rollouts_total", "failed", "fib"): 1,
        ("worker_memory_bytes", "1", "3", "9", "fib"): 100,
        ("worker_cpu_seconds_total", "1", "3", "9", "fib"): 1.5,
        ("worker_batched_requests_total", "1", "3", "9", "fib"): 8,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert not any("running" in key for key in found)


def test_a_node_that_does_not_answer_is_said(rig: ControlRig) -> None:
    async def none() -> Counters:
        raise NotReady("the node is gone")

    keeper = MetricsKeeper(rig.store, none)
    with ControlRig(rig.store, parts=(keeper,)) as other:
        admin = other.user("admin", admin=True)
        assert other.call(admin, "GET", "http://127.0.0.1:8000/metrics").status_code == 503


def test_metrics_are_read_by_time_and_span(rig: ControlRig) -> None:
    ann = rig.user("ann")

    def own_group(tx: Session) -> None:
        group = tx.get(Group, 1)
        assert group is not None
        add_services(tx, group, Group(name="h", created_at=0.0))

    rig.do(own_group)
    place = "/services/fib/versions/2/metrics"
    now = rig.state.wall()
    answer = rig.call(ann, "GET", f"{place}?since={now - 60:.0f}&until={now:.0f}&span=60").json()
    assert answer["span_s"] == 60
    assert len(answer["points"]) == 2
    assert answer["points"][0]["p99_ms"] is None
    assert answer["points"][0]["at"].endswith("Z")
    assert rig.call(ann, "GET", "/services/fib/metrics").status_code == 200
    assert rig.call(ann, "GET", f"{place}?span=7").status_code == 400
    assert rig.call(ann, "GET", f"{place}?since=yesterday").status_code == 400
    assert rig.call(ann, "GET", "/services/other/metrics").status_code == 404
