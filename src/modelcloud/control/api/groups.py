"""Groups, who shares them, and their quotas.

Must never: decide; `control.access.groups` and `control.resources.quotas` do.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Response
from pydantic import Field

from modelcloud.control.access import groups
from modelcloud.control.access.groups import GroupRecord, MemberLevel, MemberRecord, Quota
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, ExpectedDep, PageDep, PlatformDep
from modelcloud.control.common.records import Body, Listing
from modelcloud.control.resources import quotas

router = deps.router("groups")

Text = Annotated[str, Field(max_length=2000)]
Amount = Annotated[float, Field(ge=0, le=1e9)] | None


class NewGroup(Body):
    """A group to make."""

    name: str
    description: Text = ""


class GroupChanges(Body):
    """What to change; what is left out stays."""

    description: Text | None = None
    public_predictions: bool | None = None


class Sharing(Body):
    """A member's level: each holds the ones before."""

    level: MemberLevel


class NewQuota(Body):
    """All that a group may use at a time; what is left out does not limit."""

    cpu: Amount = None
    memory: Annotated[int, Field(ge=0, le=2**60)] | None = None
    gpu: Amount = None
    replicas: Annotated[int, Field(ge=0, le=10**6)] | None = None


@router.get("/groups")
async def list_groups(here: PlatformDep, actor: ActorDep, page: PageDep) -> Listing[GroupRecord]:
    """The groups one may read, oldest first."""
    return await here.store.read(partial(groups.listing, actor=actor, page=page))


@router.post("/groups", status_code=201)
async def create_group(body: NewGroup, here: PlatformDep, actor: ActorDep) -> GroupRecord:
    """Make a group that one manages."""
    return await here.store.transact(
        partial(groups.create, actor=actor, name=body.name, description=body.description)
    )


@router.get("/groups/{group}")
async def get_group(
    group: str, here: PlatformDep, actor: ActorDep, response: Response
) -> GroupRecord:
    """One of them."""
    record = await here.store.read(partial(groups.one, actor=actor, name=group))
    deps.set_etag(response, record.revision)
    return record


@router.patch("/groups/{group}")
async def edit_group(
    group: str,
    body: GroupChanges,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> GroupRecord:
    """Change a group's description, or whether its models answer without a token."""
    changes = body.model_dump(exclude_none=True)
    record = await here.store.transact(
        partial(groups.edit, actor=actor, name=group, changes=changes, expected=expected)
    )
    await here.reroute()
    deps.set_etag(response, record.revision)
    return record


@router.delete("/groups/{group}", status_code=204)
async def delete_group(
    group: str, here: PlatformDep, actor: ActorDep, expected: ExpectedDep
) -> Response:
    """Remove a group that has no services."""
    await here.store.transact(partial(groups.delete, actor=actor, name=group, expected=expected))
    return Response(status_code=204)


@router.put("/groups/{group}/quota")
async def set_quota(
    group: str,
    body: NewQuota,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> GroupRecord:
    """Set all of a group's quota (for administrators)."""
    quota = Quota(**body.model_dump())
    record = await here.store.transact(
        partial(quotas.set_quota, actor=actor, name=group, quota=quota, expected=expected)
    )
    deps.set_etag(response, record.revision)
    return record


@router.get("/groups/{group}/members")
async def list_members(
    group: str, here: PlatformDep, actor: ActorDep, page: PageDep
) -> Listing[MemberRecord]:
    """Who shares the group, at which level."""
    return await here.store.read(partial(groups.members, actor=actor, name=group, page=page))


@router.put("/groups/{group}/members/{user}")
async def share_group(
    group: str, user: str, body: Sharing, here: PlatformDep, actor: ActorDep
) -> MemberRecord:
    """Give a user a level on the group, in place of the one they had."""
    record = await here.store.transact(
        partial(groups.share, actor=actor, name=group, user=user, level=body.level)
    )
    await here.reroute()
    return record


@router.delete("/groups/{group}/members/{user}", status_code=204)
async def unshare_group(group: str, user: str, here: PlatformDep, actor: ActorDep) -> Response:
    """Take a user's level on the group away."""
    await here.store.transact(partial(groups.unshare, actor=actor, name=group, user=user))
    await here.reroute()
    return Response(status_code=204)
