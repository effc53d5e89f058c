"""The site beside the API: plain pages to sign in; the rest is loaded once it is asked for.

A control plane whose pages nobody opens does not even import what they are made with.

Must never: answer what the gate has not let through, or more pages of one user than `OF_ONE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from modelcloud.control.api.uploads import upload
from modelcloud.control.api.workspaces import open_workspace
from modelcloud.control.web import browser, problems
from modelcloud.dashboard import addresses, files
from modelcloud.dashboard.doors import Doors
from modelcloud.dashboard.tokens import form_token, is_form_token
from modelcloud.errors import (
    Forbidden,
    ModelcloudError,
    NotFound,
    Overloaded,
    TooManyRequests,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from modelcloud.control.access.auth import Auth
    from modelcloud.control.state import PlatformState

UPLOADS = "/files/archive"
#: Pages in a browser at a time, in all and of one user.
MOST_PAGES, OF_ONE = 200, 40
_SOCKET = "/_nicegui_ws/"


def make_site(state: PlatformState, auth: Auth) -> Dashboard:
    """The site of a platform."""
    return Dashboard(state, auth)


class Dashboard:
    """Pages for browsers. See `control.web.browser.Site`."""

    public = frozenset({browser.SIGN_IN}) | files.paths()
    uploads = frozenset({UPLOADS})

    def __init__(self, state: PlatformState, auth: Auth) -> None:
        self._state = state
        self._auth = auth
        self._pages: ASGIApp | None = None
        self._loading = asyncio.Lock()
        self._life = contextlib.AsyncExitStack()
        self._early: asyncio.Task[ASGIApp] | None = None
        self._open: Counter[int] = Counter()
        doors = Doors(state, auth)
        self._plain = Starlette(
            routes=[
                Route(browser.SIGN_IN, doors.sign_in, methods=["GET", "POST"]),
                Route(browser.PASSWORD, doors.password, methods=["GET", "POST"]),
                Route(browser.SIGN_OUT, doors.sign_out, methods=["POST"]),
                Route(UPLOADS, self._upload, methods=["POST"]),
                Route(addresses.OPEN_WORKSPACE, self._open_workspace),
                Route(files.PREFIX + "{name}", files.answer),
                Route(files.ICON, files.icon),
            ],
            exception_handlers={ModelcloudError: _problem},
        )
        self._plain_paths = {
            browser.SIGN_IN, browser.PASSWORD, browser.SIGN_OUT, files.ICON,
            addresses.OPEN_WORKSPACE,
        }  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        path = scope["path"]
        if scope["type"] == "http" and (path in self._plain_paths or path.startswith(files.PREFIX)):
            if path == browser.SIGN_IN:  # whoever signs in opens a page next
                self._load_soon()
            await self._plain(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif path.startswith(_SOCKET) or scope["method"] not in {"GET", "HEAD"}:
            # Only what a page's own websocket says may change anything.
            await Response(status_code=405)(scope, receive, send)
        else:
            await (await self._loaded())(scope, receive, _with_policy(scope, send))

    async def stop(self) -> None:
        """End the pages."""
        if self._early is not None:
            self._early.cancel()
            await asyncio.gather(self._early, return_exceptions=True)
        await self._life.aclose()

    def _load_soon(self) -> None:
        if self._pages is None and self._early is None:
            self._early = asyncio.get_running_loop().create_task(self._loaded())

    async def _loaded(self) -> ASGIApp:
        """The pages; the first to ask has them imported, while others are answered."""
        async with self._loading:
            if self._pages is None:
                module = await asyncio.to_thread(
                    importlib.import_module, "modelcloud.dashboard.pages"
                )
                app: Any = module.make_pages(self._state, self._auth)
                await self._life.enter_async_context(app.router.lifespan_context(app))
                self._pages = app
        assert self._pages is not None
        return self._pages

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One open page of a user."""
        user = scope["state"]["actor"].user_id
        if self._open.total() >= MOST_PAGES:
            raise Overloaded(f"{MOST_PAGES} pages are open already")
        if self._open[user] >= OF_ONE:
            raise TooManyRequests(f"you have {OF_ONE} pages open already")
        self._open[user] += 1
        try:
            await (await self._loaded())(scope, receive, send)
        finally:
            self._open[user] -= 1
            self._open += Counter()  # without those of none

    async def _upload(self, request: Request) -> Response:
        """An archive, from a page of this session, by the function that takes it over the API."""
        headers = {"cookie": tuple(request.headers.getlist("cookie"))}
        token = browser.session_token(headers) or ""
        if not is_form_token(token, request.headers.get("x-form-token", "")):
            raise Forbidden("this is not of a page of your session; load the page again")
        record = await upload(request, self._state, request.state.actor)
        return JSONResponse(record.model_dump(mode="json"), 201)

    async def _open_workspace(self, request: Request) -> Response:
        """On to one's own workspace, with a ticket; where none runs, to the page that starts it."""
        group = request.query_params.get("group", "")
        try:
            found = await open_workspace(group, self._state, request.state.actor)
        except NotFound:
            return RedirectResponse("/workspace", 303)
        if self._state.config.workspace_url:
            return RedirectResponse(found.url, 303)
        name = request.url.hostname or ""  # as the browser knows this machine
        host = f"[{name}]" if ":" in name else name
        return RedirectResponse(f"http://{host}:{found.port}{found.path}", 303)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ModelcloudError)
    return problems.problem(error)


def _with_policy(scope: Scope, send: Send) -> Send:
    """`send`, with a policy for each page: its own scripts run, and no other.

    What is written as `<script` in a page is the page's own: the data in it is escaped.
    """
    nonce = secrets.token_urlsafe(18)
    request = Request(scope)
    held: Message | None = None
    body = bytearray()

    async def send_with_policy(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start":
            if dict(message["headers"]).get(b"x-nicegui-content") == b"page":
                held = message
                return
        elif held is not None and message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = _dressed(bytes(body), nonce, request)
            headers = [pair for pair in held["headers"] if pair[0] != b"content-length"]
            headers += [
                (b"content-length", str(len(page)).encode()),
                (b"content-security-policy", policy(nonce).encode()),
                (b"cross-origin-opener-policy", b"same-origin"),
                (b"referrer-policy", b"same-origin"),  # for the form that signs out
                (b"x-frame-options", b"DENY"),
            ]
            await send({**held, "headers": headers})
            message = {"type": "http.response.body", "body": page}
        await send(message)

    return send_with_policy


def policy(nonce: str) -> str:
    """What a page may load and run.

    `unsafe-eval` is what Vue compiles its templates with, and how NiceGUI runs what the server
    sends; `unsafe-inline` is for styles alone.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _dressed(page: bytes, nonce: str, request: Request) -> bytes:
    """A page with the nonce at its scripts, and what the style sheet and the forms go by."""
    headers = {"cookie": tuple(request.headers.getlist("cookie"))}
    token = form_token(browser.session_token(headers) or "")
    theme = files.theme_of(request)
    language = files.words_of(request).language
    html = f'<html lang="{language}" data-theme="{theme}" data-form="{token}"'.encode()
    page = page.replace(b"<script", f'<script nonce="{nonce}"'.encode())
    return page.replace(b"<html", html, 1)
