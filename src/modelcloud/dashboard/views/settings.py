"""What may be changed of a service."""

from __future__ import annotations

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import services
from modelcloud.control.services.version_forms import ServiceChanges
from modelcloud.dashboard.markup import Markup, element
from modelcloud.dashboard.parts.basic import button, empty, panel
from modelcloud.dashboard.parts.forms import Field, Form, control
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage


class Settings(ServicePage):
    """Description and port."""

    tab_name = "edit"

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        if not self.rights.may(Action.EDIT_SERVICE):
            return empty(
                t("Nothing to change here"),
                t("Your level in group {group} lets you read.", group=self.service.group),
            )
        return panel(t("Edit"), self._form())

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
