"""What may be changed of a service, and its end."""

from __future__ import annotations

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import services
from modelcloud.control.services.version_forms import ServiceChanges
from modelcloud.dashboard.markup import Child, Markup, element
from modelcloud.dashboard.parts.basic import button, empty, panel
from modelcloud.dashboard.parts.forms import Field, Form, control
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import InvalidInput


class Settings(ServicePage):
    """Description, port, and deleting it."""

    tab_name = "edit"

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        parts: list[Child] = []
        if self.rights.may(Action.EDIT_SERVICE):
            parts.append(panel(t("Edit"), self._form()))
        owners = {self.service.created_by, *(one.deployed_by for one in self.deployments)}
        if self.rights.may(Action.DELETE, owners):
            parts.append(
                panel(
                    t("Delete"),
                    element(
                        "p",
                        t("All versions and deployments of it go with it. This cannot be undone."),
                        class_="note",
                    ),
                    element(
                        "div",
                        button(
                            t("Delete {name}", name=self.name),
                            "drop",
                            symbol="trash",
                            kind="danger",
                        ),
                        class_="form-end",
                    ),
                )
            )
        if not parts:
            return empty(
                t("Nothing to change here"),
                t("Your level in group {group} lets you read.", group=self.service.group),
            )
        return element("div", *parts, class_="stack")

    def _form(self) -> Markup:
        t, service = self.t, self.service
        fields = self._fields()
        errors = self.form.errors if self.form is not None and self.form.do == "save" else {}
        return element(
            "form",
            element(
                "div",
                *(control(field, errors.get(field.name, "")) for field in fields),
                class_="fields",
            ),
            element("div", button(t("Save"), kind="primary"), class_="form-end"),
            data_do="save",
            data_revision=service.revision,
            data_key=f"edit-{service.revision}",
        )

    def _fields(self) -> list[Field]:
        t, service = self.t, self.service
        return [
            Field(
                name="description",
                label=t("Description"),
                kind="area",
                value=service.description,
                wide=True,
            ),
            Field(
                name="port",
                label=t("Port of its own"),
                kind="integer",
                value=service.port,
                optional=True,
                help=t("Beside the platform's address; empty: none"),
            ),
        ]

    async def do_save(self, act: Act) -> None:
        """Change it."""
        values = Form("save", "", "", self._fields()).values(act.fields)
        body = ServiceChanges(description=values.get("description", ""), port=values.get("port"))
        await self.asks.call(
            services.edit_service, on=act.number("revision"), service=self.name, body=body
        )
        self.done(self.t("Saved"))

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
