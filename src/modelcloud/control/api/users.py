"""Users, for administrators.

Must never: decide; `control.access.users` does.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Response
from pydantic import Field

from modelcloud.control.access import passwords, users
from modelcloud.control.access.permissions import Action, Resource, require
from modelcloud.control.access.users import UserRecord
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, AuthDep, ExpectedDep, PageDep, PlatformDep
from modelcloud.control.common.records import Body, Listing

router = deps.router("users")

Password = Annotated[str, Field(min_length=passwords.SHORTEST, max_length=passwords.LONGEST)]


class NewUser(Body):
    """A user to make.

    Attributes:
        must_change_password: at the first sign-in, before anything else.
    """

    name: str
    password: Password
    is_admin: bool = False
    must_change_password: bool = False


class UserChanges(Body):
    """What to change; what is left out stays."""

    must_change_password: bool | None = None
    is_admin: bool | None = None
    disabled: bool | None = None
    password: Password | None = None


@router.get("/users")
async def list_users(here: PlatformDep, actor: ActorDep, page: PageDep) -> Listing[UserRecord]:
    """All users, oldest first."""
    return await here.store.read(partial(users.listing, actor=actor, page=page))


@router.post("/users", status_code=201)
async def create_user(
    body: NewUser, here: PlatformDep, auth: AuthDep, actor: ActorDep
) -> UserRecord:
    """Make a user, and a group of the same name that is theirs."""
    require(actor, Action.MANAGE_USERS, Resource(kind="user", name=body.name))  # before the work
    passwords.check_password(body.password)
    hashed = await auth.hashing.hash(body.password)
    return await here.store.transact(
        partial(
            users.create,
            actor=actor,
            name=body.name,
            hashed=hashed,
            is_admin=body.is_admin,
            must_change=body.must_change_password,
        )
    )


@router.get("/users/{name}")
async def get_user(name: str, here: PlatformDep, actor: ActorDep, response: Response) -> UserRecord:
    """One of them."""
    record = await here.store.read(partial(users.one, actor=actor, name=name))
    deps.set_etag(response, record.revision)
    return record


@router.patch("/users/{name}")
async def edit_user(
    name: str,
    body: UserChanges,
    here: PlatformDep,
    auth: AuthDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> UserRecord:
    """Change a user; whoever is disabled, or gets another password, is signed out at once."""
    changes = body.model_dump(exclude_none=True)
    password = changes.pop("password", None)
    hashed = None
    if password is not None:
        require(actor, Action.MANAGE_USERS, Resource(kind="user", name=name))
        passwords.check_password(password)
        hashed = await auth.hashing.hash(password)
    record = await here.store.transact(
        partial(
            users.edit, actor=actor, name=name, changes=changes, expected=expected, hashed=hashed
        )
    )
    await here.reroute()
    deps.set_etag(response, record.revision)
    return record


@router.delete("/users/{name}", status_code=204)
async def delete_user(
    name: str, here: PlatformDep, actor: ActorDep, expected: ExpectedDep
) -> Response:
    """Remove a user with their tokens, and the group of the same name if it has no services."""
    await here.store.transact(partial(users.delete, actor=actor, name=name, expected=expected))
    await here.reroute()
    return Response(status_code=204)
