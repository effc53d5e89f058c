"""How the requests for a service are shared out among its versions."""

from __future__ import annotations

from functools import partial

from fastapi import Response  # noqa: TC002 — FastAPI reads annotations at run time

from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, ExpectedDep, PlatformDep
from modelcloud.control.deployments import traffic
from modelcloud.control.deployments.deployment_forms import TrafficBody
from modelcloud.control.deployments.traffic import TrafficRecord
from modelcloud.control.reconcile.reconcilers import Reconcilers

router = deps.router("traffic")


@router.get("/services/{service}/traffic")
async def get_traffic(
    service: str, here: PlatformDep, actor: ActorDep, response: Response
) -> TrafficRecord:
    """Weights, labels, copies, and what keeps a client at one version."""
    record = await here.store.read(partial(traffic.get, actor=actor, service_name=service))
    deps.set_etag(response, record.revision)
    return record


@router.put("/services/{service}/traffic")
async def put_traffic(
    service: str,
    body: TrafficBody,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> TrafficRecord:
    """Change them in one step; what is left out stays as it is."""
    record = await here.store.transact(
        partial(traffic.put, actor=actor, service_name=service, asked=body, expected=expected)
    )
    await here.part(Reconcilers).refresh(service)
    deps.set_etag(response, record.revision)
    return record
