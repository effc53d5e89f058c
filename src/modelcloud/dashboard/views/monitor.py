"""A monitor: what it does, what it is made of, what arrived."""

from __future__ import annotations

import asyncio
import json

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import monitors
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.monitors.monitoring import ConnectionRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    alert,
    button,
    chip,
    facts,
    heading,
    link,
    link_button,
    panel,
    when,
)
from modelcloud.dashboard.parts.forms import Form
from modelcloud.dashboard.parts.monitor_form import type_names
from modelcloud.dashboard.parts.monitors import activity, connection, event_table, plainly
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.monitors import EVERY_S
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import ModelcloudError

#: Events that the page begins with, and that each step adds.
SHOWN = 25
#: Of settings, what stands elsewhere on the page.
_ELSEWHERE = frozenset({"type", "remote_path", "interval", "replaces", "trust"})


class MonitorPage(ServicePage):
    """One monitor."""

    section = "monitors"
    every_s = EVERY_S
    shown = SHOWN
    tested: ConnectionRecord | None = None
    under_way = ""
    _task: asyncio.Task[None] | None = None

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Monitor {name}", name=self.place["monitor"])

    async def read_part(self) -> None:
        """The monitor, and what came of its looks."""
        name = self.place["monitor"]
        self.monitor = await self.asks.call(monitors.get_monitor, service=self.name, monitor=name)
        self.events = await self.asks.call(
            monitors.list_monitor_events,
            service=self.name,
            monitor=name,
            page=Page(min(self.shown, MAX_LIMIT)),
        )

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        more = None
        if self.events.next and self.shown < MAX_LIMIT:
            more = element("div", button(t("Show more"), "more"), class_="more")
        return join(
            self._monitor_head(),
            element(
                "div",
                element(
                    "div",
                    panel(t("What arrived"), event_table(t, self.name, self.events.items), more),
                    class_="stack",
                ),
                element("div", self._state(), self._tested(), self._settings(), class_="stack"),
                class_="grid thirds",
            ),
        )

    def _monitor_head(self) -> Markup:
        t, one = self.t, self.monitor
        actions: list[Child] = []
        if self.rights.may(Action.MONITOR):
            if one.paused:
                actions.append(button(t("Resume"), "resume", symbol="play", kind="primary"))
            else:
                actions += [
                    button(t("Look now"), "run", symbol="renew", kind="primary"),
                    button(t("Pause"), "pause", symbol="stop"),
                ]
            to = f"{addresses.monitor(self.name, one.name)}/edit"
            actions += [
                button(t("Test the connection"), "test"),
                link_button(t("Edit"), to, symbol="edit"),
            ]
        if self.rights.may(Action.DELETE, {one.created_by}):
            actions.append(button(t("Delete"), "drop", symbol="trash"))
        crumbs = [
            (t("Monitors"), "/monitors"),
            (self.name, addresses.service(self.name, "monitors")),
        ]
        wrong: Child = None
        if one.error:
            since = join(t("Since"), " ", when(one.error_at)) if one.error_at else None
            wrong = alert([element("p", plainly(one.error)), element("p", since, class_="small")])
        elif one.acts_as is None:
            wrong = alert(t("In whose name it acted is gone; it does nothing until it is edited."))
        return join(heading(self.title, activity(t, one), *actions, crumbs=crumbs), wrong)

    def _state(self) -> Markup:
        t, one = self.t, self.monitor
        kinds = type_names(t)
        newest: Child = t("none yet")
        if one.version is not None:
            newest = link(str(one.version), addresses.version(self.name, one.version))
        online: Child = t("none yet")
        if one.deployment is not None:
            online = link(str(one.deployment), addresses.version(self.name, one.deployment))
        return panel(
            t("State"),
            facts(
                [
                    (t("Place"), element("code", one.place)),
                    (t("Kind of place"), kinds.get(one.type, one.type)),
                    (t("Last look"), when(one.looked_at)),
                    (t("Next look"), when(one.next_look_at, as_="clock")),
                    (t("Last arrival"), when(one.changed_at)),
                    (t("Newest version"), newest),
                    (t("Online in its place"), online),
                    (t("Acts in the name of"), one.acts_as or "—"),
                    (t("By"), one.created_by),
                    (t("Made"), when(one.created_at, as_="date")),
                ]
            ),
        )

    def _tested(self) -> Child:
        t = self.t
        if self.under_way:
            shown: Child = element(
                "p", self.under_way, class_="muted", role="status", aria_busy="true"
            )
        elif self.tested is not None:
            shown = connection(t, self.tested)
        else:
            return None
        return panel(t("What is there"), shown)

    def _settings(self) -> Markup:
        t, one = self.t, self.monitor
        secrets: Child = t("none")
        if one.secrets:
            secrets = join(
                *(join(chip(name), " ") for name in one.secrets),
                element("div", t("kept encrypted; shown to nobody"), class_="muted small"),
            )
        trusts = one.settings.get("trust")
        others = [
            (name, element("code", value if isinstance(value, str) else json.dumps(value)))
            for name, value in one.settings.items()
            if name not in _ELSEWHERE and value not in ("", None, {}, [])
        ]
        return panel(
            t("Settings"),
            facts(
                [
                    (
                        t("Looks every"),
                        t("{count} s", count=f"{one.settings['interval']:g}"),
                    ),
                    (
                        t("Accepts code"),
                        t("yes, this place is trusted") if trusts else t("no; model files only"),
                    ),
                    (t("Credentials"), secrets),
                    *others,
                ]
            ),
        )

    async def do_more(self, _: Act) -> None:
        """More events."""
        self.shown += 3 * SHOWN

    async def do_run(self, _: Act) -> None:
        """Look now."""
        await self.asks.call(monitors.run_monitor, service=self.name, monitor=self.monitor.name)
        self.done(self.t("It looks now"))

    async def do_pause(self, _: Act) -> None:
        """Rest."""
        await self.asks.call(monitors.pause_monitor, service=self.name, monitor=self.monitor.name)
        self.done(self.t("It rests"))

    async def do_resume(self, _: Act) -> None:
        """Go on."""
        await self.asks.call(monitors.resume_monitor, service=self.name, monitor=self.monitor.name)
        self.done(self.t("It goes on"))

    async def do_test(self, _: Act) -> None:
        """Look once, beside which the page goes on."""
        if self._task is None or self._task.done():
            self.tested, self.under_way = None, self.t("Looking there …")
            self._task = asyncio.get_running_loop().create_task(self._test())

    async def _test(self) -> None:
        try:
            self.tested = await self.asks.call(
                monitors.test_monitor, service=self.name, monitor=self.monitor.name
            )
        except ModelcloudError as error:
            if self.tab.shows(self):
                self.tab.say(error.message)
        finally:
            self.under_way = ""
            if self.tab.shows(self):
                self.tab.show()

    async def do_drop(self, _: Act) -> None:
        """Ask first."""
        t = self.t
        self.open(
            Form(
                "drop_now",
                t("Delete {name}?", name=self.title),
                t("Delete"),
                [],
                danger=True,
                above=element(
                    "p",
                    t("The place is watched no more, and its history goes. Its versions stay."),
                ),
            )
        )

    async def do_drop_now(self, _: Act) -> None:
        """Delete it."""
        await self.asks.call(monitors.delete_monitor, service=self.name, monitor=self.monitor.name)
        self.done(self.t("{name} deleted", name=self.title))
        await self.tab.go(addresses.service(self.name, "monitors"))
