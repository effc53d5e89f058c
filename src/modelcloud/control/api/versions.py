"""Versions of a service."""

from __future__ import annotations

from functools import partial

from fastapi import Response

from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, ExpectedDep, OnceDep, PageDep, PlatformDep
from modelcloud.control.common.records import Listing
from modelcloud.control.services import versions
from modelcloud.control.services.registration import Registration
from modelcloud.control.services.version_forms import RegisterBody, VersionChanges
from modelcloud.control.services.versions import CurvesRecord, VersionRecord, VersionSummary

router = deps.router("versions")


@router.get("/services/{service}/versions")
async def list_versions(
    service: str, here: PlatformDep, actor: ActorDep, page: PageDep
) -> Listing[VersionSummary]:
    """The versions of a service, newest first."""
    return await here.store.read(
        partial(versions.listing, actor=actor, service_name=service, page=page)
    )


@router.post("/services/{service}/versions", status_code=201)
async def register_version(
    service: str,
    body: RegisterBody,
    here: PlatformDep,
    actor: ActorDep,
    once: OnceDep,
    response: Response,
) -> VersionRecord:
    """Register a version, once its code was imported; takes as long as that does.

    The service is made where it is new. What is refused leaves nothing behind.
    """
    record = await here.part(Registration).register(actor, service, body, once)
    deps.set_etag(response, record.revision)
    return record


@router.get("/services/{service}/versions/{version}")
async def get_version(
    service: str, version: int, here: PlatformDep, actor: ActorDep, response: Response
) -> VersionRecord:
    """One of them."""
    record = await here.store.read(
        partial(versions.one, actor=actor, service_name=service, number=version)
    )
    deps.set_etag(response, record.revision)
    return record


@router.get("/services/{service}/versions/{version}/curves")
async def get_curves(
    service: str, version: int, here: PlatformDep, actor: ActorDep
) -> CurvesRecord:
    """Its training curves."""
    return await here.store.read(
        partial(versions.curves, actor=actor, service_name=service, number=version)
    )


@router.patch("/services/{service}/versions/{version}")
async def edit_version(
    service: str,
    version: int,
    body: VersionChanges,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> VersionRecord:
    """Change description or metrics, or whether it may be deployed; never what it runs."""
    record = await here.store.transact(
        partial(
            versions.edit,
            actor=actor,
            service_name=service,
            number=version,
            changes=body.model_dump(exclude_unset=True),
            expected=expected,
        )
    )
    deps.set_etag(response, record.revision)
    return record


@router.delete("/services/{service}/versions/{version}", status_code=204)
async def delete_version(
    service: str, version: int, here: PlatformDep, actor: ActorDep, expected: ExpectedDep
) -> Response:
    """Remove a version that is not deployed."""
    await here.store.transact(
        partial(
            versions.delete,
            actor=actor,
            service_name=service,
            number=version,
            expected=expected,
        )
    )
    await here.part(Registration).collect()
    return Response(status_code=204)
