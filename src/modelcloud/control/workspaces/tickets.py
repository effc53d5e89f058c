"""How a browser gets from the platform's pages into a workspace, which is another origin.

A ticket opens one workspace, once, within a minute. Whoever presents it gets a cookie of that
workspace, which opens it for as long as the session or token that asked for the ticket lasts.

Must never: keep what a browser presents, or let a ticket be used again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

TICKET_S = 60.0
#: Of one workspace at a time; the oldest goes when one more comes.
MOST = 20


class Grant(NamedTuple):
    """What a ticket, or the cookie it became, opens.

    Attributes:
        workspace: id of the workspace.
        token_id: of the session or token that it was asked for with.
        expires_at: of a ticket, on the monotonic clock; of a cookie it means nothing.
    """

    workspace: str
    token_id: int
    expires_at: float


class Tickets:
    """Those of all workspaces. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tickets: OrderedDict[str, Grant] = OrderedDict()
        self._cookies: OrderedDict[str, Grant] = OrderedDict()

    def issue(self, workspace: str, token_id: int) -> str:
        """A new ticket."""
        grant = Grant(workspace, token_id, self._clock() + TICKET_S)
        return _keep(self._tickets, grant)

    def redeem(self, workspace: str, ticket: str) -> str | None:
        """The cookie that a ticket of this workspace becomes; None: it is none, or was used."""
        grant = self._tickets.pop(_digest(ticket), None)
        if grant is None or grant.workspace != workspace or self._clock() > grant.expires_at:
            return None
        return _keep(self._cookies, grant)

    def opened(self, workspace: str, cookie: str) -> int | None:
        """The id of the token by which a cookie opens this workspace; None: it does not."""
        grant = self._cookies.get(_digest(cookie))
        return grant.token_id if grant is not None and grant.workspace == workspace else None

    def forget(self, workspace: str) -> None:
        """Nothing opens this workspace any more."""
        for kept in (self._tickets, self._cookies):
            for key in [key for key, grant in kept.items() if grant.workspace == workspace]:
                del kept[key]


def _keep(kept: OrderedDict[str, Grant], grant: Grant) -> str:
    same = [key for key, other in kept.items() if other.workspace == grant.workspace]
    for key in same[: max(0, len(same) - MOST + 1)]:
        del kept[key]
    secret = secrets.token_urlsafe(32)
    kept[_digest(secret)] = grant
    return secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
