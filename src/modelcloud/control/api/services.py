"""Services."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Query, Response

from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, ExpectedDep, OnceDep, PageDep, PlatformDep
from modelcloud.control.common.records import Listing
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.services import services
from modelcloud.control.services.registration import Registration
from modelcloud.control.services.services import Filter, ServiceRecord
from modelcloud.control.services.version_forms import NewService, ServiceChanges

router = deps.router("services")


@router.get("/services")
async def list_services(
    here: PlatformDep,
    actor: ActorDep,
    page: PageDep,
    group: Annotated[str | None, Query(description="of this group only")] = None,
    state: Annotated[
        str | None, Query(description="Deploying, Serving, Failed or Offline: of a deployment")
    ] = None,
    q: Annotated[str | None, Query(description="a part of the name or description")] = None,
) -> Listing[ServiceRecord]:
    """The services one may read, by name, each with its deployments."""
    wanted = Filter(group=group, state=state, q=q)
    stored = await here.store.read(partial(services.listing, actor=actor, wanted=wanted, page=page))
    live = here.part(Reconcilers).live.service
    return Listing(items=[live(record) for record in stored.items], next=stored.next)


@router.post("/services", status_code=201)
async def create_service(
    body: NewService, here: PlatformDep, actor: ActorDep, once: OnceDep, response: Response
) -> ServiceRecord:
    """Make a service without versions; registering the first version makes one too."""
    create = partial(
        services.create,
        actor=actor,
        asked=body,
        taken_ports=here.part(Registration).taken_ports,
    )
    record = await here.store.transact(once.around(create, 201))
    deps.set_etag(response, record.revision)
    return record


@router.get("/services/{service}")
async def get_service(
    service: str, here: PlatformDep, actor: ActorDep, response: Response
) -> ServiceRecord:
    """One of them."""
    record = await here.store.read(partial(services.one, actor=actor, name=service))
    deps.set_etag(response, record.revision)
    return here.part(Reconcilers).live.service(record)


@router.patch("/services/{service}")
async def edit_service(
    service: str,
    body: ServiceChanges,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> ServiceRecord:
    """Change description or port."""
    record = await here.store.transact(
        partial(
            services.edit,
            actor=actor,
            name=service,
            changes=body.model_dump(exclude_unset=True),
            expected=expected,
            taken_ports=here.part(Registration).taken_ports,
        )
    )
    await here.part(Reconcilers).refresh(service)
    deps.set_etag(response, record.revision)
    return here.part(Reconcilers).live.service(record)


@router.delete("/services/{service}", status_code=204)
async def delete_service(
    service: str, here: PlatformDep, actor: ActorDep, expected: ExpectedDep
) -> Response:
    """Remove a service with all its versions; what is online of it ends."""
    await here.store.transact(
        partial(services.delete, actor=actor, name=service, expected=expected)
    )
    await here.part(Reconcilers).refresh(service)
    await here.part(Registration).collect()
    return Response(status_code=204)
