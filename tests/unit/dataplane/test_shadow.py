"""Copies of requests: they cost the client nothing, and their answers are counted apart."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from modelcloud.dataplane import shadow
from modelcloud.dataplane.frames import Kind
from modelcloud.dataplane.link import OVERDUE_S
from modelcloud.dataplane.messages import CommandRoute, CommandStats, Share, Site, WorkerOverdue
from modelcloud.dataplane.pool import Pool
from modelcloud.dataplane.targets import lookup_of
from support.gateway_rig import STREAM, FakeWorker, Frame, Rig, post, settle
from support.loops import on_a_loop


class ShadowRig(Rig):
    """A gateway that copies a share of the requests to a second pool, of version 2."""

    def __init__(self, share: float = 1.0, **limits: Any) -> None:
        super().__init__(**limits)
        self.trial = self.hub.pools["trial"] = Pool(self.hub, "trial", self.SERVICE)
        self.trial.limit = self.pool.limit
        self.trial.deadline_s = self.pool.deadline_s
        self.route(shadows=(Share("trial", share),))
        self.asked = self.worker(1)
        self.switch(self.asked)

    def route(self, *pools: str, shadows: tuple[Share, ...]) -> None:
        shares = tuple(Share(pool) for pool in pools or (self.SERVICE,))
        commands = (
            CommandRoute(paths=("/ask",), command="ask", shares=shares, shadows=shadows),
            CommandRoute(
                paths=("/flow",), command="flow", shares=shares, shadows=shadows, streams=True
            ),
            CommandRoute(
                paths=("/meta",), command="ask", shares=shares, shadows=shadows, with_meta=True
            ),
        )
        self.hub.site(0).switch(lookup_of(Site(commands=commands), self.hub.pools, {}))

    def on_trial(self, *, credit: int = 2) -> FakeWorker:
        """A worker of version 2."""
        worker = self.worker(2, generation=2, credit=credit)
        self.trial.switch([worker.link], available=True)
        return worker

    def stats(self, generation: int = 2) -> CommandStats:
        (stats,) = [
            s for s in self.hub.stats(1).commands
            if s.command == "ask" and s.generation == generation
        ]  # fmt: skip
        return stats


async def asked(worker: FakeWorker) -> list[Frame]:
    await settle()
    return [
        frame for frame in worker.frames()
        if frame.kind in {Kind.REQUEST, Kind.REQUEST_WITH_META}
    ]  # fmt: skip


@on_a_loop
async def test_a_copy_is_counted_apart_and_compared_whoever_answers_first() -> None:
    rig = ShadowRig()
    trial = rig.on_trial()
    client = rig.client()
    answers = [
        (b'{"y":1}', 200, b'{"y":1}', 200),
        (b'{"y":1}', 200, b'{"y":2}', 200),
        (b'{"error":"x"}', 400, b'{"error":"x"}', 400),
        (b"null", 200, b"null", 500),
    ]
    for turn, (own, own_status, copied, copied_status) in enumerate(answers):
        client.send(post("/ask", b"[%d]" % turn))
        (request,), (copy,) = await asked(rig.asked), await asked(trial)
        assert (copy.body, copy.codec) == (request.body, request.codec)
        if turn % 2:
            trial.answer(copy.rid, copied, copied_status)
        rig.asked.answer(request.rid, own, own_status)
        if not turn % 2:
            trial.answer(copy.rid, copied, copied_status)
    assert client.statuses == [200, 200, 400, 200]
    stats = rig.stats()
    assert (stats.shadowed, stats.shadow_errors) == (4, 1)
    assert (stats.shadow_same, stats.shadow_different) == (2, 2)
    assert stats.shadow_latency_sum_s > 0
    assert (stats.by_status, sum(stats.buckets), stats.latency_sum_s) == ({}, 0, 0.0)
    own_stats = rig.stats(1)
    assert (own_stats.by_status, own_stats.shadowed) == ({200: 3, 400: 1}, 0)
    assert rig.trial.copies_held == 0


@on_a_loop
async def test_a_trial_that_hangs_costs_the_clients_nothing() -> None:
    rig = ShadowRig(queue=20, deadline_s=1.0)
    trial = rig.on_trial(credit=2)
    client = rig.client()
    for _ in range(100):
        client.send(post())
        (request,) = await asked(rig.asked)
        rig.asked.answer(request.rid)
    assert client.statuses == [200] * 100
    assert len(trial.link.inflight) == 2
    assert len(rig.trial.queue) == 10  # half of the limit, the rest was dropped
    assert rig.pool.limit == 20
    now = monotonic()
    rig.trial.check_deadlines(now + 1.1)
    assert len(rig.trial.queue) == rig.trial.copies_held == 0
    assert rig.hub.rejected == {}
    assert (rig.stats().shadowed, rig.stats().shadow_errors) == (2, 2)
    rig.trial.check_deadlines(now + 1.2 + OVERDUE_S)
    assert [type(told) for told in rig.told] == [WorkerOverdue]  # as for any request that hangs


@on_a_loop
async def test_a_copy_is_never_tried_again() -> None:
    rig = ShadowRig()
    trial, other = rig.on_trial(), rig.worker(3, generation=2)
    client = rig.client()
    client.send(post())
    await asked(trial)
    rig.trial.switch([trial.link, other.link], available=True)
    trial.transport.abort()
    assert await asked(other) == []
    (request,) = await asked(rig.asked)
    rig.asked.answer(request.rid)
    assert client.statuses == [200]
    stats = rig.stats()
    assert (stats.shadowed, stats.shadow_errors, rig.hub.retried) == (1, 1, 0)
    assert (stats.shadow_same, stats.shadow_different) == (0, 0)


@on_a_loop
async def test_without_a_worker_there_is_no_copy() -> None:
    rig = ShadowRig()
    rig.client().send(post())
    assert (len(rig.trial.queue), rig.trial.copies_held) == (0, 0)
    rig.trial.switch([], available=False)
    client = rig.client()
    client.send(post())
    for frame in await asked(rig.asked):
        rig.asked.answer(frame.rid)
    assert client.statuses == [200]
    assert rig.hub.rejected == {}


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/flow", b"{}", STREAM),
        post("/meta"),
        post("/ask", b" " * (shadow.MAX_BODY + 1)),
    ],
    ids=["a stream", "with headers", "a large body"],
)
@on_a_loop
async def test_what_is_not_copied(request_bytes: bytes) -> None:
    rig = ShadowRig()
    trial = rig.on_trial()
    rig.client().send(request_bytes)
    assert len(await asked(rig.asked)) == 1
    assert await asked(trial) == []


@on_a_loop
async def test_a_request_that_is_refused_is_not_copied() -> None:
    rig = ShadowRig(queue=1)
    trial = rig.on_trial(credit=10)
    rig.trial.limit = 100
    client = [rig.client() for _ in range(4)]
    for each in client:
        each.send(post())
    assert [each.statuses for each in client] == [[], [], [], [503]]
    assert len(await asked(trial)) == 3


@on_a_loop
async def test_a_request_that_goes_to_the_pool_on_trial_anyway_is_not_copied_there() -> None:
    rig = ShadowRig()
    trial = rig.on_trial(credit=1)
    trial.link.credit = trial.link.free = 1
    rig.route("trial", shadows=(Share("trial", 1.0),))
    for _ in range(2):  # one inside the worker, one in the queue
        rig.client().send(post())
    assert len(await asked(trial)) == 1
    assert len(rig.trial.queue) == 1
    assert rig.trial.copies_held == 0


@on_a_loop
async def test_of_the_requests_only_the_share_is_copied() -> None:
    rig = ShadowRig(share=0.25)
    trial = rig.on_trial()
    client = rig.client()
    copies = 0
    for _ in range(1000):
        client.send(post())
        rig.asked.answer((await asked(rig.asked))[0].rid)
        for frame in await asked(trial):
            trial.answer(frame.rid)
            copies += 1
    assert 180 < copies < 320
    assert rig.stats().shadow_same == copies


@on_a_loop
async def test_the_bytes_of_copies_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "MAX_HELD", 5000)
    rig = ShadowRig()
    trial = rig.on_trial(credit=10)
    for _ in range(4):
        rig.client().send(post("/ask", b" " * 2000))
    copies = await asked(trial)
    assert (len(copies), rig.trial.copies_held) == (2, 4000)
    for frame in copies:
        trial.answer(frame.rid)
    assert rig.trial.copies_held == 0


@on_a_loop
async def test_a_client_that_leaves_leaves_the_copy_uncompared() -> None:
    rig = ShadowRig()
    trial = rig.on_trial()
    client = rig.client()
    client.send(post())
    (request,), (copy,) = await asked(rig.asked), await asked(trial)
    client.transport.abort()
    await settle()
    rig.asked.answer(request.rid)
    trial.answer(copy.rid)
    stats = rig.stats()
    assert (stats.shadowed, stats.shadow_same, stats.shadow_different) == (1, 0, 0)
