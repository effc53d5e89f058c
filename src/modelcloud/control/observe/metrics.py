"""What versions did over time, read back: points in a row, without gaps.

Must never: read more points than an answer may hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sqlalchemy import select

from modelcloud.control.common.records import Record, Time
from modelcloud.control.deployments.deployments import service_of
from modelcloud.control.observe.metric_sums import Sum, beside, merge, percentile
from modelcloud.control.observe.metrics_keeper import KEPT_S, POINT_COLUMNS, SPAN_S, sum_of
from modelcloud.errors import InvalidInput, NotFound
from modelcloud.store.tables import MetricPoint, Service, Version

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from modelcloud.control.access.permissions import Actor

K = TypeVar("K", bound=Hashable)

MOST_POINTS = 2000
#: Without `since`: the last hour.
DEFAULT_S = 3600
_LONG_SPAN_S = max(KEPT_S)


class Point(Record):
    """What was done from `at` on, for the span of the answer.

    Attributes:
        errors: answers with a status of 500 or more.
        p50_ms, p95_ms, p99_ms: from arrival to answer; None where nothing was answered.
        queue_ms: of that, waiting for a worker, on average.
        in_flight: requests under way at a time, on average (Little's law: the seconds that
            requests took, by the seconds there were).
        batch_size: requests that a call of a batching command took together, on average.
        memory: the most bytes that the workers held together.
        cpu: processors that the workers kept busy, on average.
        shadowed: copies of other versions' requests, counted in none of the above but `memory` and
            `cpu`; `shadow_same` of those were answered as the version that was asked did,
            `shadow_different` otherwise.
    """

    at: Time
    requests: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    queue_ms: float | None
    in_flight: float
    batch_size: float | None
    memory: int
    cpu: float
    shadowed: int
    shadow_same: int
    shadow_different: int


class History(Record):
    """Points, the oldest first, one for each `span_s` seconds; where nothing was done, of zeros."""

    span_s: int
    points: list[Point]


class Window(NamedTuple):
    """A time, cut into spans; both ends are multiples of `span_s` since the epoch."""

    since: int
    until: int
    span_s: int


def window(
    now: float, since: float | None = None, until: float | None = None, span: int | None = None
) -> Window:
    """What is asked for, with what was left open filled in.

    Args:
        now: seconds since the epoch, as are `since` and `until`.
        since: an hour before `until` when None.
        until: now when None.
        span: seconds of a point; the shortest that is kept for so long and gives no more than
            `MOST_POINTS` points when None.

    Raises:
        InvalidInput: it is no time, too many points, or a span that cannot be made.
    """
    end = min(now if until is None else until, now)
    start = end - DEFAULT_S if since is None else since
    if not start < end:
        raise InvalidInput("since", f"{start:.0f}", f"a time before `until` and now: {end:.0f}")
    start = max(start, end - KEPT_S[_LONG_SPAN_S])  # nothing older is kept
    old = start < now - KEPT_S[SPAN_S] - _LONG_SPAN_S
    fits = _fitting_span(end - start, old=old)
    if span is None:
        span = fits
    multiple = _LONG_SPAN_S if old else SPAN_S
    if span < multiple or span % multiple or span > KEPT_S[SPAN_S]:
        raise InvalidInput(
            "span",
            str(span),
            f"seconds, a multiple of {multiple} up to {KEPT_S[SPAN_S]}"
            + (" for a time so long ago" if old else ""),
        )
    if (end - start) / span > MOST_POINTS:
        raise InvalidInput("span", str(span), f"{fits}, say: {MOST_POINTS} points at most")
    return Window(math.floor(start / span) * span, math.ceil(end / span) * span, span)


def _fitting_span(length: float, *, old: bool) -> int:
    if not old and length <= MOST_POINTS * SPAN_S:
        return SPAN_S
    return max(math.ceil(length / MOST_POINTS / _LONG_SPAN_S), 1) * _LONG_SPAN_S


def history(
    tx: Session, actor: Actor, service: str, *, version: int | None = None, asked: Window
) -> History:
    """What a service, or one version of it, did in this time.

    Raises:
        NotFound: no such service or version that the actor may see.
    """
    found = service_of(tx, actor, service)
    query = select(*POINT_COLUMNS).where(
        MetricPoint.service_id == found.id,
        MetricPoint.span_s == (SPAN_S if asked.span_s % _LONG_SPAN_S else _LONG_SPAN_S),
        MetricPoint.at >= asked.since,
        MetricPoint.at < asked.until,
    )
    if version is not None:
        require_version(tx, found, version)
        query = query.where(MetricPoint.version == version)
    versions: dict[tuple[int, int], Sum] = {}
    for row in tx.execute(query):
        _put(versions, (row.at // asked.span_s * asked.span_s, row.version), sum_of(row), merge)
    together: dict[int, Sum] = {}
    for (at, _), done in versions.items():
        _put(together, at, done, beside)
    nothing = Sum()
    starts = range(asked.since, asked.until, asked.span_s)
    points = [_point(at, together.get(at, nothing), asked.span_s) for at in starts]
    return History(span_s=asked.span_s, points=points)


def require_version(tx: Session, service: Service, number: int) -> None:
    """Return if the service has a version of this number.

    Raises:
        NotFound: it has none; the message says which there are.
    """
    numbers = tx.scalars(select(Version.number).where(Version.service_id == service.id)).all()
    if number not in numbers:
        there = ", ".join(map(str, sorted(numbers))) or "none"
        raise NotFound(f"no version {number} of {service.name!r}; there are: {there}")


def _put(sums: dict[K, Sum], place: K, more: Sum, add: Callable[[Sum, Sum], Sum]) -> None:
    sums[place] = add(sums[place], more) if place in sums else more


def _point(at: int, done: Sum, span_s: int) -> Point:
    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds * 1000, 3)

    return Point(
        at=at,
        requests=done.requests,
        errors=done.errors,
        p50_ms=ms(percentile(done.buckets, 0.5)),
        p95_ms=ms(percentile(done.buckets, 0.95)),
        p99_ms=ms(percentile(done.buckets, 0.99)),
        queue_ms=ms(done.queue_sum_s / done.requests) if done.requests else None,
        in_flight=round(done.latency_sum_s / span_s, 3),
        batch_size=round(done.batched / done.batches, 2) if done.batches else None,
        memory=done.memory,
        cpu=round(done.cpu_s / span_s, 4),
        shadowed=done.shadowed,
        shadow_same=done.shadow_same,
        shadow_different=done.shadow_different,
    )
