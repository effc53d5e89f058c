"""What routers ask for: the platform, who asks, the page of a list, the revision an edit is on.

A router is made by `router(noun)`, and takes what it needs by the `…Dep` types below.

Must never: hold a rule of a noun.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import AllowInfNan, BeforeValidator, WithJsonSchema

from modelcloud.codecs.native import check_names
from modelcloud.control.access.auth import Auth
from modelcloud.control.access.permissions import Actor
from modelcloud.control.common.idempotency import Answer, InProgress, Once, fingerprint
from modelcloud.control.common.paging import DEFAULT_LIMIT, MAX_LIMIT, Page
from modelcloud.control.common.revisions import Expected, etag
from modelcloud.control.state import PlatformState
from modelcloud.control.web.problems import LONGEST_FIELD
from modelcloud.errors import InvalidInput, Unauthorized, UnsupportedMedia, UsageError

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

#: Where all routers stand.
PREFIX = "/api/v1"


class Replay(Exception):
    """The request was answered before; the answer is sent again."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def platform(request: Request) -> PlatformState:
    """The platform."""
    state: PlatformState = request.app.state.platform
    return state


def auth(request: Request) -> Auth:
    """Who signs people in and knows tokens."""
    found: Auth = request.app.state.auth
    return found


def actor(request: Request) -> Actor:
    """Who asks; the gate has found out.

    Raises:
        Unauthorized: nobody who is signed in.
    """
    found: Actor | None = getattr(request.state, "actor", None)
    if found is None:
        raise Unauthorized("sign in first: POST /api/v1/session")
    return found


def peer(request: Request) -> str:
    """The address that the request came from."""
    return request.client.host if request.client else ""


def page(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="at most this many")] = (
        DEFAULT_LIMIT
    ),
    cursor: Annotated[str | None, Query(description="`next` of the page before")] = None,
) -> Page:
    """Which part of a list is asked for."""
    return Page(limit, cursor)


def expected(
    if_match: Annotated[
        str | None, Header(description="the ETag that the edit is made on; else 412")
    ] = None,
) -> Expected:
    """The revisions that the edit is made on: `expected.check(row.revision, "service x")`."""
    return Expected(if_match)


async def once(
    request: Request,
    asks: Annotated[Actor, Depends(actor)],
    here: Annotated[PlatformState, Depends(platform)],
    idempotency_key: Annotated[
        str | None, Header(description="the same key and request get the same answer for a day")
    ] = None,
) -> AsyncIterator[Once]:
    """For what creates something: `await store.transact(once.around(work, status))`.

    `work` returns a `Record`, which is the answer. When the request was answered before, the
    router is not reached.
    """
    body = b"" if idempotency_key is None else await request.body()
    asked = fingerprint(request.method, request.url.path, request.scope["query_string"], body)
    this = Once(asks.user_id, idempotency_key, asked)
    in_progress: InProgress = request.app.state.in_progress
    with in_progress.hold(this):
        if idempotency_key is not None:
            answer = await here.store.read(this.earlier)
            if answer is not None:
                raise Replay(answer)
        yield this


PlatformDep = Annotated[PlatformState, Depends(platform)]
AuthDep = Annotated[Auth, Depends(auth)]
ActorDep = Annotated[Actor, Depends(actor)]
PeerDep = Annotated[str, Depends(peer)]
PageDep = Annotated[Page, Depends(page)]
ExpectedDep = Annotated[Expected, Depends(expected)]
OnceDep = Annotated[Once, Depends(once)]


#: The id of a row in a path; larger ones stand for nothing.
RowId = Annotated[int, Path(ge=1, lt=2**31)]


def _seconds(value: str) -> float:
    """Seconds since the epoch, from ISO 8601 (without an offset: UTC) or from seconds."""
    try:
        return float(value)
    except ValueError:
        pass
    moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


#: A time in a query, as seconds since the epoch once it is read.
TimeParam = Annotated[
    float,
    BeforeValidator(_seconds),
    AllowInfNan(allow_inf_nan=False),
    WithJsonSchema({"type": "string", "description": "ISO 8601, or seconds since the epoch"}),
]


def set_etag(response: Response, revision: int) -> None:
    """Name the revision that an answer shows."""
    response.headers["etag"] = etag(revision)


def router(noun: str, prefix: str = PREFIX) -> APIRouter:
    """A router of the API, its paths below `prefix`."""
    return APIRouter(prefix=prefix, tags=[noun], route_class=_Route)


#: Of a body; none has as many. Each unknown one is an error to be told.
MOST_FIELDS = 100


class _Request(Request):
    """Reads JSON as RFC 8259 has it: no NaN, no depth without end; and no name twice."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            found = msgspec.json.decode(body)
            check_names(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPException(400, f"body: not JSON: {error}") from None
        except UsageError as error:
            raise HTTPException(400, error.message) from None
        except RecursionError:
            raise HTTPException(400, "body: not JSON: nested too deeply") from None
        if isinstance(found, dict) and len(found) > MOST_FIELDS:
            raise HTTPException(400, f"body: {len(found)} fields; accepted: up to {MOST_FIELDS}")
        return found


class _Route(APIRoute):
    """Refuses what it does not know, in the query as in the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = _query_of(self.dependant)
        takes_json = bool(self.dependant.body_params)

        async def handle_strictly(request: Request) -> Response:
            for name in request.query_params:
                if name not in known:
                    raise InvalidInput(
                        "query", repr(name[:LONGEST_FIELD]), ", ".join(sorted(known)) or "none"
                    )
            asked = _Request(request.scope, request.receive)
            if takes_json and await asked.body():
                _check_is_json(request.headers.get("content-type", ""))
            return await handle(asked)

        return handle_strictly


def _query_of(dependant: Dependant) -> frozenset[str]:
    """The query parameters of an operation and of what it depends on."""
    own = frozenset(field.alias for field in dependant.query_params)
    return own.union(*map(_query_of, dependant.dependencies))


def _check_is_json(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    main, _, sub = kind.partition("/")
    if main != "application" or not (sub == "json" or sub.endswith("+json")):
        raise UnsupportedMedia(
            f"content-type: got {kind[:60] or 'none'}; accepted: application/json"
        )
