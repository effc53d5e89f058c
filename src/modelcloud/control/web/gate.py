"""What every request passes before it is routed: its Host, its token, the size of its body.

Deny by default: a path that is not in the short list below needs a token, whether or not anything
stands there and whatever the method. What is compared is the very path that is routed by.

The API takes its token from `Authorization` alone, so that no page of another site can use it. The
pages of a site beside it take theirs from a cookie alone, and from no other origin.

Must never: let an exception out, or an answer without the headers that keep browsers from harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from modelcloud.control.access.permissions import Actor
from modelcloud.control.common.peers import HEADER, Proxies
from modelcloud.control.web import browser, hosts, problems
from modelcloud.errors import Forbidden, ModelcloudError, TooLarge, Unauthorized, UsageError
from modelcloud.waiting import within

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from modelcloud.control.access.auth import Auth
    from modelcloud.control.state import PlatformState
    from modelcloud.control.web.browser import Site

Headers = Mapping[str, tuple[str, ...]]

log = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024
#: From the head of a request to the end of its body.
BODY_S = 30.0

SESSION = "/api/v1/session"
#: Answered without a token, to GET only.
PUBLIC_PAGES = frozenset({
    "/", "/healthz", "/readyz", "/api/v1/openapi.json", "/api/docs", "/api/docs/init.js",
    "/api/docs/swagger-ui.css", "/api/docs/swagger-ui-bundle.js",
})  # fmt: skip
#: All that is open to who must change the password first.
_BEFORE_PASSWORD = frozenset({SESSION, f"{SESSION}/password"})
#: Takes more than `MAX_BODY`, and counts for itself.
_UPLOADS = "/api/v1/uploads"

_READS = frozenset({"GET", "HEAD"})
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Elsewhere(Exception):
    """A browser is to go to another page first."""

    def __init__(self, address: str) -> None:
        self.address = address


class Gate:
    """The outermost layer of the application.

    Args:
        app: what is behind it.
        state: the platform.
        auth: who knows tokens.
        site: pages for browsers, if there are any.
    """

    def __init__(
        self, app: ASGIApp, *, state: PlatformState, auth: Auth, site: Site | None = None
    ) -> None:
        self._app = app
        self._config = state.config
        self._proxies = Proxies(state.config.trusted_proxies)
        self._auth = auth
        self._site = site
        self._large = {_UPLOADS} | (site.uploads if site else frozenset())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one connection through, or answer it here."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        head = scope["method"] == "HEAD"

        async def send_safely(message: Message) -> None:
            nonlocal started
            if head and started:
                return  # it has ended, and a stream would not
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)
            if head:
                await send({"type": "http.response.body", "body": b""})

        try:
            scope.setdefault("state", {})["actor"] = await self._admit(scope)
            asked = {**scope, "method": "GET"} if head else scope
            await self._app(asked, self._limited(scope, receive), send_safely)
        except Elsewhere as other:
            await RedirectResponse(other.address, 303)(scope, receive, send_safely)
        except ModelcloudError as error:
            await problems.problem(error)(scope, receive, send_safely)
        except Exception as error:
            answer = problems.unknown_problem(error, f"{scope['method']} {scope['path']!r}")
            if not started:
                await answer(scope, receive, send_safely)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Only pages open them: with their session, from their own origin."""
        try:
            actor = None
            if self._site is not None and not browser.is_api(scope["path"]):
                actor = await self._admit_browser(scope, _headers_of(scope), navigates=False)
            if actor is None:
                await send({"type": "websocket.close", "code": 1008})
                return
            scope.setdefault("state", {})["actor"] = actor
            await self._app(scope, receive, send)
        except ModelcloudError:
            await send({"type": "websocket.close", "code": 1008})
        except Exception:
            log.exception("a websocket failed")

    async def _admit(self, scope: Scope) -> Actor | None:
        """Who asks; None where nobody needs to say.

        Raises:
            ModelcloudError: the request goes no further.
            Elsewhere: a browser has to sign in, or to change the password.
        """
        headers = _headers_of(scope)
        path, method = scope["path"], scope["method"]
        peer, port = scope["client"] or ("", 0)
        peer = self._proxies.client(peer, headers.get(HEADER, ()))
        scope["client"] = (peer, port)  # what routers take for who asks
        if self._site is not None and not browser.is_api(path):
            return await self._admit_browser(scope, headers, navigates=method in _READS)
        page = method == "GET" and path in PUBLIC_PAGES
        refused = hosts.refusal(
            headers,
            bound=self._config.control_host,
            allowed=self._config.allowed_hosts,
            navigable=page,
        )
        if refused is not None:
            raise refused
        _refuse_nul(scope)
        if page or (method == "POST" and path == SESSION):
            return None
        actor = await self._auth.actor(_bearer(headers), peer)
        if actor.must_change_password and path not in _BEFORE_PASSWORD:
            raise Forbidden(f"change your password first: PUT {SESSION}/password")
        return actor

    async def _admit_browser(
        self, scope: Scope, headers: Headers, *, navigates: bool
    ) -> Actor | None:
        """Who looks at a page; None where nobody needs to say. Raises as `_admit` does.

        `navigates`: it only reads, so that a link on any other page may lead here.
        """
        assert self._site is not None
        refused = hosts.refusal(
            headers,
            bound=self._config.control_host,
            allowed=self._config.allowed_hosts,
            navigable=navigates,
        )
        if refused is not None:
            raise refused
        _refuse_nul(scope)
        path = scope["path"]
        page = navigates and "text/html" in "".join(headers.get("accept", ()))
        try:
            actor = await self._of_session(scope, headers)
        except Unauthorized:
            if path in self._site.public:
                return None
            if page:
                query = scope["query_string"].decode("latin-1")
                wanted = quote(path) + (f"?{query}" if query else "")
                raise Elsewhere(browser.sign_in_address(wanted)) from None
            raise
        if actor.must_change_password and path not in browser.BEFORE_PASSWORD | self._site.public:
            if page:
                raise Elsewhere(browser.PASSWORD)
            raise Forbidden("change your password first")
        return actor

    async def _of_session(self, scope: Scope, headers: Headers) -> Actor:
        token = browser.session_token(headers)
        if token is None:
            raise Unauthorized("sign in first")
        actor = await self._auth.actor(token, _peer(scope))
        if not actor.session:
            raise Unauthorized("this needs a session; a token opens the API only")
        return actor

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, up to so many bytes and so long."""
        if scope["path"] in self._large:
            return receive
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY:
                raise TooLarge(f"body: accepted here up to {MAX_BODY} bytes")
        size = 0
        complete = False
        end = time.monotonic() + BODY_S

        async def receive_limited() -> Message:
            nonlocal size, complete
            if complete:  # what is awaited now is the end of the connection
                return await receive()
            try:
                message = await within(receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                raise HTTPException(408, f"body: it did not come within {BODY_S:.0f} s") from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > MAX_BODY:
                    raise HTTPException(413, f"body: accepted here up to {MAX_BODY} bytes")
            return message

        return receive_limited


def _headers_of(scope: Scope) -> Headers:
    """Each header's values, names in lower case."""
    headers: dict[str, tuple[str, ...]] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        headers[name] = (*headers.get(name, ()), raw_value.decode("latin-1"))
    return headers


def _peer(scope: Scope) -> str:
    return scope["client"][0] if scope["client"] else ""


def _refuse_nul(scope: Scope) -> None:
    query = scope["query_string"]
    if "\0" in scope["path"] or b"%00" in query or b"\0" in query:
        raise UsageError("address: holds a NUL, which no name and no text has")


def _bearer(headers: Headers) -> str:
    presented = headers.get("authorization", ())
    scheme, _, token = presented[0].partition(" ") if len(presented) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("this needs a token, as `Authorization: Bearer TOKEN`; sign in first")
    return token.strip()
