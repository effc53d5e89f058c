"""Rollouts: what took, or takes, a deployment from one generation to the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from sse_starlette import EventSourceResponse, ServerSentEvent

from modelcloud.control.access.permissions import Actor
from modelcloud.control.api import deps, following
from modelcloud.control.api.deps import ActorDep, PageDep, PlatformDep
from modelcloud.control.api.following import PING_S, SEND_S, Follower, FollowerDep
from modelcloud.control.common.records import Listing
from modelcloud.control.deployments import rollouts
from modelcloud.control.deployments.rollouts import RolloutRecord
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.state import PlatformState
from modelcloud.errors import ModelcloudError
from modelcloud.waiting import within

router = deps.router("rollouts")


@router.get("/rollouts")
async def list_rollouts(
    here: PlatformDep,
    actor: ActorDep,
    page: PageDep,
    service: str | None = None,
    state: str | None = None,
) -> Listing[RolloutRecord]:
    """The rollouts of the services one may read, newest first."""
    stored = await here.store.read(
        partial(rollouts.listing, actor=actor, page=page, service=service, state=state)
    )
    live = here.part(Reconcilers).live.rollout
    return Listing(items=[live(record) for record in stored.items], next=stored.next)


@router.get("/rollouts/{rollout}")
async def get_rollout(rollout: deps.RowId, here: PlatformDep, actor: ActorDep) -> RolloutRecord:
    """One of them, with its log."""
    stored = await here.store.read(partial(rollouts.find, actor=actor, rollout_id=rollout))
    return here.part(Reconcilers).live.rollout(stored)


@router.get("/rollouts/{rollout}/events", response_class=EventSourceResponse)
async def follow_rollout(
    rollout: deps.RowId, here: PlatformDep, follower: FollowerDep
) -> EventSourceResponse:
    """Server-sent events `rollout`, each its record, at every change until it has ended."""
    follower.check()
    first = await here.store.read(partial(rollouts.find, actor=follower.actor, rollout_id=rollout))
    events = _events(first, here, follower)
    return EventSourceResponse(events, ping=PING_S, send_timeout=SEND_S)


async def _events(
    stored: RolloutRecord, here: PlatformState, follower: Follower
) -> AsyncIterator[ServerSentEvent]:
    async def find(actor: Actor) -> RolloutRecord:
        return await here.store.read(partial(rollouts.find, actor=actor, rollout_id=stored.id))

    reconcilers = here.part(Reconcilers)
    last = None
    loop = asyncio.get_running_loop()
    check_at = loop.time() + following.CHECK_S
    with follower.place(), reconcilers.changes.followed() as changed:
        while True:
            now = reconcilers.live.rollout(stored)
            if now == stored:  # no reconciler knows it: it could not begin, or ended long ago
                try:
                    now = stored = await find(follower.actor)
                except ModelcloudError:
                    return  # deleted with its service, or the store is away: ask again
            if now != last:
                last = now
                yield ServerSentEvent(event="rollout", data=now.model_dump_json())
            if now.finished:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await within(changed(), max(0.0, check_at - loop.time()))
            if loop.time() >= check_at:
                if not await follower.may_go_on(find):
                    return
                check_at = loop.time() + following.CHECK_S
