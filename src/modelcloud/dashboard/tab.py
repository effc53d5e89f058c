"""One open page of a browser: its frame, the view in it, and what keeps it right.

Must never: outlive its session, or do what the session's user may not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from modelcloud.control.access.permissions import Actor
from modelcloud.control.web import browser
from modelcloud.dashboard import frame
from modelcloud.dashboard.asks import Asks
from modelcloud.dashboard.live import Live
from modelcloud.dashboard.markup import Markup, join
from modelcloud.dashboard.view import Act, View, problems_of
from modelcloud.dashboard.views import routes
from modelcloud.dashboard.views.nowhere import Nowhere
from modelcloud.dashboard.watch import Watcher
from modelcloud.dashboard.words import COOKIE as LANGUAGE
from modelcloud.dashboard.words import Words
from modelcloud.errors import ModelcloudError, NotFound, Unauthorized
from modelcloud.waiting import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from nicegui.client import Client

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z][a-z_]{0,30}")
#: Of the cookies with theme and language, which are no secret.
_KEPT = "path=/; max-age=31536000; samesite=strict"
#: Acts of one page that wait for their turn.
MOST_ACTS = 20
THEMES = ("auto", "light", "dark")
#: Toasts at a time; and how long one that is no error stays.
_MOST_SAID, _SAID_S = 4, 6.0


class Tab:
    """A page.

    Attributes:
        asks: the session.
        words: of the browser's language.
    """

    def __init__(
        self, asks: Asks, words: Words, watcher: Watcher, client: Client, theme: str
    ) -> None:
        self.asks = asks
        self.words = words
        self.actor = Actor(user_id=0, name="")
        self._watcher = watcher
        self._client = client
        self._theme = theme
        self._said: dict[str, tuple[str, str]] = {}
        self._view: View = Nowhere(self, {}, {})
        self._following: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._acts = 0

    # ---- life

    async def open(self, address: str) -> int:
        """Build the page at this address; returns its HTTP status."""
        self.actor = await self.asks.actor()
        status = await self._enter(address)
        self._frame = Live("div", self._draw_frame(), self._act, id="frame")
        self._main = Live("main", self._draw_main(), self._act, id="main")
        self._dialog = Live("div", self._view.draw_dialog(), self._act, id="dialog")
        self._toasts = Live("div", join(), self._act, id="toasts")
        self._client.on_connect(self._connected)
        self._client.on_disconnect(self._disconnected)
        return status

    def _connected(self) -> None:
        if self._following is None:
            self._following = asyncio.get_running_loop().create_task(self._follow())

    def _disconnected(self) -> None:
        if self._following is not None and not self._client.has_socket_connection:
            self._following.cancel()
            self._following = None

    async def _follow(self) -> None:
        """Keep the page right for as long as it is open."""
        loop = asyncio.get_running_loop()
        try:
            await self._view.opened()
            with self._watcher.followed() as changed:
                await self.refresh()  # for what has changed since the page was built
                read_at = loop.time()
                while True:
                    every_s = self._view.every_s
                    timeout = None if every_s is None else max(0.0, read_at + every_s - loop.time())
                    with contextlib.suppress(asyncio.TimeoutError):
                        await within(changed(), 60.0 if timeout is None else timeout)
                    read_at = loop.time()
                    await self.refresh()
        finally:
            await self._view.closed()

    # ---- showing

    async def refresh(self) -> None:
        """Read anew and show what differs."""
        async with self._turn:
            await self._guarded(self._reread)

    async def _reread(self) -> None:
        self.actor = await self.asks.actor()
        try:
            await self._view.read()
        except NotFound as error:
            self._view = Nowhere(self, {}, {"why": error.message})
        self.show()

    def shows(self, view: View) -> bool:
        """Whether this is the view of the moment, in a page that is open."""
        return self._view is view and not self._client.is_deleted

    def show(self) -> None:
        """Show the view as it is now."""
        self._frame.draw(self._draw_frame())
        self._main.draw(self._draw_main())
        self._dialog.draw(self._view.draw_dialog())

    def say(self, text: str, tone: str = "bad") -> None:
        """Say something in a corner, over whatever page."""
        key = secrets.token_hex(4)
        self._said[key] = (text, tone)
        while len(self._said) > _MOST_SAID:
            del self._said[next(iter(self._said))]
        self._toasts.draw(frame.toasts(self.words, self._said))
        if tone != "bad":
            asyncio.get_running_loop().call_later(_SAID_S, self._hush, key)

    def _hush(self, key: str) -> None:
        if self._said.pop(key, None) is not None and not self._client.is_deleted:
            self._toasts.draw(frame.toasts(self.words, self._said))

    def append(self, place: str, drawn: Markup, most: int) -> None:
        """Add lines at the end of a list that is drawn once."""
        self._main.run_method("append", place, drawn, most)

    def prepend(self, place: str, drawn: Markup) -> None:
        """Add lines at the beginning of such a list."""
        self._main.run_method("prepend", place, drawn)

    def leave(self, address: str) -> None:
        """Load another page, as a browser does."""
        self._client.run_javascript(f"location.assign({json.dumps(address)})")

    def replace_address(self, address: str) -> None:
        """Name the page by another address, without another entry in the browser's history."""
        self._client.run_javascript(f"history.replaceState({{}}, '', {json.dumps(address)})")

    async def go(self, address: str) -> None:
        """Show another page in this frame."""
        safe = browser.safe_next(address)
        self._client.run_javascript(f"history.pushState({{}}, '', {json.dumps(safe)})")
        await self._go(safe)

    async def _go(self, address: str) -> None:
        await self._view.closed()
        await self._enter(address)
        self.show()
        title = json.dumps(self._full_title())
        self._client.run_javascript(
            f"document.title = {title}; delete document.documentElement.dataset.going;"
            "scrollTo(0, 0); document.querySelector('h1')?.focus({preventScroll: true})"
        )
        await self._view.opened()

    async def _enter(self, address: str) -> int:
        """Make the view of an address and let it read; returns the status of a page there."""
        path, _, query = address.partition("#")[0].partition("?")
        try:
            self._view = routes.view_at(self, path, query)
            await self._view.read()
        except NotFound as error:
            self._view = Nowhere(self, {}, {"why": error.message})
            return 404
        except Unauthorized:
            raise
        except ModelcloudError as error:
            self._view = Nowhere(self, {}, {"why": error.message, "status": str(error.status)})
            return error.status
        return 200

    # ---- acting

    async def _act(self, told: dict[str, Any]) -> None:
        """Something was done on the page."""
        name, args, fields = told.get("do"), told.get("args"), told.get("fields")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return
        if self._acts >= MOST_ACTS:
            self.say(self.words("Too much at a time; wait for what is under way"))
            return
        self._acts += 1
        try:
            await self._do(name, args, fields)
        finally:
            self._acts -= 1

    async def _do(self, name: str, args: Any, fields: Any) -> None:
        act = Act(
            args if isinstance(args, dict) else {}, fields if isinstance(fields, dict) else {}
        )
        own: Callable[[Act], Any] | None = getattr(self, f"_do_{name}", None)
        async with self._turn:
            handler = own or getattr(self._view, f"do_{name}", None)
            if handler is None:
                return

            async def run() -> None:
                await handler(act)
                if own is None:
                    await self._reread()

            await self._guarded(run)
            for region in (self._main, self._dialog, self._frame):
                region.run_method("settled")

    async def _guarded(self, work: Callable[[], Any]) -> None:
        """Run `work`, and show what it raises where it belongs."""
        form = self._view.form
        if form is not None:
            form.errors = {}
        try:
            await work()
        except Unauthorized:
            self.leave(browser.SIGN_IN)
        except (ModelcloudError, ValidationError) as error:
            form = self._view.form
            found = problems_of(error, [one.name for one in form.fields] if form else ())
            if form is not None:
                form.errors = found
                self.show()
            else:
                for field, text in found.items():
                    self.say(f"{field}: {text}" if field and field not in text else text)
        except Exception:
            error_id = secrets.token_hex(6)
            log.exception("error %s: a page failed", error_id)
            self.say(
                self.words("This went wrong on the server; its log says why: {id}", id=error_id)
            )

    async def _do_go(self, act: Act) -> None:
        await self._go(browser.safe_next(act.get("to")))

    async def _do_hush(self, act: Act) -> None:
        self._hush(act.get("key"))

    async def _do_theme(self, act: Act) -> None:
        theme = act.get("to")
        if theme in THEMES:
            self._theme = theme
            self._client.run_javascript(
                f"document.cookie = 'modelcloud_theme={theme}; {_KEPT}';"
                f"document.documentElement.dataset.theme = '{theme}';"
                "dispatchEvent(new Event('modelcloud-theme'))"
            )
            self.show()

    async def _do_language(self, act: Act) -> None:
        language = Words(act.get("to")).language
        self._client.run_javascript(
            f"document.cookie = '{LANGUAGE}={language}; {_KEPT}';location.reload()"
        )

    # ---- inside

    def _full_title(self) -> str:
        return f"{self._view.title} · modelcloud"

    @property
    def title(self) -> str:
        """Of the browser's window."""
        return self._full_title()

    def _draw_frame(self) -> Markup:
        return frame.draw(self.words, self.actor, self._view.section, self._theme, self.asks.token)

    def _draw_main(self) -> Markup:
        return self._view.draw()
