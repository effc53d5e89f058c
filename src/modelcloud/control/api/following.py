"""Who follows a stream of events: for as long as they may, and only so many at a time.

Must never: know what is followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request

from modelcloud.control.access.permissions import Actor
from modelcloud.control.api.deps import ActorDep, AuthDep
from modelcloud.errors import ModelcloudError, Overloaded, StoreUnavailable, TooManyRequests

#: Open at a time, in all and of one user: nobody takes every place.
MOST_STREAMS, OF_ONE = 200, 50
#: A comment comes this often where no event does, so that nobody between takes it for dead.
PING_S = 10
#: For a client that follows to take what was sent.
SEND_S = 60.0
#: Followed only while its reader may: asked again this often.
CHECK_S = 10.0


class Streams:
    """Those that are open."""

    def __init__(self) -> None:
        self._open: Counter[int] = Counter()

    def check(self, user_id: int) -> None:
        """Return if the user may open one more.

        Raises:
            Overloaded, TooManyRequests: there are too many, of all or of this user.
        """
        if self._open.total() >= MOST_STREAMS:
            raise Overloaded(f"{MOST_STREAMS} streams are followed already; try again later")
        if self._open[user_id] >= OF_ONE:
            raise TooManyRequests(f"you follow {OF_ONE} streams already; close some of them")

    @contextmanager
    def held(self, user_id: int) -> Iterator[None]:
        """One is open."""
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            self._open += Counter()  # without those of none


class Follower:
    """Who asks for a stream; a dependency of routers.

    Attributes:
        actor: who it is, by its token as it was last looked at.
    """

    def __init__(self, request: Request, actor: ActorDep, auth: AuthDep) -> None:
        self.actor: Actor = actor
        self._auth = auth
        self._token = request.headers.get("authorization", "").partition(" ")[2].strip()
        self._streams: Streams = request.app.state.streams

    def check(self) -> None:
        """Return if there is a place left. Raises as `Streams.check` does."""
        self._streams.check(self.actor.user_id)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take it."""
        with self._streams.held(self.actor.user_id):
            yield

    async def may_go_on(self, admit: Callable[[Actor], Awaitable[object]]) -> bool:
        """Whether the token is still valid and `admit` raises nothing, as far as one can tell."""
        try:
            self.actor = await self._auth.actor(self._token, self.actor.peer)
            await admit(self.actor)
        except StoreUnavailable:
            return True
        except ModelcloudError:
            return False
        return True


FollowerDep = Annotated[Follower, Depends(Follower)]
