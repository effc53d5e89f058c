"""The services that one may read, as cards; filtered and searched, of a group with its members."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import groups, services
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.deployments.deployment_states import Status
from modelcloud.control.observe import glance
from modelcloud.control.services.services import DeployedVersion, ServiceRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    badge,
    button,
    chip,
    count,
    empty,
    heading,
    link,
    link_button,
    many,
    panel,
)
from modelcloud.dashboard.parts.charts import spark
from modelcloud.dashboard.parts.icons import icon
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import Act, View
from modelcloud.dashboard.words import Words

#: Cards that a page begins with, and that each step adds.
SHOWN = 24
MOST_ONLINE = 6


class Services(View):
    """The cards."""

    section = "services"
    every_s = 30.0
    shown = SHOWN

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Services")

    async def read(self) -> None:
        """The first so many that are asked for, and the groups to choose from."""
        state = self.asks.state
        wanted: dict[str, Any] = {
            name: self.query.get(name) or None for name in ("group", "state", "q")
        }
        self.services = await self.asks.call(
            services.list_services, page=Page(min(self.shown, MAX_LIMIT)), **wanted
        )
        names = [service.name for service in self.services.items]
        self.curves = await state.store.read(
            partial(glance.curves, actor=await self.asks.actor(), services=names, now=state.wall())
        )
        self.groups = (await self.asks.call(groups.list_groups, page=Page(MAX_LIMIT))).items
        self.group = next((g for g in self.groups if g.name == wanted["group"]), None)
        self.members = (
            []
            if self.group is None
            else (await self.asks.call(groups.list_members, group=self.group.name)).items
        )

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        cards = [card(t, service, self.curves[service.name]) for service in self.services.items]
        content: Child = element("div", *cards, class_="grid")
        if not cards:
            content = self._nothing()
        more = None
        if self.services.next is not None and self.shown < MAX_LIMIT:
            more = element("div", button(t("Show more"), "more"), class_="more")
        main = join(self._bar(), content, more)
        if self.group is not None:
            main = element("div", element("div", main), self._group_panel(), class_="grid thirds")
        action = None
        if self.group is None or Rights(self.tab.actor, self.group.level).may(Action.REGISTER):
            address = "/register" + (f"?group={self.group.name}" if self.group else "")
            action = link_button(t("Register a model"), address, symbol="register", kind="primary")
        return join(heading(self.title, action), main)

    def _bar(self) -> Markup:
        t = self.t
        groups_ = [("", t("All groups")), *((g.name, g.name) for g in self.groups)]
        states = [("", t("All states")), *((s.value, t(s.value)) for s in Status)]
        return element(
            "div",
            element(
                "div",
                icon("search"),
                element(
                    "input",
                    type="search",
                    value=self.query.get("q", ""),
                    data_do="filter",
                    data_name="q",
                    placeholder=t("Search services"),
                    aria_label=t("Search services"),
                    autocomplete="off",
                    id="search",
                ),
                class_="searching",
            ),
            _choice("group", t("Group"), groups_, self.query.get("group", "")),
            _choice("state", t("State"), states, self.query.get("state", "")),
            class_="bar",
        )

    def _nothing(self) -> Markup:
        t = self.t
        if any(self.query.get(name) for name in ("q", "state")):
            return empty(
                t("Nothing fits"),
                t("No service of these has such a name, description or state."),
                button(t("Show all"), "clear"),
            )
        return empty(
            t("No services yet"),
            t("A service answers with a model. Register the first version of one."),
            link_button(t("Register a model"), "/register", symbol="register", kind="primary"),
        )

    def _group_panel(self) -> Markup:
        assert self.group is not None
        t = self.t
        members = [
            element(
                "li",
                element("span", member.user),
                chip(t(member.level)),
                data_key=f"member-{member.user}",
            )
            for member in self.members
        ]
        return panel(
            self.group.name,
            element("p", self.group.description, class_="note") if self.group.description else None,
            element("h3", t("Members")),
            element("ul", *members, class_="members"),
            actions=link(t("Group"), addresses.group(self.group.name)),
        )

    async def do_filter(self, act: Act) -> None:
        """Another search or filter."""
        self.query = {**self.query, act.get("name"): act.get("value")}
        await self._search()

    async def do_clear(self, _: Act) -> None:
        """None."""
        self.query = {}
        await self.tab.go("/services")

    async def do_more(self, _: Act) -> None:
        """More cards."""
        self.shown += SHOWN

    async def _search(self) -> None:
        self.shown = SHOWN
        asked = {name: value for name, value in self.query.items() if value}
        self.tab.replace_address("/services" + (f"?{urlencode(asked)}" if asked else ""))


def _choice(name: str, label: str, choices: list[tuple[str, str]], chosen: str) -> Markup:
    return element(
        "select",
        *(
            element("option", text, value=value, selected=value == chosen)
            for value, text in choices
        ),
        data_do="filter",
        data_name=name,
        aria_label=label,
        id=f"filter-{name}",
    )


def card(t: Words, service: ServiceRecord, curve: list[int]) -> Markup:
    """A service."""
    online = [one for one in service.deployments if one.status is not Status.OFFLINE]
    online.sort(key=lambda one: -one.version)
    weights = sum(one.weight for one in online if one.status is Status.SERVING)
    body: Child = element(
        "ul", *(_version(t, one, weights) for one in online[:MOST_ONLINE]), class_="versions"
    )
    if not online:
        body = element("p", t("Nothing is online.") if service.versions else t("No version yet."))
    total = sum(curve)
    label = t("{count} requests in the last hour", count=count(total))
    return element(
        "article",
        element(
            "div",
            element("h2", link(service.name, addresses.service(service.name))),
            badge(t, service.status.value),
            class_="card-head",
        ),
        element("p", service.description) if service.description else None,
        body,
        spark(label, curve),
        element(
            "div",
            element("span", label),
            element("span", service.group, " · ", many(t, "{count} version", service.versions)),
            class_="card-end",
        ),
        class_="card",
        data_key=f"service-{service.name}",
    )


def _version(t: Words, one: DeployedVersion, weights: float) -> Markup:
    serves = one.status is Status.SERVING
    share = one.weight / weights if serves and weights else 0.0
    replicas = many(t, "{count} replica", one.replicas)
    labels = f" · {', '.join(one.labels)}" if one.labels else ""
    state: Child = (
        f"{share * 100:.3g} % · {replicas}{labels}"
        if serves
        else badge(t, one.status.value, title=one.reason)
    )
    return element(
        "li",
        element("strong", f"v{one.version}"),
        element(
            "span",
            element("i", style=f"width:{share * 100:.1f}%"),
            class_="share",
            title=t("{share} % of the traffic", share=f"{share * 100:.3g}"),
        ),
        element("span", state, class_="muted"),
        data_key=f"v{one.version}",
    )
