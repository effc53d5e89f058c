"""The control plane's web application, put together: every router behind one gate.

Must never: decide anything a router or an operation should.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from modelcloud import __version__
from modelcloud.control.access.auth import Auth
from modelcloud.control.api import (
    audit,
    deployments,
    docs,
    groups,
    instance_types,
    logs,
    metrics,
    monitors,
    node,
    rollouts,
    services,
    session,
    tokens,
    traffic,
    uploads,
    users,
    versions,
    workspaces,
)
from modelcloud.control.api.deps import Replay
from modelcloud.control.api.following import Streams
from modelcloud.control.common.idempotency import InProgress
from modelcloud.control.state import Background, PlatformState
from modelcloud.control.web import browser, problems
from modelcloud.control.web.gate import Gate
from modelcloud.errors import StoreUnavailable

if TYPE_CHECKING:
    from fastapi.routing import APIRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    from modelcloud.control.web.browser import Site

log = logging.getLogger(__name__)

#: Between two tries to start a part that needs the store.
RETRY_S = 1.0

_ROUTERS = (
    session.router,
    users.router,
    tokens.router,
    groups.router,
    instance_types.router,
    uploads.router,
    services.router,
    versions.router,
    deployments.router,
    traffic.router,
    rollouts.router,
    logs.router,
    metrics.router,
    monitors.router,
    workspaces.router,
    node.router,
    audit.router,
    docs.router,
)


#: Makes the pages for browsers, over the platform and who signs people in.
MakeSite: TypeAlias = "Callable[[PlatformState, Auth], Site]"


def create_app(state: PlatformState, make_site: MakeSite | None = None) -> FastAPI:
    """Return the application over `state`; its lifespan runs the parts that are `Background`.

    `app.state.give_up` is called when one of them cannot be started after all. With `make_site`,
    its pages stand at every address that is not the API's.
    """
    app = FastAPI(
        title="modelcloud",
        version=__version__,
        openapi_url=None,  # served by `api.docs`, as the page is
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        lifespan=_lifespan,
    )
    auth = Auth(state.store, wall=state.wall, clock=state.clock)
    app.state.platform = state
    app.state.auth = auth
    app.state.in_progress = InProgress()
    app.state.streams = Streams()
    app.state.started = False
    app.state.give_up = lambda: None
    problems.install(app)

    @app.exception_handler(Replay)
    async def _again(_: Request, replay: Replay) -> Response:
        headers = {"idempotency-replayed": "true"}
        return JSONResponse(replay.answer.body, replay.answer.status, headers)

    for router in _ROUTERS:
        app.include_router(router)
    site = None if make_site is None else make_site(state, auth)
    app.state.site = site
    if site is not None:
        app.add_middleware(_Beside, site=site)
    app.add_middleware(Gate, state=state, auth=auth, site=site)
    return app


class _Beside:
    """Leads what is not the API's to the site."""

    def __init__(self, app: ASGIApp, *, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        beside = scope["type"] in {"http", "websocket"} and not browser.is_api(scope["path"])
        await (self._site if beside else self._app)(scope, receive, send)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the parts; without a store they wait for it, while the API says 503."""
    started: list[Background] = []
    waits = asyncio.Event()
    starting = asyncio.create_task(_start(app, started, waits))
    waiting = asyncio.create_task(waits.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        starting.add_done_callback(partial(_started, app))
        yield
    finally:
        for task in (starting, waiting):
            task.cancel()
        await asyncio.gather(starting, waiting, return_exceptions=True)
        if app.state.site is not None:
            await app.state.site.stop()
        for part in reversed(started):
            await part.stop()


async def _start(app: FastAPI, started: list[Background], waits: asyncio.Event) -> None:
    for part in app.state.platform.parts:
        if not isinstance(part, Background):
            continue
        while True:
            try:
                await part.start()
                break
            except StoreUnavailable as error:
                if not waits.is_set():
                    log.warning("waiting for the store: %s", error.message)
                waits.set()
                await asyncio.sleep(RETRY_S)
        started.append(part)
    app.state.started = True


def _started(app: FastAPI, starting: asyncio.Task[None]) -> None:
    """Without one of its parts the rest is worse than nothing; another process may fare better."""
    if not starting.cancelled() and (error := starting.exception()) is not None:
        log.error("a part of the control plane cannot be started", exc_info=error)
        app.state.give_up()


def _operation_id(route: APIRoute) -> str:
    return f"{route.tags[0]}.{route.name}" if route.tags else route.name
