"""Tokens, of one's own.

Must never: decide; `control.access.tokens` does.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Response
from pydantic import Field

from modelcloud.control.access import tokens
from modelcloud.control.access.tokens import CreatedToken, TokenLevel, TokenRecord
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, PageDep, PlatformDep
from modelcloud.control.common.records import Body, Listing

router = deps.router("tokens")

_TEN_YEARS_S = 10 * 366 * 24 * 3600


class NewToken(Body):
    """A token to make.

    Attributes:
        name: what it is for.
        level: it opens no more than this, and never more than the user may do.
        group: the only group that it opens; left out: all of the user's.
        expires_in_s: left out: it does not expire.
    """

    name: Annotated[str, Field(max_length=100)] = ""
    level: TokenLevel
    group: str | None = None
    expires_in_s: Annotated[float, Field(ge=1, le=_TEN_YEARS_S)] | None = None


@router.get("/tokens")
async def list_tokens(
    here: PlatformDep, actor: ActorDep, page: PageDep, user: str | None = None
) -> Listing[TokenRecord]:
    """One's own tokens and sessions, newest first; for administrators also those of `user`."""
    return await here.store.read(partial(tokens.listing, actor=actor, user=user, page=page))


@router.post("/tokens", status_code=201)
async def create_token(body: NewToken, here: PlatformDep, actor: ActorDep) -> CreatedToken:
    """Make a token; the answer shows it this once."""
    created = await here.store.transact(
        partial(
            tokens.create,
            actor=actor,
            name=body.name,
            level=body.level,
            group=body.group,
            expires_in_s=body.expires_in_s,
        )
    )
    await here.reroute()
    return created


@router.delete("/tokens/{token_id}", status_code=204)
async def revoke_token(token_id: deps.RowId, here: PlatformDep, actor: ActorDep) -> Response:
    """Revoke a token or a session; it opens nothing from now on."""
    await here.store.transact(partial(tokens.revoke, actor=actor, token_id=token_id))
    await here.reroute()
    return Response(status_code=204)
