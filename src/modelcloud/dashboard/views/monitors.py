"""The monitors that bring versions by themselves: all that one may see, and those of a service."""

from __future__ import annotations

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import groups, monitors, services
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import button, empty, heading, link_button, panel
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.parts.monitors import monitor_table
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import Act, View
from modelcloud.dashboard.views.service import ServicePage

#: What a look finds is in no log of operations; so a page reads it as often as monitors look.
EVERY_S = 2.0
SHOWN = 50


class Monitors(View):
    """Those of all services."""

    section = "monitors"
    every_s = EVERY_S
    shown = SHOWN

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Monitors")

    async def read(self) -> None:
        """The first so many, and the groups in which one may make one."""
        self.monitors = await self.asks.call(
            monitors.list_all_monitors, page=Page(min(self.shown, MAX_LIMIT))
        )
        listed = await self.asks.call(groups.list_groups, page=Page(MAX_LIMIT))
        self.groups = {
            group.name
            for group in listed.items
            if Rights(self.tab.actor, group.level).may(Action.MONITOR)
        }

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        make = None
        if self.groups:
            make = button(t("New monitor"), "choose", symbol="plus", kind="primary")
        note = t("A monitor looks at a remote place and brings each new model online by itself.")
        content: Child = element(
            "section", monitor_table(t, self.monitors.items, service=True), class_="panel"
        )
        if not self.monitors.items:
            text = t("No service that you may read has one.")
            content = empty(t("No monitors yet"), text, make)
        more = None
        if self.monitors.next and self.shown < MAX_LIMIT:
            more = element("div", button(t("Show more"), "more"), class_="more")
        top = make if self.monitors.items else None
        return join(heading(self.title, top, note=note), content, more)

    async def do_more(self, _: Act) -> None:
        """More rows."""
        self.shown += 2 * SHOWN

    async def do_choose(self, _: Act) -> None:
        """Ask for which service."""
        t = self.t
        listed = await self.asks.call(services.list_services, page=Page(MAX_LIMIT))
        names = [one.name for one in listed.items if one.group in self.groups]
        if not names:
            self.tab.say(t("There is no service in your groups yet; register a model first."))
            return
        choices = [(name, name) for name in names]
        field = Field(
            name="service",
            label=t("Service"),
            kind="select",
            choices=choices,
            wide=True,
            focus=True,
        )
        self.open(Form("make", t("New monitor"), t("Continue"), [field]))

    async def do_make(self, act: Act) -> None:
        """Go to the form."""
        self.form = None
        await self.tab.go(addresses.service(str(act.fields.get("service", "")), "new-monitor"))


class ServiceMonitors(ServicePage):
    """Those of a service."""

    tab_name = "monitors"
    every_s = EVERY_S

    async def read_part(self) -> None:
        """All of them; there are few."""
        self.monitors = (await self.asks.call(monitors.list_monitors, service=self.name)).items

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        make = None
        if self.rights.may(Action.MONITOR):
            to = addresses.service(self.name, "new-monitor")
            make = link_button(t("New monitor"), to, symbol="plus")
        if not self.monitors:
            text = t(
                "A monitor looks at a remote place and brings each new model online by itself."
            )
            return empty(t("No monitors yet"), text, make)
        return panel(t("Monitors"), monitor_table(t, self.monitors), actions=make)
