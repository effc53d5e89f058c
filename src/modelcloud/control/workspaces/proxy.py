"""The address of workspaces: an origin of its own, behind which each lab has a path.

What runs in a notebook's page runs as this origin, and so with none of the rights of the
platform's pages: it cannot read them, and what it sends them is refused as another origin's.

Must never: pass on what is not of the workspace's own user, signed in now, from a page of this
origin; or wait without a deadline, or hold more of a body than one part.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import logging
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from modelcloud.control.access.auth import holders
from modelcloud.control.access.permissions import Action, allowed
from modelcloud.control.state import PlatformState
from modelcloud.control.web import hosts
from modelcloud.control.workspaces import forwarding
from modelcloud.control.workspaces.sockets import pump
from modelcloud.control.workspaces.workspaces import Workspace, Workspaces
from modelcloud.errors import (
    Forbidden,
    ModelcloudError,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)
from modelcloud.store.tables import Token
from modelcloud.waiting import within
from modelcloud.workspaces.enter import MAX_MESSAGE

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)

#: Of one workspace at a time: requests and websockets.
MOST = 100
#: For the next part of a body; for a lab to begin its answer, and to go on with it.
BODY_S, ANSWER_S = 30.0, 120.0
#: From a request to the head of its answer, however its body, or the head, comes in pieces.
BEGIN_S = 600.0
#: Between two looks at whether a websocket's user may still be there.
RECHECK_S = 5.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_TIMEOUT = {"connect": 5.0, "read": ANSWER_S, "write": BODY_S, "pool": 5.0}


class Proxy:
    """The ASGI application at that address."""

    def __init__(self, state: PlatformState, workspaces: Workspaces) -> None:
        self._state = state
        self._config = state.config
        self._workspaces = workspaces
        known = urlsplit(state.config.workspace_url).hostname
        self._allowed = (*state.config.allowed_hosts, *([known] if known else []))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            started = False

            async def send_once(message: Message) -> None:
                nonlocal started
                started = True
                await send(message)

            try:
                await self._http(scope, receive, send_once)
            except ModelcloudError as error:
                if not started:
                    await _refusal(error)(scope, receive, send)
            except (httpx.HTTPError, asyncio.TimeoutError, OSError):
                if started:
                    raise  # the answer is cut short, which the browser is to see
                await PlainTextResponse("the workspace does not answer", 502)(scope, receive, send)

    # ---- who may

    async def _admit(self, scope: Scope, *, navigates: bool) -> tuple[Workspace, str]:
        """The workspace that is asked, and the rest of the path.

        Raises:
            ModelcloudError: it goes no further.
        """
        headers = _headers_of(scope)
        self._check_origin(headers, navigates=navigates)
        found = forwarding.split(scope["path"])
        workspace = self._workspaces.by_id(found[0]) if found else None
        if workspace is None or found is None:
            raise NotFound("no workspace runs at this address; open yours from the platform's page")
        if found[1] == "enter":
            return workspace, found[1]
        if not await self._may(workspace, _cookie(headers)):
            raise Unauthorized("open this workspace from the platform's page Workspace")
        if not workspace.ready:
            raise NotFound("this workspace has been stopped")
        return workspace, found[1]

    async def _may(self, workspace: Workspace, cookie: str) -> bool:
        """Whether who has this cookie is signed in still, and may work in the workspace."""
        token_id = self._workspaces.tickets.opened(workspace.id, cookie)
        if token_id is None:
            return False
        now = self._state.wall()
        found = await self._state.store.read(lambda tx: holders(tx, now, Token.id == token_id))
        return any(
            one.actor.user_id == workspace.user_id
            and not one.actor.must_change_password
            and allowed(one.actor, Action.WORKSPACE, workspace.resource)
            for one in found
        )

    def _check_origin(self, headers: dict[str, tuple[str, ...]], *, navigates: bool) -> None:
        refused = hosts.refusal(
            headers,
            bound=self._config.control_host,
            allowed=self._allowed,
            navigable=navigates,
        )
        if refused is not None:
            raise refused

    # ---- requests

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers_of(scope)
        reads = scope["method"] in {"GET", "HEAD"}
        navigates = reads and "navigate" in headers.get("sec-fetch-mode", ())
        workspace, rest = await self._admit(scope, navigates=navigates)
        if rest == "enter":
            await self._enter(workspace, scope, headers)(scope, receive, send)
            return
        if scope["method"] not in _METHODS:
            await Response(status_code=405)(scope, receive, send)
            return
        with _counted(workspace):
            await self._forward(workspace, scope, receive, send)

    def _enter(
        self, workspace: Workspace, scope: Scope, headers: dict[str, tuple[str, ...]]
    ) -> Response:
        """A ticket becomes a cookie; the page goes on by itself, so that the cookie comes along."""
        elsewhere = "cross-site" in headers.get("sec-fetch-site", ())
        if elsewhere and not self._config.workspace_url:
            raise Forbidden("open the workspace from the platform's page Workspace")
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=5)
        cookie = self._workspaces.tickets.redeem(workspace.id, query.get("ticket", [""])[0])
        if cookie is None:
            raise Unauthorized(
                "this link was used before or is too old; open the workspace from the platform's "
                "page Workspace"
            )
        to = html.escape(f"{workspace.base}lab")
        page = (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Workspace</title>'
            f'<meta http-equiv="refresh" content="0;url={to}"></head>'
            f'<body><a href="{to}">Workspace</a></body></html>'
        )
        answer = HTMLResponse(page, headers={"cache-control": "no-store", **_STRICT})
        secure = self._config.workspace_url.startswith("https:")
        made = forwarding.set_cookie(workspace.base, cookie, secure=secure)
        answer.raw_headers.append((b"set-cookie", made))
        return answer

    async def _forward(
        self, workspace: Workspace, scope: Scope, receive: Receive, send: Send
    ) -> None:
        assert workspace.process is not None
        lab = workspace.process.lab
        url = httpx.URL(scheme="http", host="localhost", raw_path=_raw_path(scope))
        headers = forwarding.to_lab(scope["headers"], lab.token)
        has_body = scope["method"] not in {"GET", "HEAD"}
        request = httpx.Request(
            scope["method"],
            url,
            headers=headers,
            content=_body(receive) if has_body else None,
            extensions={"timeout": _TIMEOUT},
        )
        async with httpx.AsyncHTTPTransport(uds=lab.socket) as transport:
            answer = await within(transport.handle_async_request(request), BEGIN_S)
            assert isinstance(answer.stream, httpx.AsyncByteStream)
            gone = asyncio.create_task(_until_gone(receive))
            try:
                await send(
                    {
                        "type": "http.response.start",
                        "status": answer.status_code,
                        "headers": forwarding.to_browser(answer.headers.raw),
                    }
                )
                async for part in answer.stream:
                    if gone.done():
                        break
                    await within(
                        send({"type": "http.response.body", "body": part, "more_body": True}),
                        ANSWER_S,
                    )
                await send({"type": "http.response.body", "body": b""})
            finally:
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                await answer.aclose()

    # ---- websockets

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            workspace = await self._admit_socket(scope)
            assert workspace.process is not None
            lab = workspace.process.lab
            with _counted(workspace):
                cookie = _cookie(_headers_of(scope))
                watching = asyncio.create_task(self._until_refused(workspace, cookie))
                try:
                    await pump(
                        lab.socket,
                        _raw_path(scope).decode("latin-1"),
                        lab.token,
                        scope,
                        receive,
                        send,
                        watching,
                    )
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except ModelcloudError:
            with contextlib.suppress(RuntimeError):
                await send({"type": "websocket.close", "code": 1008})
        except Exception:
            log.exception("a websocket of a workspace failed")

    async def _admit_socket(self, scope: Scope) -> Workspace:
        """Likewise; without an origin it is no page's."""
        if not _headers_of(scope).get("origin"):
            raise Forbidden("a page of this origin opens websockets, and nothing else")
        workspace, rest = await self._admit(scope, navigates=False)
        if rest == "enter":
            raise NotFound("no websocket is here")
        return workspace

    async def _until_refused(self, workspace: Workspace, cookie: str) -> None:
        """Return once who opened it may not go on, or it has been stopped."""
        while True:
            await asyncio.sleep(RECHECK_S)
            with contextlib.suppress(ModelcloudError):  # a store that is away says nothing
                if not workspace.ready or not await self._may(workspace, cookie):
                    return


_STRICT = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def _refusal(error: ModelcloudError) -> Response:
    return PlainTextResponse(error.message, error.status, headers=_STRICT)


@contextlib.contextmanager
def _counted(workspace: Workspace) -> Iterator[None]:
    if workspace.connections >= MOST:
        raise TooManyRequests(f"{MOST} requests to this workspace are under way")
    workspace.connections += 1
    try:
        yield
    finally:
        workspace.connections -= 1


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """A request's body, part by part."""
    size = 0
    while True:
        message = await within(receive(), BODY_S)
        if message["type"] == "http.disconnect":
            raise httpx.ReadError("the browser went away")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_MESSAGE:
            raise TooLarge(f"body: accepted up to {MAX_MESSAGE} bytes")
        if part:
            yield part
        if not message.get("more_body"):
            return


async def _until_gone(receive: Receive) -> None:
    """Return once the browser has gone away; what it had asked for is read by then."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _raw_path(scope: Scope) -> bytes:
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return path.partition(b"?")[0] + (b"?" + query if query else b"")


def _headers_of(scope: Scope) -> dict[str, tuple[str, ...]]:
    headers: dict[str, tuple[str, ...]] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        headers[name] = (*headers.get(name, ()), raw_value.decode("latin-1"))
    return headers


def _cookie(headers: dict[str, tuple[str, ...]]) -> str:
    """The value of the workspace's cookie; of several, the one with the longest path is first."""
    for value in headers.get("cookie", ()):
        for part in value.split(";"):
            name, _, found = part.strip().partition("=")
            if name == forwarding.COOKIE:
                return found
    return ""
