"""Keeps what each version did: a point for every 10 s of a day, one for every 5 min of a month.

Of the same counters it keeps when tokens were last used.

Must never: end because of an error, or grow while the store is away: what it could not keep waits
in memory, so much of it, and then the oldest is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, func, select

from modelcloud.control.access import token_uses
from modelcloud.control.observe.metric_sums import (
    Seen,
    Sum,
    VersionKey,
    delta,
    merge,
    pack,
    seen,
    unpack,
)
from modelcloud.errors import DeadlineExceeded, ModelcloudError
from modelcloud.store.tables import MetricPoint, Service
from modelcloud.waiting import within

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from modelcloud.node.orders import Counters
    from modelcloud.store.store import Store

log = logging.getLogger(__name__)

#: Seconds between two looks at the counters: the shortest span.
SPAN_S = 10
#: Span → how long its points are kept, in seconds.
KEPT_S = {SPAN_S: 24 * 3600, 300: 30 * 24 * 3600}
#: For the counters to come.
COUNTERS_S = 5.0
#: Sums that wait for a store that is away.
WAITING = 10_000
#: Seconds between two removals of old points, and how many spans one removal goes through. What
#: a clock that is wrong by years takes away at a time is little.
CLEAR_EVERY_S = 300.0
CLEARED_SPANS = 360
#: A wall clock that moved so much more or less than time did was set: nothing is removed then.
JUMP_S = 60.0

#: Enough of a row to make a sum of it, and to place it.
POINT_COLUMNS = tuple(
    c for c in MetricPoint.__table__.columns if c.name not in {"service_id", "span_s"}
)
_NUMBERS = tuple(field for field in Sum.__struct_fields__ if field != "buckets")


class Place(NamedTuple):
    """Which point a sum belongs to: the version's from `at` on."""

    at: int
    key: VersionKey


class MetricsKeeper:
    """Looks at the counters every `SPAN_S` seconds and keeps what has changed.

    Requests that were answered while no control plane ran are in no point.

    Args:
        store: where points are kept.
        counters: the counters as they are now; may raise.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        counters: Callable[[], Awaitable[Counters]],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._counters = counters
        self._clock = clock
        self._wall = wall
        self._seen: Seen | None = None
        self._waiting: dict[Place, Sum] = {}
        self._token_uses = token_uses.TokenUses()
        self._offset = wall() - clock()
        self._clear_at = clock() + CLEAR_EVERY_S
        self._complaint = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what waits is lost."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await self.look()
            # At the ends of spans, so that what has changed belongs to one of them.
            await asyncio.sleep(max(SPAN_S - self._wall() % SPAN_S, 1.0))

    async def counters(self) -> Counters:
        """The counters as they are now.

        Raises:
            DeadlineExceeded: they did not come in time.
        """
        try:
            return await within(self._counters(), COUNTERS_S)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"the counters did not come within {COUNTERS_S:g} s") from None

    async def look(self) -> None:
        """Take the counters once and keep what has changed. Raises nothing."""
        try:
            counters = await self.counters()
            self._take(counters)
            await self._keep()
            await self._keep_token_uses(counters)
        except Exception as error:
            self._complain(error)
        else:
            self._complaint = ""

    def _take(self, counters: Counters) -> None:
        at = int(self._wall() - SPAN_S / 2) // SPAN_S * SPAN_S
        for key, change in delta(self._seen, counters).items():
            place = Place(at, key)
            before = self._waiting.get(place)
            self._waiting[place] = merge(before, change) if before else change
        self._seen = seen(self._seen, counters)
        while len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]

    async def _keep(self) -> None:
        waiting = dict(self._waiting)
        if waiting:
            await self._store.transact(lambda tx: add_points(tx, waiting))
            self._waiting = {}
        if self._time_to_clear():
            now = self._wall()
            await self._store.transact(lambda tx: clear(tx, now))

    async def _keep_token_uses(self, counters: Counters) -> None:
        now, wall = self._clock(), self._wall()
        due = self._token_uses.due(counters.gateways, now)
        if due:
            await self._store.transact(lambda tx: token_uses.write(tx, due, wall))
            self._token_uses.written(due, now)

    def _time_to_clear(self) -> bool:
        offset = self._wall() - self._clock()
        jumped = abs(offset - self._offset) > JUMP_S
        self._offset = offset
        due = self._clock() >= self._clear_at
        if jumped or due:
            self._clear_at = self._clock() + CLEAR_EVERY_S
        return due and not jumped

    def _complain(self, error: Exception) -> None:
        """Log what is wrong once, however often it comes in a row."""
        text = f"{type(error).__name__}: {error}"
        if text == self._complaint:
            return
        self._complaint = text
        if isinstance(error, ModelcloudError):
            log.warning("metrics are not kept: %s (%s)", error.message, error.detail)
        else:
            log.error("metrics are not kept", exc_info=error)


def add_points(tx: Session, sums: dict[Place, Sum]) -> None:
    """Add sums to the points they belong to, of every span; those of unknown services are lost."""
    services = {key.service for _, key in sums}
    rows = tx.execute(select(Service.name, Service.id).where(Service.name.in_(services)))
    ids = {row.name: row.id for row in rows}
    known = {place: total for place, total in sums.items() if place.key.service in ids}
    for span_s in KEPT_S:
        starts = {place.at // span_s * span_s for place in known}
        points = _points(tx, span_s, starts, ids.values())
        for place, total in known.items():
            where = (ids[place.key.service], place.key.version, place.at // span_s * span_s)
            point = points.get(where)
            if point is None:
                point = points[where] = MetricPoint(
                    service_id=where[0], version=where[1], span_s=span_s, at=where[2]
                )
                tx.add(point)
                _set(point, total)
            else:
                _set(point, merge(sum_of(point), total))


def clear(tx: Session, now: float) -> None:
    """Remove the oldest points that are no longer kept, some of them."""
    for span_s, kept_s in KEPT_S.items():
        oldest = tx.scalar(select(func.min(MetricPoint.at)).where(MetricPoint.span_s == span_s))
        if oldest is not None:
            end = min(now - kept_s, oldest + span_s * CLEARED_SPANS)
            tx.execute(
                delete(MetricPoint).where(MetricPoint.span_s == span_s, MetricPoint.at < end)
            )


def sum_of(point: MetricPoint | Row[Any]) -> Sum:
    """What a point says; of a row, `POINT_COLUMNS` are needed."""
    return Sum(
        requests=point.requests,
        errors=point.errors,
        buckets=unpack(point.buckets),
        latency_sum_s=point.latency_sum_s,
        queue_sum_s=point.queue_sum_s,
        batches=point.batches,
        batched=point.batched,
        shadowed=point.shadowed,
        shadow_same=point.shadow_same,
        shadow_different=point.shadow_different,
        memory=point.memory,
        cpu_s=point.cpu_s,
    )


def _set(point: MetricPoint, total: Sum) -> None:
    for field in _NUMBERS:
        setattr(point, field, getattr(total, field))
    point.buckets = pack(total.buckets)


def _points(
    tx: Session, span_s: int, starts: set[int], service_ids: Iterable[int]
) -> dict[tuple[int, int, int], MetricPoint]:
    rows = tx.scalars(
        select(MetricPoint).where(
            MetricPoint.span_s == span_s,
            MetricPoint.at.in_(starts),
            MetricPoint.service_id.in_(list(service_ids)),
        )
    )
    return {(row.service_id, row.version, row.at): row for row in rows}
