"""The end of a service: what goes with it, and the button that asks for its name first."""

from __future__ import annotations

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import services
from modelcloud.dashboard.markup import Markup, element
from modelcloud.dashboard.parts.basic import button, empty, facts, panel
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import InvalidInput


class Ending(ServicePage):
    """Deleting it."""

    tab_name = "delete"

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        owners = {self.service.created_by, *(one.deployed_by for one in self.deployments)}
        if not self.rights.may(Action.DELETE, owners):
            return empty(
                t("Not for you"),
                t("It is deleted by who made it, or by who manages group {group}.",
                  group=self.service.group),
            )  # fmt: skip
        online = ", ".join(str(one.version) for one in self.deployments) or t("none")
        return panel(
            t("Delete this service"),
            element(
                "p",
                t("All versions and deployments of it go with it. This cannot be undone."),
                class_="note",
            ),
            facts([(t("Versions"), str(self.service.versions)), (t("Deployments"), online)]),
            element(
                "div",
                button(t("Delete {name}", name=self.name), "drop", symbol="trash", kind="danger"),
                class_="form-end",
            ),
            class_="danger-zone",
        )

    async def do_drop(self, _: Act) -> None:
        """Ask for its name first."""
        t = self.t
        self.open(
            Form(
                "drop_now",
                t("Delete {name}?", name=self.name),
                t("Delete"),
                [
                    Field(
                        name="name",
                        label=t("Type the name of the service"),
                        placeholder=self.name,
                        wide=True,
                        focus=True,
                    )
                ],
                danger=True,
                above=element(
                    "p", t("All versions and deployments of it go with it. This cannot be undone.")
                ),
            )
        )

    async def do_drop_now(self, act: Act) -> None:
        """Delete it."""
        if str(act.fields.get("name", "")).strip() != self.name:
            raise InvalidInput("name", "another name", self.name)
        await self.asks.call(services.delete_service, service=self.name)
        self.done(self.t("{name} deleted", name=self.name))
        await self.tab.go("/services")
