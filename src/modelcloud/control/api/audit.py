"""The audit log.

Must never: offer a way to change it.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from modelcloud.control.access import audit
from modelcloud.control.access.audit import Entry, Filter
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, PageDep, PlatformDep
from modelcloud.control.common.records import Listing

router = deps.router("audit")


@router.get("/audit")
async def list_entries(
    here: PlatformDep,
    asks: ActorDep,
    page: PageDep,
    actor: str | None = None,
    action: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    group: str | None = None,
    peer: str | None = None,
    outcome: Literal["ok", "refused", "failed"] | None = None,
    since: deps.TimeParam | None = None,
    until: deps.TimeParam | None = None,
) -> Listing[Entry]:
    """Who did what to which object, newest first.

    Administrators see all of it; who manages a group sees what was done in it (`group`).
    """
    wanted = Filter(
        actor=actor, action=action, kind=kind, name=name, group=group, peer=peer,
        outcome=outcome, since=since, until=until,
    )  # fmt: skip
    return await here.store.read(partial(audit.entries, actor=asks, wanted=wanted, page=page))
