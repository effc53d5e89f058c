"""What one browser asks of the platform: the functions that answer the API, called as they are.

So a page may do exactly what the API lets the same user do, with the same errors.

Must never: keep who asks; a session that ended, or a level that was taken away, counts at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from fastapi import Response
from fastapi.params import Depends

from modelcloud.control.access import audit
from modelcloud.control.access.auth import Auth
from modelcloud.control.access.permissions import Actor, Refused
from modelcloud.control.api import deps
from modelcloud.control.common.idempotency import Once
from modelcloud.control.common.paging import Page
from modelcloud.control.common.revisions import Expected, etag
from modelcloud.control.state import PlatformState
from modelcloud.errors import Forbidden, Unauthorized

T = TypeVar("T")


class Asks:
    """A browser's session.

    Attributes:
        state: the platform.
        auth: who knows tokens.
        token: of the session, as the cookie has it.
        peer: the address that it comes from.
    """

    def __init__(self, state: PlatformState, auth: Auth, token: str, peer: str) -> None:
        self.state = state
        self.auth = auth
        self.token = token
        self.peer = peer

    async def actor(self) -> Actor:
        """Who asks, as things are now.

        Raises:
            Unauthorized: the session has ended.
            Forbidden: the password is to be changed first.
        """
        found = await self.auth.actor(self.token, self.peer)
        if not found.session:
            raise Unauthorized("this needs a session; sign in again")
        if found.must_change_password:
            raise Forbidden("change your password first")
        return found

    async def call(
        self,
        function: Callable[..., Awaitable[T]],
        *,
        on: int | None = None,
        page: Page = Page(),  # noqa: B008 — a constant
        **arguments: Any,
    ) -> T:
        """Call a function that answers the API.

        Args:
            function: of `control.api`.
            on: the revision that an edit is made on; None: whatever stands.
            page: of a list.
            arguments: what the function takes from path, query and body.
        """
        actor = await self.actor()
        given: dict[Any, Callable[[], Any]] = {
            deps.platform: lambda: self.state,
            deps.auth: lambda: self.auth,
            deps.actor: lambda: actor,
            deps.peer: lambda: self.peer,
            deps.page: lambda: page,
            deps.expected: lambda: Expected(None if on is None else etag(on)),
            deps.once: lambda: Once(actor.user_id, None, ""),
            Response: Response,
        }
        needed = {name: given[what]() for name, what in _needs(function).items()}
        try:
            return await function(**needed, **arguments)
        except Refused as refused:
            await audit.keep_refused(self.state.store, refused)
            raise


@cache
def _needs(function: Callable[..., Any]) -> dict[str, Any]:
    """Name of a parameter → what FastAPI would hand in for it."""
    found: dict[str, Any] = {}
    hints = get_type_hints(function, include_extras=True)
    for name in inspect.signature(function).parameters:
        hint = hints[name]
        if hint is Response:
            found[name] = Response
        elif get_origin(hint) is Annotated:
            for extra in get_args(hint)[1:]:
                if isinstance(extra, Depends):
                    found[name] = extra.dependency
    return found
