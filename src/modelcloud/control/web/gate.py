"""What every request passes before it is routed: its Host, its token, the size of its body.

Deny by default: a path that is not in the short list below needs a token, whether or not anything
stands there and whatever the method. What is compared is the very path that is routed by.

Must never: let an exception out, or an answer without the headers that keep browsers from harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from modelcloud.control.access.permissions import Actor
from modelcloud.control.common.peers import HEADER, Proxies
from modelcloud.control.web import hosts, problems
from modelcloud.errors import Forbidden, ModelcloudError, TooLarge, Unauthorized, UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from modelcloud.control.access.auth import Auth
    from modelcloud.control.state import PlatformState

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

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Gate:
    """The outermost layer of the application.

    Args:
        app: what is behind it.
        state: the platform.
        auth: who knows tokens.
    """

    def __init__(self, app: ASGIApp, *, state: PlatformState, auth: Auth) -> None:
        self._app = app
        self._config = state.config
        self._proxies = Proxies(state.config.trusted_proxies)
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one connection through, or answer it here."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
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
        except ModelcloudError as error:
            await problems.problem(error)(scope, receive, send_safely)
        except Exception as error:
            answer = problems.unknown_problem(error, f"{scope['method']} {scope['path']!r}")
            if not started:
                await answer(scope, receive, send_safely)

    async def _admit(self, scope: Scope) -> Actor | None:
        """Who asks; None where nobody needs to say.

        Raises:
            ModelcloudError: the request goes no further.
        """
        headers: dict[str, tuple[str, ...]] = {}
        for raw_name, raw_value in scope["headers"]:
            name = raw_name.decode("latin-1").lower()
            headers[name] = (*headers.get(name, ()), raw_value.decode("latin-1"))
        path, method = scope["path"], scope["method"]
        peer, port = scope["client"] or ("", 0)
        peer = self._proxies.client(peer, headers.get(HEADER, ()))
        scope["client"] = (peer, port)  # what routers take for who asks
        page = method == "GET" and path in PUBLIC_PAGES
        refused = hosts.refusal(
            headers,
            bound=self._config.control_host,
            allowed=self._config.allowed_hosts,
            navigable=page,
        )
        if refused is not None:
            raise refused
        if "\0" in path or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
            raise UsageError("address: holds a NUL, which no name and no text has")
        if page or (method == "POST" and path == SESSION):
            return None
        actor = await self._auth.actor(_bearer(headers), peer)
        if actor.must_change_password and path not in _BEFORE_PASSWORD:
            raise Forbidden(f"change your password first: PUT {SESSION}/password")
        return actor

    @staticmethod
    def _limited(scope: Scope, receive: Receive) -> Receive:
        """`receive`, up to so many bytes and so long."""
        if scope["path"] == _UPLOADS:
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
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                raise HTTPException(408, f"body: it did not come within {BODY_S:.0f} s") from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > MAX_BODY:
                    raise HTTPException(413, f"body: accepted here up to {MAX_BODY} bytes")
            return message

        return receive_limited


def _bearer(headers: dict[str, tuple[str, ...]]) -> str:
    presented = headers.get("authorization", ())
    scheme, _, token = presented[0].partition(" ") if len(presented) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("this needs a token, as `Authorization: Bearer TOKEN`; sign in first")
    return token.strip()
