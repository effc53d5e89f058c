"""Deployments of a service: versions that are, or were, online."""

from __future__ import annotations

from functools import partial

from fastapi import Response  # noqa: TC002 — FastAPI reads annotations at run time

from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, ExpectedDep, OnceDep, PlatformDep
from modelcloud.control.commands import ACCEPTED, Commands
from modelcloud.control.common.records import Listing
from modelcloud.control.deployments import deployments
from modelcloud.control.deployments.deploying import Accepted
from modelcloud.control.deployments.deployment_forms import (
    DeployBody,
    RollbackBody,
    ScaleBody,
    UpdateBody,
)
from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.control.reconcile.reconcilers import Reconcilers

router = deps.router("deployments")

_ALL = "/services/{service}/deployments"
_ONE = _ALL + "/{version}"


@router.get(_ALL)
async def list_deployments(
    service: str, here: PlatformDep, actor: ActorDep
) -> Listing[DeploymentRecord]:
    """The deployments of a service, oldest first."""
    stored = await here.store.read(partial(deployments.listing, actor=actor, service_name=service))
    live = here.part(Reconcilers).live.deployment
    return Listing(items=[live(record) for record in stored.items])


@router.post(_ALL, status_code=ACCEPTED)
async def deploy(
    service: str, body: DeployBody, here: PlatformDep, actor: ActorDep, once: OnceDep
) -> Accepted:
    """Put a version online, beside the others or in place of one; follow the rollout."""
    return await Commands(here, actor, service, once=once).deploy(body)


@router.delete(_ALL)
async def delete_deployments(
    service: str, here: PlatformDep, actor: ActorDep
) -> Listing[DeploymentRecord]:
    """Take everything of a service offline for good; its versions stay registered."""
    return await Commands(here, actor, service).delete_all()


@router.get(_ONE)
async def get_deployment(
    service: str, version: deps.RowId, here: PlatformDep, actor: ActorDep, response: Response
) -> DeploymentRecord:
    """The deployment whose current version this is."""
    stored = await here.store.read(
        partial(deployments.one, actor=actor, service_name=service, version=version)
    )
    deps.set_etag(response, stored.revision)
    return here.part(Reconcilers).live.deployment(stored)


@router.delete(_ONE, status_code=ACCEPTED)
async def delete_deployment(
    service: str, version: deps.RowId, here: PlatformDep, actor: ActorDep
) -> Accepted:
    """Take it offline for good, once it has finished what it received."""
    return await Commands(here, actor, service).delete(version)


@router.post(_ONE + "/redeploy", status_code=ACCEPTED)
async def redeploy(
    service: str, version: deps.RowId, here: PlatformDep, actor: ActorDep, once: OnceDep
) -> Accepted:
    """Start it anew as it is; brings one that failed or is offline back too."""
    return await Commands(here, actor, service, once=once).redeploy(version)


@router.post(_ONE + "/start", status_code=ACCEPTED)
async def start(
    service: str, version: deps.RowId, here: PlatformDep, actor: ActorDep, once: OnceDep
) -> Accepted:
    """Bring it online."""
    return await Commands(here, actor, service, once=once).start(version)


@router.post(_ONE + "/stop", status_code=ACCEPTED)
async def stop(service: str, version: deps.RowId, here: PlatformDep, actor: ActorDep) -> Accepted:
    """Take it offline; it can be started again."""
    return await Commands(here, actor, service).stop(version)


@router.post(_ONE + "/update", status_code=ACCEPTED)
async def update(
    service: str,
    version: deps.RowId,
    body: UpdateBody,
    here: PlatformDep,
    actor: ActorDep,
    once: OnceDep,
    expected: ExpectedDep,
) -> Accepted:
    """Change options live. With none changed, `changed` is false and nothing is begun."""
    commands = Commands(here, actor, service, once=once, expected=expected)
    return await commands.update(version, body)


@router.post(_ONE + "/rollback", status_code=ACCEPTED)
async def roll_back(
    service: str,
    version: deps.RowId,
    here: PlatformDep,
    actor: ActorDep,
    once: OnceDep,
    body: RollbackBody | None = None,
) -> Accepted:
    """Go back: out of the rollout on its way, else to the generation before."""
    return await Commands(here, actor, service, once=once).roll_back(
        version, body or RollbackBody()
    )


@router.post(_ONE + "/scale", status_code=ACCEPTED)
async def scale(
    service: str,
    version: deps.RowId,
    body: ScaleBody,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
) -> Accepted:
    """Have another number of replicas, live."""
    return await Commands(here, actor, service, expected=expected).scale(version, body)
