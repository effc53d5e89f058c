"""A service: the head that all parts of its page share, and what it is and does."""

from __future__ import annotations

from typing import ClassVar

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import deployments, groups, services, versions
from modelcloud.control.services.versions import VersionRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    alert,
    badge,
    button,
    code,
    empty,
    facts,
    heading,
    link,
    link_button,
    panel,
    tabs,
    when,
)
from modelcloud.dashboard.parts.signature import commands_list, options_table
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import View
from modelcloud.dashboard.views.deploying import Deploying
from modelcloud.dashboard.views.online import online_table
from modelcloud.node import sockets

#: Versions to choose from in a form.
CHOICES = 100


class ServicePage(Deploying, View):
    """What all parts of the page share.

    Attributes:
        tab_name: of the part.
    """

    section = "services"
    tab_name: ClassVar[str] = ""

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.name

    async def read(self) -> None:
        """The service, what of it is online, and what may be done with it."""
        self.service = await self.asks.call(services.get_service, service=self.name)
        self.deployments = (
            await self.asks.call(deployments.list_deployments, service=self.name)
        ).items
        group = await self.asks.call(groups.get_group, group=self.service.group)
        self.group = group
        self.rights = Rights(self.tab.actor, group.level)
        await self.read_part()

    async def read_part(self) -> None:
        """What this part shows beyond that."""

    def draw_part(self) -> Markup:
        """This part."""
        raise NotImplementedError

    def draw(self) -> Markup:
        """The page."""
        return join(self._head(), self._tabs(), self.draw_part())

    def _head(self) -> Markup:
        t, service = self.t, self.service
        actions: list[Child] = []
        if self.rights.may(Action.DEPLOY) and service.versions:
            actions.append(button(t("Deploy"), "deploy", symbol="deploy", kind="primary"))
        if self.rights.may(Action.REGISTER):
            to = f"/register?service={service.name}"
            actions.append(link_button(t("Register a version"), to, symbol="register"))
        problem = None
        if service.port_problem:
            problem = alert(service.port_problem, tone="warn")
        crumbs = [
            (t("Services"), "/services"),
            (service.group, addresses.services_of(service.group)),
        ]
        return join(
            heading(
                service.name,
                badge(t, service.status.value),
                *actions,
                note=service.description,
                crumbs=crumbs,
            ),
            problem,
        )

    def _tabs(self) -> Markup:
        t = self.t
        there = [
            ("", t("Basic information")),
            ("try", t("Try it")),
            ("history", t("History")),
            ("traffic", t("Traffic")),
            ("logs", t("Logs")),
            ("metrics", t("Metrics")),
            ("monitors", t("Monitors")),
            ("edit", t("Edit")),
            ("delete", t("Delete")),
        ]
        return tabs(
            t("Parts of {name}", name=self.name),
            self.tab_name,
            [(name, label, addresses.service(self.name, name)) for name, label in there],
        )

    @property
    def gateway(self) -> str:
        """Where predictions are asked for, as far as the platform knows."""
        standing = self.asks.state.standing
        config = standing.config
        return sockets.url_of(config.host, standing.port, tls=bool(config.tls_cert))


class Information(ServicePage):
    """What it is, what is online, what the model offers."""

    tab_name = ""

    async def read_part(self) -> None:
        """The version that speaks for the service: the online one with the most traffic."""
        online = [one for one in self.deployments if one.status.value == "Serving"]
        speaker = max(online, key=lambda one: (one.weight, one.version), default=None)
        number = self.service.latest if speaker is None else speaker.version
        self.version: VersionRecord | None = None
        if number:
            self.version = await self.asks.call(
                versions.get_version, service=self.name, version=number
            )

    def draw_part(self) -> Markup:
        """This part."""
        t, version = self.t, self.version
        if version is None:
            return empty(
                t("No version yet"),
                t("Register the model's files as the first version."),
                link_button(
                    t("Register a version"), f"/register?service={self.name}", kind="primary"
                ),
            )
        return element(
            "div",
            element(
                "div",
                panel(
                    t("Online"),
                    online_table(t, self.name, self.deployments, self.rights, self.tab.actor.name),
                ),
                panel(t("Setup options"), options_table(t, version.signature)),
                panel(t("Commands"), commands_list(t, version.signature)),
                class_="stack",
            ),
            element("div", self._about(), self._addresses(), class_="stack"),
            class_="grid thirds",
        )

    def _about(self) -> Markup:
        t, service, version = self.t, self.service, self.version
        assert version is not None
        shown = link(f"{version.version}", addresses.version(self.name, version.version))
        return panel(
            t("About"),
            facts(
                [
                    (t("Group"), link(service.group, addresses.group(service.group))),
                    (
                        t("Versions"),
                        t(
                            "{count}, the latest is {latest}",
                            count=service.versions,
                            latest=service.latest,
                        ),
                    ),
                    (t("Shown here"), join(t("version"), " ", shown)),
                    (t("Runtime"), version.runtime),
                    (t("Main file"), element("code", version.main)),
                    (t("Port"), str(service.port) if service.port else t("none of its own")),
                    (
                        t("Predictions"),
                        t("for everybody") if self.group.public_predictions else t("with a token"),
                    ),
                    (t("By"), service.created_by),
                    (t("Made"), when(service.created_at, as_="date")),
                ]
            ),
        )

    def _addresses(self) -> Markup:
        t = self.t
        assert self.version is not None
        rows: list[Child] = [
            element("h3", t("By weight")),
            code(f"{self.gateway}{self.service.address}", "address-service", t),
        ]
        for one in self.deployments:
            for label in one.labels:
                rows.append(element("h3", t("Label {label}", label=label)))
                rows.append(
                    code(f"{self.gateway}{self.service.address}/{label}", f"address-{label}", t)
                )
        docs = element(
            "p",
            link(
                t("The docs page of the model"),
                f"{self.gateway}/{self.name}/redoc",
                target="_blank",
                rel="noopener",
            ),
        )
        return panel(t("Addresses"), *rows, docs)
