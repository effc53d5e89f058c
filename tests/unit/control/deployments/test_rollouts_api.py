"""Rollouts are listed, read and followed; canaries are judged by what their gateways counted."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from modelcloud.control.api import following
from modelcloud.dataplane.messages import CommandStats
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.node.orders import WorkerLine
from modelcloud.rollout.canary_watch import Tally
from modelcloud.store.tables import Token
from support.platform import FakeNode, PlatformRig

UPDATE = "/services/m261/deployments/1/update"


@pytest.fixture
def ann(platform: PlatformRig) -> str:
    token = platform.user("ann")
    platform.service("m261", group="ann", versions=2)
    platform.deploy(token, "m261", 1)
    return token


def events(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.replace("\r\n", "\n").strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        assert lines["event"] == "rollout"
        found.append(msgspec.json.decode(lines["data"]))
    return found


def test_a_rollout_is_followed_by_events_to_its_end(platform: PlatformRig, ann: str) -> None:
    begun = platform.call(ann, "POST", UPDATE, {"options": {"depth": 2}}).json()["rollout"]

    async def follow() -> str:
        asked = asyncio.ensure_future(
            platform.http.get(
                f"/rollouts/{begun['id']}/events", headers={"authorization": f"Bearer {ann}"}
            )
        )
        engine = platform.node.engine
        while not asked.done():
            if platform.reconcilers.changes.followers:
                engine.acknowledge()
                for worker in engine.workers():
                    _ = engine.advance(worker) or engine.reap(worker)
            await asyncio.sleep(0.001)
            await platform.reconcilers.idle(20)
        answer = await asked
        assert answer.headers["content-type"].startswith("text/event-stream")
        return answer.text

    found = events(platform.run(follow()))
    assert [event["id"] for event in found] == [begun["id"]] * len(found)
    steps = [event["step"] for event in found]
    assert {"loading", "warming", "checking", "serving"} <= set(steps)
    assert [event["percent"] for event in found] == sorted(event["percent"] for event in found)
    assert found[-1]["state"] == "succeeded"
    assert found[-1]["log"][-1] == "succeeded"
    assert platform.reconcilers.changes.followers == 0


def test_one_that_has_ended_is_told_once(platform: PlatformRig, ann: str) -> None:
    answer = platform.call(ann, "GET", "/rollouts/1/events")
    assert [event["state"] for event in events(answer.text)] == ["succeeded"]


def test_one_is_followed_only_while_the_token_is_valid(
    platform: PlatformRig, ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CHECK_S", 0.01)
    begun = platform.call(ann, "POST", UPDATE, {"options": {"depth": 2}}).json()["rollout"]

    async def follow() -> str:
        asked = asyncio.ensure_future(
            platform.http.get(
                f"/rollouts/{begun['id']}/events", headers={"authorization": f"Bearer {ann}"}
            )
        )
        while not platform.reconcilers.changes.followers:  # noqa: ASYNC110 — nothing tells of it
            await asyncio.sleep(0.001)
        await platform.store.transact(lambda tx: tx.query(Token).delete())
        return (await asyncio.wait_for(asked, 20)).text

    assert [event["state"] for event in events(platform.run(follow()))] == ["running"]


def test_rollouts_are_listed_newest_first_to_who_may_read_them(
    platform: PlatformRig, ann: str
) -> None:
    platform.act(ann, "m261", 1, "update", {"options": {"depth": 2}})
    listed = platform.call(ann, "GET", "/rollouts?limit=1").json()
    assert [item["id"] for item in listed["items"]] == [2]
    rest = platform.call(ann, "GET", f"/rollouts?cursor={listed['next']}").json()
    assert [(item["id"], item["kind"]) for item in rest["items"]] == [(1, "initial")]
    assert platform.call(ann, "GET", "/rollouts?state=failed").json()["items"] == []
    assert platform.call(ann, "GET", "/rollouts?state=odd").status_code == 400
    bob = platform.user("bob")
    assert platform.call(bob, "GET", "/rollouts").json()["items"] == []
    assert platform.call(bob, "GET", "/rollouts/1").status_code == 404
    assert platform.call(bob, "GET", "/rollouts/1/events").status_code == 404


def test_a_failed_candidates_own_words_are_in_the_deployment_log(
    platform: PlatformRig, ann: str
) -> None:
    platform.call(ann, "POST", UPDATE, {"options": {"depth": 2}})
    platform.until(lambda: bool(platform.node.engine.workers(2)), loads=False)

    async def fail() -> None:
        for worker, text in ((0, "building the environment"), (3, "Traceback of its own")):
            line = WorkerLine(deployment="m261/1", generation=2, worker=worker, text=text)
            platform.reconcilers.take_line(line)
        platform.node.engine.fail(platform.node.engine.workers(2)[0], "setup raised ValueError")

    platform.run(fail())
    platform.settle()
    lines = [line for _, line in platform.log]
    assert "rollout 2: building the environment" in lines
    assert lines.index("rollout 2: failed: setup raised ValueError") > lines.index(
        "rollout 2: w3 | Traceback of its own"
    )


def stats(node: FakeNode, generation: int, statuses: dict[int, int]) -> None:
    buckets = [0] * (len(BUCKETS) + 1)
    buckets[0] = sum(statuses.values())
    node.commands = [
        CommandStats(
            service="m261", command="predict", version=1, generation=generation,
            by_status=statuses, buckets=buckets,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "state", "generation"),
    [({200: 100}, "succeeded", 2), ({200: 50, 500: 50}, "failed", 1)],
)
def test_a_canary_goes_on_or_back_by_what_its_gateways_counted(
    platform: PlatformRig, ann: str, statuses: dict[int, int], state: str, generation: int
) -> None:
    strategy = {"name": "canary", "steps": [{"percent": 50, "watch_s": 2}], "max_error_rate": 0.1}
    begun = platform.call(
        ann, "POST", UPDATE, {"options": {"depth": 2}, "strategy": strategy}
    ).json()["rollout"]
    standing = platform.reconcilers.standing("m261/1")
    assert standing is not None

    def counts() -> bool:
        flight = standing.reconciler.snapshot().flight
        return flight is not None and flight.baseline is not None

    assert begun["share"] is None
    platform.until(counts)
    assert platform.rollout(ann, begun["id"])["share"] == 50
    stats(platform.node, 2, statuses)
    platform.until(lambda: standing.running is None)
    platform.settle()
    rollout = platform.rollout(ann, begun["id"])
    assert rollout["state"] == state, rollout
    assert rollout["share"] is None
    assert platform.deployment(ann, "m261", 1)["current"]["generation"] == generation


def test_an_update_that_waits_for_a_canary_says_so_and_how_to_end_that(
    platform: PlatformRig, ann: str
) -> None:
    strategy = {"name": "canary", "steps": [{"percent": 20, "watch_s": 3600}]}

    def update(depth: int, **more: Any) -> int:
        body = {"options": {"depth": depth}, **more}
        return int(platform.call(ann, "POST", UPDATE, body).json()["rollout"]["id"])

    canary = update(2, strategy=strategy)
    platform.settle()
    assert platform.rollout(ann, canary)["share"] == 20
    newer = update(3)
    platform.settle()
    waits = f"waits for rollout {canary}, a canary that is watched to its end; a rollback recalls"
    assert platform.rollout(ann, newer)["state"] == "pending"
    assert platform.rollout(ann, newer)["reason"].startswith(waits)
    assert any(f"rollout {newer}: {waits}" in line for _, line in platform.log)
    platform.act(ann, "m261", 1, "rollback")
    ends = [platform.rollout(ann, number)["state"] for number in (canary, newer)]
    assert ends == ["rolled_back", "superseded"]
    newest = update(4, strategy="blue_green")
    platform.settle()
    assert platform.rollout(ann, newest)["state"] == "succeeded"


def test_a_gateway_that_is_started_anew_takes_nothing_away() -> None:
    node, tally = FakeNode(), Tally()
    for statuses in ({200: 10}, {200: 4, 500: 1}):
        stats(node, 2, statuses)
        tally.add(asyncio.run(node.counters()).gateways)
    assert (tally.answers("m261", 2).requests, tally.answers("m261", 2).errors) == (15, 1)
    assert tally.answers("m261", 2).buckets[0] == 15
