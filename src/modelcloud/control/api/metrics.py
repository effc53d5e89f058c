"""What versions do over time, and everything for Prometheus."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response

from modelcloud.control.access.permissions import Action, require
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, PlatformDep, RowId, TimeParam
from modelcloud.control.observe import metrics, prometheus
from modelcloud.control.observe.metrics import History
from modelcloud.control.observe.metrics_keeper import MetricsKeeper

router = APIRouter()
_api = deps.router("metrics")


@_api.get("/services/{service}/metrics")
async def get_service_metrics(
    service: str,
    here: PlatformDep,
    actor: ActorDep,
    since: TimeParam | None = None,
    until: TimeParam | None = None,
    span: int | None = None,
) -> History:
    """What a service did: points of `span` seconds, by default of the last hour."""
    asked = metrics.window(here.wall(), since, until, span)
    return await here.store.read(
        partial(metrics.history, actor=actor, service=service, asked=asked)
    )


@_api.get("/services/{service}/versions/{version}/metrics")
async def get_version_metrics(
    service: str,
    version: RowId,
    here: PlatformDep,
    actor: ActorDep,
    since: TimeParam | None = None,
    until: TimeParam | None = None,
    span: int | None = None,
) -> History:
    """What one version of it did."""
    asked = metrics.window(here.wall(), since, until, span)
    return await here.store.read(
        partial(metrics.history, actor=actor, service=service, version=version, asked=asked)
    )


@router.get("/metrics", include_in_schema=False)
async def get_prometheus_text(here: PlatformDep, actor: ActorDep) -> Response:
    """Everything on the node, as Prometheus text; for administrators."""
    require(actor, Action.READ_METRICS)
    known = await here.store.read(prometheus.stored)
    counters = await here.part(MetricsKeeper).counters()
    observed = {key: here.engine.observe(key) for key in known.deployments}
    body, content_type = prometheus.render(counters, known, observed)
    return Response(body, media_type=content_type)


router.include_router(_api)
