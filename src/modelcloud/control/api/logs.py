"""The deployment log of a service and the application log of each version, read and followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import msgspec
from fastapi import Depends, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from modelcloud.control.access.permissions import Actor
from modelcloud.control.api import deps, following
from modelcloud.control.api.deps import PlatformDep, RowId
from modelcloud.control.api.following import PING_S, SEND_S, Follower, FollowerDep
from modelcloud.control.common.records import Record
from modelcloud.control.deployments.deployments import service_of
from modelcloud.control.observe import log_files
from modelcloud.control.observe.log_files import BEGINNING, MOST_LINES, Filter, Page
from modelcloud.control.observe.metrics import require_version
from modelcloud.control.state import PlatformState
from modelcloud.errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

router = deps.router("logs")

Cursor = Annotated[str | None, Query(max_length=64, description="of an earlier answer")]


class LineRecord(Record):
    """One line.

    Attributes:
        at: when, ISO 8601 in UTC; empty where it is not known.
        source: `w3 g1` (worker 3 of generation 1), `rollout 7` or the like; empty when unknown.
    """

    at: str
    source: str
    text: str


class LogPage(Record):
    """Some lines, the oldest first.

    Attributes:
        before: the cursor of what comes before; None where nothing does.
        after: the cursor of what comes after, now or later; None where there is no log yet.
    """

    lines: list[LineRecord]
    before: str | None
    after: str | None


class Asked(NamedTuple):
    """Which lines are asked for."""

    lines: int
    before: str | None
    after: str | None
    only: Filter
    follow: bool


def _asked(
    lines: Annotated[int, Query(ge=1, le=MOST_LINES)] = 200,
    before: Cursor = None,
    after: Cursor = None,
    replica: Annotated[int | None, Query(description="only lines of this worker")] = None,
    q: Annotated[str, Query(max_length=200, description="only lines that contain this")] = "",
    follow: Annotated[bool, Query(description="the lines as events, then those to come")] = False,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Asked:
    if follow and before is not None:
        raise InvalidInput("before", "a cursor", "none together with `follow`")
    # A client whose connection broke goes on where it was.
    return Asked(lines, before, last_event_id or after, Filter(q=q, replica=replica), follow)


AskedDep = Annotated[Asked, Depends(_asked)]
#: Returns if an actor may read a log.
Admit: TypeAlias = Callable[[Actor], Awaitable[None]]


@router.get("/services/{service}/logs", response_model=LogPage)
async def get_deployment_log(
    service: str, here: PlatformDep, follower: FollowerDep, asked: AskedDep
) -> Response | LogPage:
    """Every step of every rollout; with `follow`, events `line` without end."""
    admit = _admit(here, service, None)
    await admit(follower.actor)
    return await _answer(path_of(here, service, None), asked, follower, admit)


@router.get("/services/{service}/versions/{version}/logs", response_model=LogPage)
async def get_application_log(
    service: str, version: RowId, here: PlatformDep, follower: FollowerDep, asked: AskedDep
) -> Response | LogPage:
    """What the workers of a version wrote; with `follow`, events `line` without end."""
    admit = _admit(here, service, version)
    await admit(follower.actor)
    return await _answer(path_of(here, service, version), asked, follower, admit)


def path_of(here: PlatformState, service: str, version: int | None) -> Path:
    """Where a log is: of a version, or (None) the deployment log."""
    if version is None:
        return log_files.deployment_log(here.service_logs, service)
    return log_files.version_log(here.service_logs, service, version)


async def check_readable(
    here: PlatformState, actor: Actor, service: str, version: int | None
) -> None:
    """Return if the actor may read a log.

    Raises:
        NotFound: no such service or version that the actor may see.
    """
    await here.store.read(partial(_readable, actor, service, version))


async def read_log(
    here: PlatformState, actor: Actor, service: str, version: int | None, asked: Asked
) -> LogPage:
    """Some lines of a log. Raises as `check_readable` does."""
    await check_readable(here, actor, service, version)
    return _shown(await _read(path_of(here, service, version), asked))


def _admit(here: PlatformState, service: str, version: int | None) -> Admit:
    async def admit(actor: Actor) -> None:
        await check_readable(here, actor, service, version)

    return admit


def _readable(actor: Actor, service: str, version: int | None, tx: Session) -> None:
    found = service_of(tx, actor, service)
    if version is not None:
        require_version(tx, found, version)


async def _answer(path: Path, asked: Asked, follower: Follower, admit: Admit) -> Response | LogPage:
    if asked.follow:
        follower.check()
    page = await _read(path, asked)
    if asked.follow:
        events = _events(path, page, asked.only, follower, admit)
        return EventSourceResponse(events, ping=PING_S, send_timeout=SEND_S)
    return _shown(page)


async def _read(path: Path, asked: Asked) -> Page:
    return await asyncio.to_thread(
        log_files.read, path, asked.lines, before=asked.before, after=asked.after, only=asked.only
    )


def _shown(page: Page) -> LogPage:
    return LogPage(
        lines=[LineRecord(at=at, source=source, text=text) for at, source, text in page.lines],
        before=page.before,
        after=page.after,
    )


async def _events(
    path: Path, page: Page, only: Filter, follower: Follower, admit: Admit
) -> AsyncIterator[ServerSentEvent]:
    with follower.place():
        for event in _lines(page):
            yield event
        loop = asyncio.get_running_loop()
        every_s = following.CHECK_S
        check_at = loop.time() + every_s
        pages = log_files.follow(path, page.after or BEGINNING, only, heartbeat_s=every_s)
        async for more in pages:
            if loop.time() >= check_at:
                if not await follower.may_go_on(admit):
                    return
                check_at = loop.time() + every_s
            for event in _lines(more):
                yield event


def _lines(page: Page) -> list[ServerSentEvent]:
    """An event for each line; the last has the cursor of what comes after it as its id."""
    last = len(page.lines) - 1
    return [
        ServerSentEvent(
            msgspec.json.encode(line._asdict()).decode(),
            event="line",
            id=page.after if number == last else None,
        )
        for number, line in enumerate(page.lines)
    ]
