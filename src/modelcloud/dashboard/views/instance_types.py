"""Instance types: what one replica may use; administrators change them."""

from __future__ import annotations

from typing import Any

from modelcloud.control.access.permissions import Action, allowed
from modelcloud.control.api import instance_types
from modelcloud.control.api.instance_types import InstanceTypeChanges, NewInstanceType
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.resources.instance_types import InstanceTypeRecord
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import button, heading, row, size, table
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.view import Act, View

_MIB = 1 << 20


class InstanceTypes(View):
    """All of them."""

    section = "instance-types"

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Instance types")

    async def read(self) -> None:
        """The types."""
        self.types = (
            await self.asks.call(instance_types.list_instance_types, page=Page(MAX_LIMIT))
        ).items

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        may = allowed(self.tab.actor, Action.MANAGE_INSTANCE_TYPES)
        make = button(t("New instance type"), "new", symbol="plus", kind="primary") if may else None
        heads = [t("Name"), t("Description"), t("Processors"), t("Memory"), "GPU", ""]
        rows = [self._row(one, may=may) for one in self.types]
        note = t("What one replica of a deployment may use. What is deployed keeps what it has.")
        return join(
            heading(self.title, make, note=note),
            element(
                "section",
                table(self.title, heads, rows, empty_text=t("None is there.")),
                class_="panel",
            ),
        )

    def _row(self, one: InstanceTypeRecord, *, may: bool) -> Markup:
        t = self.t
        actions: Child = None
        if may:
            actions = element(
                "div",
                button(
                    t("Edit"),
                    "edit",
                    kind="quiet",
                    small=True,
                    data_type=one.name,
                    aria_label=f"{t('Edit')}: {one.name}",
                ),
                button(
                    t("Delete"),
                    "drop",
                    kind="quiet bad",
                    small=True,
                    data_type=one.name,
                    aria_label=f"{t('Delete')}: {one.name}",
                ),
                class_="actions",
            )
        return row(
            element("strong", one.name),
            element("span", one.description, class_="muted"),
            f"{one.cpu:g}" if one.cpu else t("no limit"),
            size(one.memory) if one.memory else t("no limit"),
            f"{one.gpu:g}" if one.gpu else t("none"),
            actions,
            key=f"type-{one.name}",
        )

    def _fields(self, one: InstanceTypeRecord | None) -> list[Field]:
        t = self.t
        memory = None if one is None else one.memory / _MIB
        return [
            Field(
                name="description",
                label=t("Description"),
                value=one.description if one else "",
                wide=True,
                focus=one is not None,
            ),
            Field(
                name="cpu",
                label=t("Processors"),
                kind="number",
                value=one.cpu if one else 1.0,
                help=t("0: no limit"),
            ),
            Field(
                name="memory",
                label=t("Memory in MiB"),
                kind="number",
                value=memory if one else 1024.0,
                help=t("0: no limit"),
            ),
            Field(
                name="gpu",
                label="GPU",
                kind="number",
                value=one.gpu if one else 0.0,
                help=t("A fraction shares a device"),
            ),
        ]

    async def do_new(self, _: Act) -> None:
        """A form for one."""
        t = self.t
        name = Field(name="name", label=t("Name"), focus=True, wide=True)
        self.open(Form("make", t("New instance type"), t("Make it"), [name, *self._fields(None)]))

    async def do_make(self, act: Act) -> None:
        """Make it."""
        values = self._values(act)
        body = NewInstanceType(**values)
        await self.asks.call(instance_types.create_instance_type, body=body)
        self.done(self.t("Instance type {name} made", name=body.name))

    async def do_edit(self, act: Act) -> None:
        """A form for one."""
        t = self.t
        one = next(one for one in self.types if one.name == act.get("type"))
        args = {"type": one.name, "revision": str(one.revision)}
        self.open(
            Form("save", t("Edit {name}", name=one.name), t("Save"), self._fields(one), args=args)
        )

    async def do_save(self, act: Act) -> None:
        """Change it."""
        body = InstanceTypeChanges(**self._values(act))
        await self.asks.call(
            instance_types.edit_instance_type,
            on=act.number("revision"),
            name=act.get("type"),
            body=body,
        )
        self.done(self.t("Saved"))

    async def do_drop(self, act: Act) -> None:
        """Ask first."""
        t = self.t
        text = t("What is deployed with it keeps what it has.")
        self.open(
            Form(
                "drop_now",
                t("Delete {name}?", name=act.get("type")),
                t("Delete"),
                [],
                danger=True,
                args={"type": act.get("type")},
                above=element("p", text),
            )
        )

    async def do_drop_now(self, act: Act) -> None:
        """Delete it."""
        await self.asks.call(instance_types.delete_instance_type, name=act.get("type"))
        self.done(self.t("{name} deleted", name=act.get("type")))

    def _values(self, act: Act) -> dict[str, Any]:
        assert self.form is not None
        values = self.form.values(act.fields)
        return {**values, "memory": int(values["memory"] * _MIB)}
