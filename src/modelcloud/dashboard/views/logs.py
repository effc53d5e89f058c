"""The logs of a service: every step of its rollouts, and what the workers of a version wrote.

Must never: hold more lines in the browser than `MOST_LINES`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from modelcloud.control.api import logs
from modelcloud.control.api.logs import LineRecord
from modelcloud.control.observe import log_files
from modelcloud.control.observe.log_files import BEGINNING, Filter
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import button, chip, panel
from modelcloud.dashboard.parts.icons import icon
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import ModelcloudError

#: Lines that a page begins with, that each look back adds, and that stay in the browser.
LINES, MOST_LINES = 300, 3000
#: Asked again so often whether the log may still be read.
CHECK_S = 10.0


class Logs(ServicePage):
    """One log at a time, followed."""

    tab_name = "logs"
    q = ""
    replica = ""
    _following: asyncio.Task[None] | None = None
    _shown = 0

    async def read_part(self) -> None:
        """The last lines; later ones come by themselves."""
        if self._shown:
            return
        wanted = self.query.get("version", "")
        self.version = (
            int(wanted) if wanted.isascii() and wanted.isdecimal() and len(wanted) < 10 else None
        )
        await self._load()

    async def _load(self) -> None:
        page = await self._ask(before=None)
        self.lines, self.before, self.after = page.lines, page.before, page.after
        self._shown += 1

    async def _ask(self, before: str | None) -> logs.LogPage:
        return await logs.read_log(
            self.asks.state,
            await self.asks.actor(),
            self.name,
            self.version,
            logs.Asked(LINES, before, None, self._only, follow=False),
        )

    @property
    def _only(self) -> Filter:
        return Filter(q=self.q, replica=int(self.replica) if self.replica.isdecimal() else None)

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        numbers = sorted({one.version for one in self.deployments}, reverse=True)
        if self.version is not None and self.version not in numbers:
            numbers.insert(0, self.version)
        choices = [
            ("", t("Deployment log")),
            *((str(n), t("Application log of version {version}", version=n)) for n in numbers),
        ]
        chosen = "" if self.version is None else str(self.version)
        replicas: Child = None
        if self.version is not None:
            workers = sorted(
                {
                    str(worker.id)
                    for one in self.deployments
                    if one.version == self.version
                    for worker in one.workers
                },
                key=int,
            )
            replicas = _select(
                "replica",
                t("Replica"),
                [("", t("All replicas")), *((w, t("worker {id}", id=w)) for w in workers)],
                self.replica,
            )
        search = element(
            "div",
            icon("search"),
            element(
                "input",
                type="search",
                value=self.q,
                data_do="search",
                placeholder=t("Search lines"),
                aria_label=t("Search lines"),
                autocomplete="off",
                id="search-lines",
            ),
            class_="searching",
        )
        key = f"log-{self._shown}"
        earlier = (
            button(t("Earlier lines"), "earlier", kind="quiet", small=True) if self.before else None
        )
        nothing = (
            None
            if self.lines
            else element(
                "p",
                t("Nothing yet; what is written shows here."),
                class_="none",
                data_key=f"{key}-none",
            )
        )
        return join(
            element(
                "div", _select("log", t("Log"), choices, chosen), replicas, search, class_="bar"
            ),
            panel(
                t("Lines"),
                nothing,
                element(
                    "ol",
                    lines_of(self.lines),
                    id=key,
                    class_="lines",
                    tabindex="0",
                    aria_label=t("Lines"),
                    data_keep=True,
                    data_to_end=True,
                ),
                actions=join(earlier, chip(t("followed"), tone="accent")),
            ),
        )

    async def opened(self) -> None:
        """Follow."""
        self._follow()

    async def closed(self) -> None:
        """Follow no more."""
        if self._following is not None:
            self._following.cancel()
            self._following = None

    def _follow(self) -> None:
        if self._following is not None:
            self._following.cancel()
        self._following = asyncio.get_running_loop().create_task(self._go_on(f"log-{self._shown}"))

    async def _go_on(self, place: str) -> None:
        """Add what is written from now on."""
        path = logs.path_of(self.asks.state, self.name, self.version)
        pages = log_files.follow(path, self.after or BEGINNING, self._only, heartbeat_s=CHECK_S)
        with contextlib.suppress(ModelcloudError):
            async for page in pages:
                await self._ask_whether()
                if page.lines:
                    found = [
                        LineRecord(at=at, source=source, text=text)
                        for at, source, text in page.lines
                    ]
                    self.tab.append(place, lines_of(found), MOST_LINES)

    async def _ask_whether(self) -> None:
        await logs.check_readable(self.asks.state, await self.asks.actor(), self.name, self.version)

    async def do_log(self, act: Act) -> None:
        """Another log."""
        value = act.get("value")
        self.version = (
            int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None
        )
        self.replica = ""
        await self._again()

    async def do_search(self, act: Act) -> None:
        """Other lines."""
        self.q = act.get("value")[:200]
        await self._again()

    async def do_replica(self, act: Act) -> None:
        """Those of another worker."""
        self.replica = act.get("value")
        await self._again()

    async def do_earlier(self, _: Act) -> None:
        """Those before."""
        if self.before is None:
            return
        page = await self._ask(before=self.before)
        self.before = page.before
        self.tab.prepend(f"log-{self._shown}", lines_of(page.lines))

    async def _again(self) -> None:
        await self._load()
        self._follow()


def lines_of(found: Iterable[LineRecord]) -> Markup:
    """Lines of a log."""
    return join(
        element(
            "li",
            element("time", line.at[11:19], datetime=line.at, data_as="clock") if line.at else None,
            element("span", line.source, class_="source") if line.source else None,
            element("span", line.text),
        )
        for line in found
    )


def _select(do: str, label: str, choices: list[tuple[str, str]], chosen: str) -> Markup:
    return element(
        "select",
        *(
            element("option", text, value=value, selected=value == chosen)
            for value, text in choices
        ),
        data_do=do,
        aria_label=label,
        id=f"choose-{do}",
    )
