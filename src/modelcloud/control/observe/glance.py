"""What all services that one may read do, at a glance: counts by state, traffic of the last hour.

Sums are made by the store: a glance must cost the same for two services and for two hundred.

Must never: tell of a service that the actor may not read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, func, select, true

from modelcloud.control.access.permissions import Actor, readable_groups
from modelcloud.control.common.records import Record, Time
from modelcloud.control.deployments.deployment_states import Status, Wanted, status_of
from modelcloud.control.observe.metric_sums import percentile, unpack
from modelcloud.control.observe.metrics_keeper import SPAN_S
from modelcloud.store.tables import Deployment, MetricPoint, Service
from modelcloud.types import State

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: The time that is looked at, in steps; and what counts as now.
PAST_S, STEP_S, NOW_S = 3600, 60, 300
#: The word of a service is the first of these that one of its deployments has.
_ORDER = (Status.SERVING, Status.DEPLOYING, Status.FAILED)


class Step(Record):
    """What was answered in `STEP_S` seconds from `at` on."""

    at: Time
    requests: int
    errors: int


class Glance(Record):
    """All of it.

    Attributes:
        services: status → how many services have it.
        steps: of the last hour, without gaps.
        requests, errors: of the last `NOW_S` seconds, and so `p99_ms`; None: nothing was answered.
    """

    services: dict[Status, int]
    steps: list[Step]
    requests: int
    errors: int
    p99_ms: float | None


def glance(tx: Session, actor: Actor, now: float) -> Glance:
    """How everything stands that the actor may read."""
    mine = _readable(actor)
    seen: dict[int, set[Status]] = {
        service_id: set() for service_id in tx.scalars(select(Service.id).where(mine))
    }
    for service_id, state in tx.execute(
        select(Deployment.service_id, Deployment.state)
        .join(Service, Service.id == Deployment.service_id)
        .where(mine, Deployment.wanted != Wanted.DELETED.value)
    ):
        seen[service_id].add(status_of(State(state)))
    services = dict.fromkeys(Status, 0)
    for words in seen.values():
        services[next((word for word in _ORDER if word in words), Status.OFFLINE)] += 1
    end = int(now) // STEP_S * STEP_S  # the step of the moment is not over
    at = MetricPoint.at - MetricPoint.at % STEP_S
    sums = {
        start: (requests, errors)
        for start, requests, errors in tx.execute(
            select(at, func.sum(MetricPoint.requests), func.sum(MetricPoint.errors))
            .join(Service, Service.id == MetricPoint.service_id)
            .where(
                mine,
                MetricPoint.span_s == SPAN_S,
                MetricPoint.at >= end - PAST_S,
                MetricPoint.at < end,
            )
            .group_by(at)
        )
    }
    rows = tx.execute(
        select(MetricPoint.requests, MetricPoint.errors, MetricPoint.buckets)
        .join(Service, Service.id == MetricPoint.service_id)
        .where(
            mine,
            MetricPoint.span_s == SPAN_S,
            MetricPoint.at >= int(now) - NOW_S,
            MetricPoint.requests > 0,
        )
    ).all()
    p99 = None
    if rows:
        columns = zip(*(unpack(buckets) for _, _, buckets in rows), strict=True)
        p99 = percentile([sum(column) for column in columns], 0.99)
    return Glance(
        services=services,
        steps=[
            Step(at=start, requests=requests, errors=errors)
            for start in range(end - PAST_S, end, STEP_S)
            for requests, errors in [sums.get(start, (0, 0))]
        ],
        requests=sum(requests for requests, _, _ in rows),
        errors=sum(errors for _, errors, _ in rows),
        p99_ms=None if p99 is None else round(p99 * 1000, 3),
    )


def curves(
    tx: Session, actor: Actor, services: Collection[str], now: float
) -> dict[str, list[int]]:
    """The requests of each of some services in the last hour, step by step."""
    end = int(now) // STEP_S * STEP_S
    at = MetricPoint.at - MetricPoint.at % STEP_S
    found = {name: [0] * (PAST_S // STEP_S) for name in services}
    for name, start, requests in tx.execute(
        select(Service.name, at, func.sum(MetricPoint.requests))
        .join(Service, Service.id == MetricPoint.service_id)
        .where(
            _readable(actor),
            MetricPoint.span_s == SPAN_S,
            MetricPoint.at >= end - PAST_S,
            MetricPoint.at < end,
            Service.name.in_(services),
        )
        .group_by(Service.name, at)
    ):
        found[name][(start - end + PAST_S) // STEP_S] = requests
    return found


def _readable(actor: Actor) -> ColumnElement[bool]:
    groups = readable_groups(actor)
    return true() if groups is None else Service.group_id.in_(groups)
