"""Which worker of a pool gets a request, and that nobody waits behind one who waits for another."""

from __future__ import annotations

from collections import Counter
from time import monotonic

import pytest

from modelcloud.dataplane.dispatch import HUNG_S, affinity, key_of
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.frames import Kind
from modelcloud.types import Dispatch, DispatchPolicy
from support.gateway_rig import FakeWorker, Frame, Rig, post, settle, submit
from support.loops import on_a_loop

HASH = Dispatch(DispatchPolicy.CONSISTENT_HASH, "header:X-User")


def rig_of(dispatch: Dispatch, workers: int = 3, credit: int = 2) -> tuple[Rig, list[FakeWorker]]:
    """A pool with this policy and so many workers, slow ones, so that their credit stays."""
    rig = Rig()
    found = [rig.worker(number, credit=credit) for number in range(1, workers + 1)]
    for worker in found:
        worker.link._per_request = 10.0
    rig.pool.dispatch = dispatch
    rig.switch(*found)
    return rig, found


def ask(rig: Rig, key: bytes = b"", body: bytes = b"") -> Exchange:
    """A request with this key, as a router hands it over; its body says which one it is."""
    return submit(rig.pool, rig.client(), body or key, key=key)


async def got(worker: FakeWorker) -> list[Frame]:
    await settle()
    return [frame for frame in worker.frames() if frame.kind == Kind.REQUEST]


async def bodies(worker: FakeWorker) -> list[bytes]:
    return [frame.body for frame in await got(worker)]


def best_first(key: bytes, *numbers: int) -> list[int]:
    """Workers in the order in which a key wants them."""
    return sorted(numbers, key=lambda number: affinity(key, number), reverse=True)


def key_for(number: int, *, of: int, prefix: bytes = b"k") -> bytes:
    """A key whose worker is this one of the first `of`."""
    keys = (b"%b%d" % (prefix, i) for i in range(10_000))
    return next(key for key in keys if best_first(key, *range(1, of + 1))[0] == number)


# ---- one line


@on_a_loop
async def test_round_robin_takes_turns_and_passes_by_who_has_no_credit() -> None:
    rig, workers = rig_of(Dispatch(DispatchPolicy.ROUND_ROBIN))
    turns = [ask(rig).link for _ in range(6)]
    assert turns == [worker.link for worker in workers] * 2
    frames = await got(workers[2])
    workers[2].answer(frames[0].rid)
    assert [ask(rig).link for _ in range(2)] == [workers[2].link, None]


@on_a_loop
async def test_random_reaches_all_and_only_those_with_credit() -> None:
    rig, workers = rig_of(Dispatch(DispatchPolicy.RANDOM), credit=32)
    counts = Counter(ask(rig).link for _ in range(96))
    assert counts == {worker.link: 32 for worker in workers}


@on_a_loop
async def test_least_loaded_takes_the_one_with_the_fewest_inside() -> None:
    rig, workers = rig_of(Dispatch(), workers=2, credit=4)
    assert [ask(rig).link for _ in range(4)] == [workers[0].link, workers[1].link] * 2
    for frame in await got(workers[1]):
        workers[1].answer(frame.rid)
    assert [ask(rig).link for _ in range(2)] == [workers[1].link] * 2


# ---- a line for each worker


@pytest.mark.parametrize(
    ("dispatch", "key"),
    [
        (HASH, ("header", "x-user")),
        (Dispatch(DispatchPolicy.CONSISTENT_HASH, "query:User"), ("query", "User")),
        (Dispatch(DispatchPolicy.CONSISTENT_HASH, "cookie:a"), None),
        (Dispatch(DispatchPolicy.CONSISTENT_HASH, "header:"), None),
        (Dispatch(DispatchPolicy.CONSISTENT_HASH), None),
        (Dispatch(DispatchPolicy.RANDOM, "header:x"), None),
    ],
)
def test_a_policy_says_what_its_key_is(dispatch: Dispatch, key: tuple[str, str] | None) -> None:
    assert key_of(dispatch) == key


@on_a_loop
async def test_a_key_stays_with_its_worker_and_keys_spread() -> None:
    rig, workers = rig_of(HASH, credit=1000)
    homes = {b"%d" % i: ask(rig, b"%d" % i).link for i in range(300)}
    assert all(ask(rig, key).link is link for key, link in homes.items())
    assert all(60 < count < 140 for count in Counter(homes.values()).values())
    rig.switch(workers[0], workers[1])  # only the keys of the one that is gone move
    moved = {key for key, link in homes.items() if ask(rig, key).link is not link}
    assert moved == {key for key, link in homes.items() if link is workers[2].link}


@on_a_loop
async def test_a_key_waits_for_its_busy_worker_and_holds_up_nobody_else() -> None:
    rig, (one, two) = rig_of(HASH, workers=2)
    mine, other = key_for(1, of=2), key_for(2, of=2)
    waiting = [ask(rig, mine, b"%d" % i) for i in range(5)]
    assert [exchange.link is None for exchange in waiting] == [False, False, True, True, True]
    assert [ask(rig, other).link, ask(rig, b"").link] == [two.link] * 2
    assert len(rig.pool.queue) == 3
    for frame in await got(one):  # each answer lets the next one in
        one.answer(frame.rid)
    assert [exchange.link is one.link for exchange in waiting] == [True] * 4 + [False]


@on_a_loop
async def test_of_those_that_wait_the_first_to_come_goes_first_with_or_without_a_key() -> None:
    rig, (one,) = rig_of(HASH, workers=1)
    ask(rig, b"k"), ask(rig, b"k")
    first = await got(one)
    for body in (b"1", b"2", b"3", b"4"):
        ask(rig, b"k" if body in {b"1", b"4"} else b"", body)
    order = []
    for frame in first:
        one.answer(frame.rid)
    for _ in range(2):
        for frame in await got(one):
            order.append(frame.body)
            one.answer(frame.rid)
    assert order == [b"1", b"2", b"3", b"4"]


@on_a_loop
async def test_without_a_key_any_worker_will_do() -> None:
    rig, workers = rig_of(HASH, workers=2)
    assert {ask(rig).link for _ in range(4)} == {worker.link for worker in workers}
    late = ask(rig)
    assert late.link is None
    workers[1].answer((await got(workers[1]))[0].rid)
    assert late.link is workers[1].link


@on_a_loop
async def test_what_waits_for_a_worker_that_goes_chooses_again() -> None:
    rig, workers = rig_of(HASH)
    key = key_for(1, of=3)
    ask(rig, key), ask(rig, key)
    waiting = [ask(rig, key, body) for body in (b"a", b"b")]
    heir = workers[best_first(key, 1, 2, 3)[1] - 1]
    rig.switch(*(worker for worker in workers if worker is not workers[0]))
    assert [exchange.link for exchange in waiting] == [heir.link] * 2
    assert await bodies(heir) == [b"a", b"b"]


@on_a_loop
async def test_a_worker_that_dies_loses_no_request_of_its_keys() -> None:
    rig, (one, two) = rig_of(HASH, workers=2, credit=2)
    key = key_for(1, of=2)
    exchanges = [ask(rig, key, b"%d" % i) for i in range(2)]
    one.transport.abort()
    await settle()
    assert [exchange.link for exchange in exchanges] == [two.link] * 2
    assert await bodies(two) == [b"0", b"1"]


@on_a_loop
async def test_a_hung_worker_gives_up_its_keys_until_it_answers_again() -> None:
    rig, (one, two) = rig_of(HASH, workers=2, credit=4)
    one.link.blocking = frozenset({"ask"})
    key = key_for(1, of=2)
    hung, behind = ask(rig, key, b"hung"), ask(rig, key, b"behind")
    now = monotonic()
    for after in (0.0, 0.1, HUNG_S / 2):
        rig.pool.check_deadlines(now + after)
    assert ask(rig, key).link is one.link  # a long call alone is no reason to leave it
    rig.pool.check_deadlines(now + HUNG_S + 0.1)
    assert behind.link is two.link
    assert ask(rig, key).link is two.link
    one.answer(hung.rid)
    one.end(next(rid for rid, e in one.link.inflight.items() if e.finished), 499)
    for after in (0.2, 0.3):
        rig.pool.check_deadlines(now + HUNG_S + after)
    assert ask(rig, key).link is one.link


@on_a_loop
async def test_the_limit_and_the_deadline_hold_over_all_lines_together() -> None:
    rig, _ = rig_of(HASH, workers=2)
    rig.pool.limit = 4
    for number in (1, 2):
        for _ in range(4):
            ask(rig, key_for(number, of=2))
    refused = [ask(rig, b"x"), ask(rig, b"")]
    assert all(exchange.finished for exchange in refused)
    rig.pool.check_deadlines(monotonic() + rig.pool.deadline_s + 0.5)
    assert len(rig.pool.queue) == 0
    assert rig.hub.rejected == {"queue_full": 2, "deadline": 8}


@on_a_loop
async def test_a_client_that_leaves_takes_its_request_out_of_its_line() -> None:
    rig, (one,) = rig_of(HASH, workers=1)
    ask(rig, b"k"), ask(rig, b"k")
    gone, stays = ask(rig, b"k", b"gone"), ask(rig, b"k", b"stays")
    assert gone.connection is not None
    gone.connection.transport.abort()
    await settle()
    assert len(rig.pool.queue) == 1
    one.answer((await got(one))[0].rid)
    assert stays.link is one.link


@on_a_loop
async def test_what_waits_follows_a_new_policy_in_its_order() -> None:
    rig, (_, two) = rig_of(Dispatch(), workers=2)
    for _ in range(4):
        ask(rig, body=b"before")
    mine, other = key_for(1, of=2), key_for(2, of=2)
    exchanges = [ask(rig, key, body) for key, body in ((mine, b"1"), (mine, b"2"), (other, b"3"))]
    queued = [exchange.queued for exchange in exchanges]
    rig.pool.dispatch = HASH
    assert [exchange.queued for exchange in exchanges] == queued
    two.answer((await got(two))[0].rid)
    assert [exchange.link for exchange in exchanges] == [None, None, two.link]
    rig.pool.dispatch = Dispatch(DispatchPolicy.ROUND_ROBIN)
    two.answer((await got(two))[-1].rid)
    assert [exchange.link is two.link for exchange in exchanges[:2]] == [True, False]


@on_a_loop
async def test_requests_wait_for_workers_that_are_to_come() -> None:
    rig = Rig()
    rig.pool.dispatch = HASH
    exchange = ask(rig, b"k")
    assert list(rig.pool.queue) == [exchange]
    worker = rig.worker()
    rig.switch(worker)
    assert exchange.link is worker.link
    client = rig.client()
    client.send(post())
    assert len(await got(worker)) == 2
