"""The pages in NiceGUI, which is imported with this module: one route, a tab for each page.

Must never: keep anything of a user beyond the page; NiceGUI's own storage is not used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from modelcloud.control.web import browser
from modelcloud.dashboard import files
from modelcloud.dashboard.asks import Asks
from modelcloud.dashboard.watch import Watcher
from modelcloud.errors import TooManyRequests, Unauthorized

if TYPE_CHECKING:
    from nicegui.client import Client

    from modelcloud.control.access.auth import Auth
    from modelcloud.control.state import PlatformState

#: A page is built, but its browser does not connect: of one user, at a time.
MOST_BUILT = 60
#: For a page to be built; for a browser to come back after its connection broke.
BUILD_S, RECONNECT_S = 20.0, 10.0


def make_pages(state: PlatformState, auth: Auth) -> FastAPI:
    """The application with all pages; to be called once in a process."""
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(Path(state.config.data) / "pages"))
    from nicegui import app as nicegui_app
    from nicegui import core, ui

    from modelcloud.dashboard.tab import Tab

    watcher = Watcher(state)
    built: dict[str, int] = {}

    @ui.page("/{path:path}", response_timeout=BUILD_S)
    async def show(request: Request, path: str, client: Client) -> Response | None:
        actor = request.state.actor
        if sum(user == actor.user_id for user in built.values()) >= MOST_BUILT:
            raise TooManyRequests(f"you have {MOST_BUILT} pages already; close some of them")
        headers = {"cookie": tuple(request.headers.getlist("cookie"))}
        token = browser.session_token(headers) or ""
        asks = Asks(state, auth, token, request.client.host if request.client else "")
        query = f"?{request.url.query}" if request.url.query else ""
        tab = Tab(asks, files.words_of(request), watcher, client, files.theme_of(request))
        try:
            client.status_code = await tab.open(f"/{path}{query}")
        except Unauthorized:
            return RedirectResponse(browser.sign_in_address(f"/{path}{query}"), 303)
        client.title = tab.title
        built[client.id] = actor.user_id
        client.on_delete(lambda: built.pop(client.id, None))
        return None

    ui.add_head_html(f'<link rel="stylesheet" href="{files.address("page.css")}">', shared=True)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    nicegui_app.config.quasar_config["loadingBar"]["skipHijack"] = True  # pages say what is busy
    nicegui_app.config.socket_io_js_transports = ["websocket"]
    core.sio.eio.cors_allowed_origins = None  # the gate compares the origin with the host
    ui.run_with(
        app,
        title="modelcloud",
        favicon=str(Path(files.__file__).parent / "static" / "icon.svg"),
        binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_S,
        message_history_length=200,
        gzip_middleware_factory=None,
        tailwind=False,
        show_welcome_message=False,
    )
    return app
