"""Signing in and out, who one is, and one's own password.

Must never: decide; `control.access.auth` does.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Response
from pydantic import Field

from modelcloud.control.access import auth
from modelcloud.control.access.auth import Account, SignedIn
from modelcloud.control.access.passwords import LONGEST
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, AuthDep, PeerDep, PlatformDep
from modelcloud.control.common.records import Body

router = deps.router("session")

Password = Annotated[str, Field(max_length=LONGEST)]


class SignIn(Body):
    """A user's name and password."""

    user: Annotated[str, Field(max_length=100)]
    password: Password


class NewPassword(Body):
    """One's password, and the one to have instead."""

    current: Password
    new: Password


@router.post("/session", status_code=201)
async def sign_in(body: SignIn, doors: AuthDep, peer: PeerDep) -> SignedIn:
    """Sign in; the token goes into `Authorization: Bearer TOKEN` and ends after 12 hours."""
    return await doors.sign_in(body.user, body.password, peer)


@router.get("/session")
async def who_am_i(here: PlatformDep, actor: ActorDep) -> Account:
    """Who one is, and the level on each group, as far as the presented token opens it."""
    return await here.store.read(partial(auth.account, actor=actor))


@router.delete("/session", status_code=204)
async def sign_out(here: PlatformDep, actor: ActorDep) -> Response:
    """End the session whose token is presented."""
    await here.store.transact(partial(auth.sign_out, actor=actor))
    return Response(status_code=204)


@router.put("/session/password", status_code=204)
async def change_password(body: NewPassword, doors: AuthDep, actor: ActorDep) -> Response:
    """Set one's own password; one's other sessions end."""
    await doors.change_password(actor, body.current, body.new)
    return Response(status_code=204)
