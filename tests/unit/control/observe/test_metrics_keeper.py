"""Points are kept through outages of the store and jumps of the clock, and no longer than said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest
from sqlalchemy import func, select

from modelcloud.control.observe import metrics_keeper
from modelcloud.control.observe.metric_sums import Sum, VersionKey
from modelcloud.control.observe.metrics_keeper import (
    CLEAR_EVERY_S,
    MetricsKeeper,
    Place,
    add_points,
    clear,
    sum_of,
)
from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.errors import NotReady, StoreUnavailable
from modelcloud.node.orders import Counters
from modelcloud.store.store import Store
from modelcloud.store.tables import Group, MetricPoint, Service, Token, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")

#: The beginning of a long span.
NOW = 1_700_000_100.0
DAY_S = 24 * 3600


class Rig:
    """A keeper over a store with the service `fib`, at a time the test sets."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.wall = NOW
        self.time = 0.0
        self.answered = 0
        self.tokens: list[dict[str, float]] = [{}]  # of each gateway
        self.error: Exception | None = None
        self.keeper = MetricsKeeper(
            store, self._counters, clock=lambda: self.time, wall=lambda: self.wall
        )
        asyncio.run(store.transact(_make_service))

    async def _counters(self) -> Counters:
        if self.error is not None:
            raise self.error
        command = CommandStats(
            service="fib", command="fib", version=1, generation=1, latency_sum_s=self.answered,
            by_status={200: self.answered}, buckets=[self.answered] + [0] * len(BUCKETS),
        )  # fmt: skip
        gateways = [
            Stats(
                seq=1, gateway_id=number, connections=0, connections_total=0, in_flight=0,
                queued={}, rejected={}, retried=0, commands=[] if number else [command],
                tokens=tokens,
            )
            for number, tokens in enumerate(self.tokens)
        ]  # fmt: skip
        return Counters(seq=1, gateways=gateways, workers=[])

    def look(self, after_s: float = 10.0, answered: int = 0) -> None:
        """Let time pass and requests be answered, then look."""
        self.wall += after_s
        self.time += after_s
        self.answered += answered
        asyncio.run(self.keeper.look())

    def points(self, span_s: int) -> dict[float, int]:
        """Requests by the seconds since `NOW`."""
        query = select(MetricPoint).where(MetricPoint.span_s == span_s).order_by(MetricPoint.at)
        return self.read(lambda tx: {row.at - NOW: row.requests for row in tx.scalars(query)})

    def read(self, work: Callable[[Session], T]) -> T:
        return asyncio.run(self.store.read(work))


def _make_service(tx: Session) -> None:
    group = Group(name="g", created_at=0.0)
    tx.add(Service(name="fib", group=group, created_by="ann", created_at=0.0))


@pytest.fixture
def rig(store: Store) -> Rig:
    return Rig(store)


def add(tx: Session, at: float, requests: int = 1, version: int = 1) -> None:
    """Add to the points of `fib`."""
    add_points(tx, {Place(int(at), VersionKey("fib", version)): Sum(requests=requests)})


@contextmanager
def away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store refuses what it is asked."""

    async def refuse(_: object) -> None:
        raise StoreUnavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "transact", refuse)
        yield


def test_what_was_answered_between_two_looks_is_the_point_of_that_time(rig: Rig) -> None:
    rig.look(0.0, answered=100)  # who knows since when
    rig.look(answered=3)
    rig.look(answered=4)
    assert rig.points(10) == {0: 3, 10: 4}


def test_nothing_done_is_no_point(rig: Rig) -> None:
    rig.look(0.0)
    rig.look(answered=1)
    rig.look()
    rig.look(answered=2)
    assert rig.points(10) == {0: 1, 20: 2}


def test_long_spans_are_the_sum_of_their_short_ones(rig: Rig) -> None:
    rig.look(0.0)
    for _ in range(31):
        rig.look(answered=2)
    assert len(rig.points(10)) == 31
    assert rig.points(300) == {0: 60, 300: 2}
    query = select(MetricPoint).where(MetricPoint.span_s == 300).order_by(MetricPoint.at)
    first = rig.read(lambda tx: sum_of(tx.scalars(query).first()))  # type: ignore[arg-type]
    assert (first.buckets[0], first.latency_sum_s) == (60, 60.0)


def test_an_outage_of_the_store_loses_nothing_and_nothing_is_kept_twice(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig.look(0.0)
    with away(rig, monkeypatch):
        rig.look(answered=1)
        rig.look(answered=2)
    rig.look(answered=4)
    rig.look(answered=8)
    assert rig.points(10) == {0: 1, 10: 2, 20: 4, 30: 8}
    assert [record.message for record in caplog.records] == ["metrics are not kept: locked (None)"]


def test_a_long_outage_keeps_the_newest_points(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_keeper, "WAITING", 2)
    rig.look(0.0)
    with away(rig, monkeypatch):
        for answered in (1, 2, 4):
            rig.look(answered=answered)
    rig.look(answered=8)
    assert rig.points(10) == {20: 4, 30: 8}


@pytest.mark.parametrize("error", [NotReady("no node"), OSError("gone"), RuntimeError("a bug")])
def test_missing_counters_are_skipped_and_counted_at_the_next_look(
    rig: Rig, error: Exception
) -> None:
    rig.look(0.0)
    rig.error = error
    rig.look(answered=1)
    rig.error = None
    rig.look(answered=2)
    assert rig.points(10) == {10: 3}


def test_counters_that_never_come_are_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics_keeper, "COUNTERS_S", 0.01)

    async def never() -> Counters:
        await asyncio.Event().wait()
        raise AssertionError

    asyncio.run(MetricsKeeper(rig.store, never).look())
    assert "did not come within" in caplog.text


def test_a_clock_set_back_adds_to_the_points_that_are_there(rig: Rig) -> None:
    rig.look(0.0)
    rig.look(answered=1)
    rig.wall -= 10
    rig.look(answered=2)
    rig.wall -= 3600
    rig.look(answered=4)
    assert rig.points(10) == {-3590: 4, 0: 3}


def test_points_of_a_service_that_was_deleted_are_lost_and_others_kept(rig: Rig) -> None:
    sums = {
        Place(int(NOW), VersionKey("gone", 1)): Sum(requests=1),
        Place(int(NOW), VersionKey("fib", 1)): Sum(requests=2),
    }
    asyncio.run(rig.store.transact(lambda tx: add_points(tx, sums)))
    assert rig.points(10) == {0: 2}


def test_short_points_are_kept_for_a_day_and_long_ones_for_a_month(rig: Rig) -> None:
    def old(tx: Session) -> None:
        for days in (0.5, 2, 29, 31):
            add(tx, NOW - days * DAY_S)

    def clear_all(tx: Session) -> None:
        for _ in range(100):
            clear(tx, NOW)

    asyncio.run(rig.store.transact(old))
    asyncio.run(rig.store.transact(clear_all))
    assert {-at / DAY_S for at in rig.points(10)} == {0.5}
    assert {-at / DAY_S for at in rig.points(300)} == {0.5, 2, 29}


def test_one_removal_takes_only_so_much_away(rig: Rig) -> None:
    def old(tx: Session) -> None:
        for hours in range(48):
            add(tx, NOW - (30 + hours) * 3600)

    asyncio.run(rig.store.transact(old))
    asyncio.run(rig.store.transact(lambda tx: clear(tx, NOW)))
    assert len(rig.points(10)) == 47


def test_old_points_are_removed_from_time_to_time_but_not_right_after_a_jump(rig: Rig) -> None:
    def count(tx: Session) -> int:
        return tx.scalar(select(func.count()).select_from(MetricPoint)) or 0

    asyncio.run(rig.store.transact(lambda tx: add(tx, NOW - 40 * DAY_S)))
    rig.look()
    assert rig.read(count) == 2
    rig.wall += 365 * DAY_S
    rig.look(CLEAR_EVERY_S)
    assert rig.read(count) == 2
    rig.look(CLEAR_EVERY_S)
    assert rig.read(count) == 0


def test_it_looks_by_itself_from_its_start_until_its_stop(store: Store) -> None:
    async def run() -> None:
        looked = asyncio.Event()

        async def counters() -> Counters:
            looked.set()
            return Counters(seq=1, gateways=[], workers=[])

        keeper = MetricsKeeper(store, counters)
        await keeper.start()
        await asyncio.wait_for(looked.wait(), 20)
        await keeper.stop()
        await keeper.stop()

    asyncio.run(run())


# ---- when tokens were last used


def make_token(rig: Rig, digest: str, used: float | None = None) -> None:
    def work(tx: Session) -> None:
        user = tx.scalar(select(User)) or User(name="ann", password_hash="", created_at=0.0)
        tx.add(user)
        tx.flush()
        tx.add(Token(user_id=user.id, kind="token", level="predict", digest=digest,
                     created_at=0.0, last_used_at=used))  # fmt: skip

    asyncio.run(rig.store.transact(work))


def used(rig: Rig) -> dict[str, float | None]:
    """Last use by digest."""
    return rig.read(lambda tx: {row.digest: row.last_used_at for row in tx.scalars(select(Token))})


def test_a_token_was_last_used_when_any_gateway_saw_it_last(rig: Rig) -> None:
    for digest in ("d1", "d2", "d3"):
        make_token(rig, digest)
    rig.tokens = [{"d1": 8.0, "d2": 1.0}, {"d1": 3.0, "unknown": 0.0}]
    rig.look()
    assert used(rig) == {"d1": rig.wall - 3.0, "d2": rig.wall - 1.0, "d3": None}


def test_the_use_of_a_token_is_written_once_a_minute_and_the_last_one_is_not_lost(rig: Rig) -> None:
    make_token(rig, "d")
    rig.tokens = [{"d": 0.0}]
    rig.look()
    first = rig.wall
    rig.look(10.0)
    last = rig.wall
    for _ in range(4):
        rig.tokens = [{"d": rig.wall + 10.0 - last}]
        rig.look(10.0)
        assert used(rig) == {"d": first}
    rig.tokens = [{"d": rig.wall + 10.0 - last}]
    rig.look(10.0)
    assert used(rig) == {"d": last}


def test_a_use_that_the_store_did_not_take_is_written_when_it_is_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_token(rig, "d")
    rig.tokens = [{"d": 0.0}]
    with away(rig, monkeypatch):
        rig.look()
    assert used(rig) == {"d": None}
    rig.look()
    assert used(rig) == {"d": rig.wall}


def test_a_token_used_elsewhere_since_keeps_the_later_time(rig: Rig) -> None:
    make_token(rig, "d", used=NOW + 1000)
    rig.tokens = [{"d": 0.0}]
    rig.look()
    assert used(rig) == {"d": NOW + 1000}
