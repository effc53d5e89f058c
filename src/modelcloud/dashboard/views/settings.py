"""What may be changed of a service."""

from __future__ import annotations

from pydantic import ValidationError

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import services
from modelcloud.control.services.version_forms import ServiceChanges
from modelcloud.dashboard.markup import Markup, element
from modelcloud.dashboard.parts.basic import button, empty, panel
from modelcloud.dashboard.parts.forms import Field, Form, control
from modelcloud.dashboard.view import Act, problems_of
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import InvalidInput


class Settings(ServicePage):
    """Description, port and route."""

    tab_name = "edit"

    async def read(self) -> None:
        """The service."""
        await super().read()
        if not hasattr(self, "errors"):
            self.errors: dict[str, str] = {}

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
        return element(
            "form",
            element(
                "div",
                *(control(field, self.errors.get(field.name, "")) for field in fields),
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
            Field(
                name="route",
                label=t("Route"),
                value=service.route,
                optional=True,
                placeholder="extract",
                help=t("A path that asks for its prediction; empty: none"),
            ),
            Field(
                name="method",
                label=t("Method of the route"),
                kind="select",
                choices=[("any", t("GET or POST")), ("GET", "GET"), ("POST", "POST")],
                value=service.method,
            ),
            Field(
                name="route_port",
                label=t("Port of the route"),
                kind="integer",
                value=service.route_port or None,
                optional=True,
                help=t("Empty: the platform's; services may share one"),
            ),
        ]

    async def do_save(self, act: Act) -> None:
        """Change it."""
        fields, self.errors = self._fields(), {}
        try:
            values = Form("save", "", "", fields).values(act.fields)
            body = ServiceChanges(
                description=values.get("description", ""),
                port=values.get("port"),
                route=values.get("route"),
                method=values.get("method", "any"),
                route_port=values.get("route_port", 0),
            )
            await self.asks.call(
                services.edit_service, on=act.number("revision"), service=self.name, body=body
            )
        except (InvalidInput, ValidationError) as error:
            self.errors = problems_of(error, [field.name for field in fields])
            return
        self.done(self.t("Saved"))
