"""The queue of a service and its links to workers: nobody is lost, mixed up or waits for ever."""

from __future__ import annotations

import gc
import json
from time import monotonic

import pytest

from modelcloud.codecs.media import Codec
from modelcloud.dataplane.frames import Kind, pack_header
from modelcloud.dataplane.link import OVERDUE_S
from modelcloud.dataplane.messages import CommandRoute, Idle, Share, Site, WorkerOverdue
from modelcloud.dataplane.pool import Pool
from modelcloud.dataplane.targets import lookup_of
from support.gateway_rig import (
    STREAM,
    Client,
    FakeWorker,
    Frame,
    Rig,
    post,
    settle,
    submit,
)
from support.loops import on_a_loop


async def asked(worker: FakeWorker) -> list[Frame]:
    """The requests that came to a worker."""
    await settle()
    return [frame for frame in worker.frames() if frame.kind == Kind.REQUEST]


def idle(rig: Rig) -> list[int]:
    return [
        number for message in rig.told if isinstance(message, Idle) for number in message.workers
    ]


# ---- switching


@on_a_loop
async def test_requests_that_wait_go_to_the_new_workers_those_inside_are_answered() -> None:
    rig = Rig()
    old, new = rig.worker(1), rig.worker(2, generation=2)
    rig.switch(old)
    client = rig.client()
    client.send(post() * 4 + post("/flow", b"{}", STREAM))
    inside = await asked(old)
    assert (len(inside), len(rig.pool.queue)) == (2, 3)
    rig.switch(new)
    waited = await asked(new)
    assert len(waited) == 2
    assert idle(rig) == []
    for frame in inside:
        old.answer(frame.rid)
    assert idle(rig) == [1]
    for frame in waited:
        new.answer(frame.rid)
    (flow,) = await asked(new)
    new.piece(flow.rid, b"data: 1\n\n")
    new.end(flow.rid)
    await settle()
    assert client.statuses == [200] * 5
    assert client.got.count(b"x-model-generation: 1") == 2
    assert client.got.count(b"x-model-generation: 2") == 3
    assert (idle(rig), old.transport.lost) == ([1], True)


@on_a_loop
async def test_a_stream_holds_its_retired_worker_until_it_ends() -> None:
    rig = Rig()
    old, new = rig.worker(1), rig.worker(2)
    rig.switch(old)
    client = rig.client()
    client.send(post("/flow", b"{}", STREAM))
    (flow,) = await asked(old)
    old.piece(flow.rid, b"data: 1\n\n")
    rig.switch(new)
    await settle()
    assert idle(rig) == []
    old.end(flow.rid)
    await settle()
    assert idle(rig) == [1]
    assert client.got.endswith(b"0\r\n\r\n")


@on_a_loop
async def test_a_retired_worker_that_is_named_again_goes_on() -> None:
    rig = Rig()
    one, two = rig.worker(1), rig.worker(2)
    rig.switch(one)
    rig.client().send(post())
    (frame,) = await asked(one)
    rig.switch(two)
    rig.switch(one)
    one.answer(frame.rid)
    rig.client().send(post())
    assert len(await asked(one)) == 1
    assert idle(rig) == [2]


@on_a_loop
async def test_a_retired_worker_that_dies_is_idle_once_and_its_request_is_tried_again() -> None:
    rig = Rig()
    old, new = rig.worker(1), rig.worker(2)
    rig.switch(old)
    client = rig.client()
    client.send(post())
    await asked(old)
    rig.switch(new)
    old.transport.abort()
    (again,) = await asked(new)
    new.answer(again.rid)
    assert client.statuses == [200]
    assert idle(rig) == [1]
    assert not [message for message in rig.told if isinstance(message, WorkerOverdue)]


@on_a_loop
async def test_without_workers_and_none_to_come_whoever_waits_is_told() -> None:
    rig = Rig()
    client = rig.client()
    client.send(post() * 3)
    rig.switch(available=False)
    client.send(post())
    assert client.statuses == [503] * 4
    assert rig.hub.rejected == {"unavailable": 4}


@on_a_loop
async def test_memory_is_flat_over_ten_thousand_switches() -> None:
    rig = Rig()
    client = rig.client()
    counts: list[int] = []
    for number in range(1, 10_001):
        worker = rig.worker(number, generation=number)
        rig.switch(worker)
        client.send(post())
        (frame,) = await asked(worker)
        worker.answer(frame.rid)
        client.transport.sent.clear()
        rig.told.clear()
        if number in {2_000, 10_000}:
            await settle()
            gc.collect()
            counts.append(len(gc.get_objects()))
    assert len(rig.hub._links) == 1
    assert not rig.pool.retiring
    assert len(rig.hub.stats(1).commands) <= 3 * 16
    assert counts[1] - counts[0] < 500


# ---- workers that die


@pytest.mark.parametrize("path", ["/once", "/flow"])
@on_a_loop
async def test_what_may_not_run_twice_is_never_tried_again(path: str) -> None:
    rig = Rig()
    worker, other = rig.worker(1), rig.worker(2)
    rig.switch(worker)
    client = rig.client()
    client.send(post(path, b"{}", STREAM))
    (frame,) = await asked(worker)
    if path == "/flow":
        worker.piece(frame.rid, b"data: 1\n\n")
    rig.switch(worker, other)
    worker.transport.abort()
    assert await asked(other) == []
    assert client.statuses == ([502] if path == "/once" else [200])
    assert client.transport.closing == (path == "/flow")
    assert rig.told == [WorkerOverdue(worker_id=1, overdue_s=0.0)]


@on_a_loop
async def test_a_request_that_kills_its_worker_is_tried_once_more_and_in_its_old_place() -> None:
    rig = Rig(queue=10)
    workers = [rig.worker(number) for number in (1, 2, 3)]
    rig.switch(workers[0])
    client = rig.client()
    client.send(post("/ask", b"[1]") + post("/ask", b"[2]") + post("/ask", b"[3]"))
    assert [frame.body for frame in await asked(workers[0])] == [b"[1]", b"[2]"]
    workers[0].transport.abort()
    await settle()
    rig.switch(workers[1])
    assert [frame.body for frame in await asked(workers[1])] == [b"[1]", b"[2]"]
    workers[1].transport.abort()
    await settle()
    assert client.statuses == [502, 502]
    rig.switch(workers[2])
    (frame,) = await asked(workers[2])
    workers[2].answer(frame.rid)
    assert client.statuses == [502, 502, 200]
    assert rig.hub.retried == 2


# ---- time


@on_a_loop
async def test_a_late_answer_never_reaches_the_next_caller() -> None:
    rig = Rig(deadline_s=1.0)
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(post())
    (frame,) = await asked(worker)
    rig.pool.check_deadlines(monotonic() + 1.1)
    assert client.statuses == [504]
    client.send(post())
    (following,) = await asked(worker)
    worker.answer(frame.rid, b'"late"')
    assert client.statuses == [504]
    worker.answer(following.rid, b'"right"')
    assert client.statuses == [504, 200]
    assert b"late" not in client.got
    (stats,) = [s for s in rig.hub.stats(1).commands if s.command == "ask"]
    assert stats.by_status == {504: 1, 200: 1}


@on_a_loop
async def test_a_request_given_up_keeps_its_place_and_a_busy_worker_is_reported() -> None:
    rig = Rig(deadline_s=1.0)
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(post() * 3)
    frames = await asked(worker)
    now = monotonic()
    rig.pool.check_deadlines(now + 1.1)
    assert client.statuses == [504, 504, 504]
    assert worker.link.free == 0
    assert [frame.kind for frame in worker.frames()] == []
    await settle()
    assert [frame.rid for frame in worker.frames()] == [frame.rid for frame in frames]
    for _ in range(3):
        rig.pool.check_deadlines(now + 1.2 + OVERDUE_S)
    (told,) = rig.told
    assert (told.worker_id, told.overdue_s >= OVERDUE_S) == (1, True)
    worker.end(frames[0].rid, 499)
    assert worker.link.free == worker.link.credit - 1


@on_a_loop
async def test_pieces_of_a_stream_that_nobody_waits_for_do_not_prolong_it() -> None:
    rig = Rig(deadline_s=1.0)
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(post("/flow", b"{}", STREAM))
    (flow,) = await asked(worker)
    client.transport.abort()
    await settle()
    deadline = worker.link.inflight[flow.rid].deadline
    worker.piece(flow.rid, b"data: 1\n\n")
    assert worker.link.inflight[flow.rid].deadline == deadline


@on_a_loop
async def test_a_stream_under_way_is_not_taken_back_from_a_blocked_worker() -> None:
    rig = Rig()
    worker, other = rig.worker(1, credit=4), rig.worker(2)
    worker.link.blocking = frozenset({"ask"})
    rig.switch(worker)
    client, second = rig.client(), rig.client()
    client.send(post())
    second.send(post("/flow", b"{}", STREAM))
    _, flow = await asked(worker)
    worker.piece(flow.rid, b"data: 1\n\n")
    rig.switch(worker, other)
    for _ in range(3):
        rig.pool.check_deadlines(monotonic())
    assert await asked(other) == []
    worker.end(flow.rid)
    assert second.got.count(b"data: 1") == 1


@on_a_loop
async def test_the_queue_has_a_limit_and_what_is_inside_workers_does_not_count() -> None:
    rig = Rig(queue=2)
    worker = rig.worker()
    rig.switch(worker)
    clients = [rig.client() for _ in range(6)]
    for client in clients:
        client.send(post())
    await settle()
    assert [client.statuses for client in clients] == [[], [], [], [], [503], [503]]


# ---- frames


@on_a_loop
async def test_a_request_number_that_comes_round_again_skips_one_still_in_use() -> None:
    rig = Rig()
    worker = rig.worker(credit=4)
    rig.switch(worker)
    long, short = rig.client(), rig.client()
    long.send(post("/flow", b"{}", STREAM))
    (flow,) = await asked(worker)
    worker.piece(flow.rid, b"data: 1\n\n")
    worker.link._ids = iter([flow.rid + (1 << 32), flow.rid + (1 << 32) + 1])  # type: ignore[assignment]
    short.send(post())
    (frame,) = await asked(worker)
    assert frame.rid != flow.rid
    worker.answer(frame.rid)
    worker.end(flow.rid)
    assert (short.statuses, long.statuses) == ([200], [200])


@on_a_loop
async def test_answers_may_come_in_any_pieces() -> None:
    rig = Rig()
    worker = rig.worker(credit=4)
    rig.switch(worker)
    clients: list[Client] = [rig.client() for _ in range(4)]
    for client in clients:
        client.send(post())
    frames = await asked(worker)
    data = b""
    for frame in frames:
        body = b"[%d]" % frame.rid * 50
        data += pack_header(len(body), frame.rid, Kind.RESPONSE, Codec.JSON, 200) + body
    for at in range(0, len(data), 7):
        worker.link.data_received(data[at : at + 7])
    for client, frame in zip(clients, frames, strict=True):
        assert client.got.endswith(b"[%d]" % frame.rid * 50)


@on_a_loop
async def test_an_answer_larger_than_any_ends_the_link() -> None:
    rig = Rig()
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(post("/once"))
    await asked(worker)
    worker.link.data_received(b"\xff" * 12)
    await settle()
    assert worker.transport.lost
    assert client.statuses == [502]


# ---- handing over


def second_pool(rig: Rig, name: str = "svc@2") -> Pool:
    pool = rig.hub.pools[name] = Pool(rig.hub, name, rig.SERVICE)
    pool.limit, pool.deadline_s = rig.pool.limit, rig.pool.deadline_s
    return pool


@on_a_loop
async def test_an_heir_takes_over_what_waits_and_what_is_inside_and_nobody_notices() -> None:
    rig = Rig(queue=3)
    giver = second_pool(rig)
    old, new = rig.worker(1), rig.worker(2, generation=2)
    rig.switch(old)
    giver.switch([new.link], available=True)
    client = rig.client()
    client.send(post("/ask", b"[0]") * 5)
    for number in range(5):  # beside those of the heir, in order of arrival
        submit(giver, rig.client(), b"[%d]" % number)
    assert (len(rig.pool.queue), len(giver.queue)) == (3, 3)
    inside = await asked(new)
    heirs_own = await asked(old)
    rig.switch(new)
    giver.give_to(rig.pool)
    assert (len(rig.pool.queue), len(giver.queue)) == (6, 0)  # though its limit is less
    assert rig.pool.links == [new.link]
    assert (new.link.pool, giver.links, rig.pool.retiring) == (rig.pool, [], {old.link})
    for frame in inside:
        new.answer(frame.rid)
    waited = await asked(new)
    assert [frame.body for frame in waited] == [b"[0]", b"[0]", b"[0]", b"[2]", b"[3]", b"[4]"]
    for frame in waited:
        new.answer(frame.rid)
    for frame in heirs_own:
        old.answer(frame.rid)
    assert client.statuses == [200] * 5
    assert (rig.hub.retried, rig.hub.rejected, idle(rig)) == (0, {}, [1])


@on_a_loop
async def test_a_canary_that_goes_back_answers_what_it_has_and_leaves_the_rest_to_its_heir() -> (
    None
):
    rig = Rig()
    canary = second_pool(rig)
    stable, tried = rig.worker(1), rig.worker(2, generation=2)
    rig.switch(stable)
    canary.switch([tried.link], available=True)
    clients = [rig.client() for _ in range(3)]
    for client in clients:
        submit(canary, client)
    inside = await asked(tried)
    canary.give_to(rig.pool)
    (moved,) = await asked(stable)
    for frame in inside:
        tried.answer(frame.rid)
    stable.answer(moved.rid)
    assert [client.statuses for client in clients] == [[200]] * 3
    assert (idle(rig), tried.transport.lost) == ([2], True)
    late = rig.client()
    submit(canary, late)
    assert late.statuses == [503]  # it keeps nobody waiting any more


@on_a_loop
async def test_what_a_worker_had_is_tried_again_by_the_heir_when_it_dies() -> None:
    rig = Rig()
    giver = second_pool(rig)
    stable, dying = rig.worker(1), rig.worker(2, generation=2)
    rig.switch(stable)
    giver.switch([dying.link], available=True)
    client = rig.client()
    submit(giver, client)
    giver.give_to(rig.pool)
    dying.transport.abort()
    (again,) = await asked(stable)
    stable.answer(again.rid)
    assert (client.statuses, rig.hub.retried, rig.pool.retiring) == ([200], 1, set())


@on_a_loop
async def test_a_link_that_moves_to_another_pool_leaves_the_one_it_was_in() -> None:
    rig = Rig()
    other = second_pool(rig)
    worker = rig.worker(1)
    rig.switch(worker)
    client = rig.client()
    client.send(post())
    (frame,) = await asked(worker)
    other.switch([worker.link], available=True)
    assert (rig.pool.links, rig.pool.retiring, worker.link.pool) == ([], set(), other)
    rig.switch()
    worker.answer(frame.rid)
    assert client.statuses == [200]
    assert (idle(rig), worker.transport.lost) == ([], False)


# ---- counting


@on_a_loop
async def test_only_those_that_had_to_wait_count_as_waiting() -> None:
    rig = Rig()
    worker = rig.worker()
    rig.switch(worker)
    clients = [rig.client() for _ in range(3)]
    for client in clients:
        client.send(post())
    (queued,) = rig.pool.queue
    for frame in await asked(worker):
        worker.answer(frame.rid)
    waited_s = monotonic() - queued.queued
    await asked(worker)
    (stats,) = [s for s in rig.hub.stats(1).commands if s.command == "ask"]
    assert 0 < stats.queue_sum_s <= waited_s


# ---- wrapped answers


@on_a_loop
async def test_a_gateways_own_error_is_wrapped_where_the_answer_would_be() -> None:
    rig = Rig(queue=0)
    route = CommandRoute(paths=("/predict/svc",), command="ask", shares=(Share("svc"),),
                         wrapped=True)  # fmt: skip
    rig.hub.site(0).switch(lookup_of(Site(commands=(route,)), rig.hub.pools, {}))
    client = rig.client()
    client.send(post("/predict/svc"))
    assert client.statuses == [503]
    assert b"retry-after: 1\r\n" in client.got
    assert json.loads(client.got.rpartition(b"\r\n\r\n")[2]) == {
        "message": "the queue of this service is full; try again later", "code": 503, "data": None,
    }  # fmt: skip
