"""The page on which a monitor is made or changed; the place can be looked at before it is kept.

Must never: draw a credential, or keep one beyond the request that it came with.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import instance_types, monitors
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.monitors.monitor_forms import MonitorBody, MonitorChanges
from modelcloud.control.monitors.monitoring import ConnectionRecord
from modelcloud.control.monitors.monitors import MonitorRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts import monitor_form
from modelcloud.dashboard.parts.basic import alert, button, empty, heading, link_button, panel
from modelcloud.dashboard.parts.forms import Field, Form, control
from modelcloud.dashboard.parts.monitors import connection, plainly
from modelcloud.dashboard.view import Act, problems_of
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import InvalidInput, ModelcloudError
from modelcloud.monitors.source import GENERAL, TYPES


class NewMonitor(ServicePage):
    """The form for a new one."""

    section = "monitors"
    tested: ConnectionRecord | None = None
    under_way = ""
    _task: asyncio.Task[None] | None = None

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("New monitor of {name}", name=self.name)

    async def read_part(self) -> None:
        """What there is to choose from."""
        if not hasattr(self, "given"):
            self.given: dict[str, Any] = {}
            self.errors: dict[str, str] = {}
        self.types = (
            await self.asks.call(instance_types.list_instance_types, page=Page(MAX_LIMIT))
        ).items

    @property
    def monitor(self) -> MonitorRecord | None:
        """The one that is changed."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """Those to begin with."""
        return self.monitor.settings if self.monitor else {}

    @property
    def kept(self) -> list[str]:
        """The names of credentials that are kept."""
        return self.monitor.secrets if self.monitor else []

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        crumbs = [
            (t("Monitors"), "/monitors"),
            (self.name, addresses.service(self.name, "monitors")),
        ]
        if not self.rights.may(Action.MONITOR):
            text = t("Your level in group {group} lets you read.", group=self.service.group)
            return join(heading(self.title, crumbs=crumbs), empty(t("Not for you"), text))
        note = t(
            "Each new model at a remote place becomes a version, and takes the old one's place."
        )
        return join(
            heading(self.title, note=note, crumbs=crumbs),
            element("div", self._form(), self._found(), class_="grid thirds"),
        )

    def _groups(self) -> list[tuple[str, list[Field]]]:
        t, settings = self.t, self.settings
        first: list[Field] = []
        if self.monitor is None:
            first.append(
                Field(
                    name="name", label=t("Name"), value=self.given.get("name"), wide=True,
                    focus=True, placeholder="daily", help=t("Letters, digits, _ and -"),
                )
            )  # fmt: skip
        kind = str(self.given.get("type") or settings.get("type") or GENERAL)
        kind = kind if kind in TYPES else GENERAL
        roots = self.asks.state.config.roots
        where = monitor_form.source_fields(t, kind, settings, self.kept, roots)
        return [
            (t("Where it looks"), [*first, *where]),
            (t("How it looks"), monitor_form.rule_fields(t, settings, self._place())),
            (
                t("What becomes of a version"),
                monitor_form.online_fields(
                    t, settings, self.given, self.types, self.deployments, self.monitor
                ),
            ),
            (t("What each version gets"), monitor_form.version_fields(t, settings)),
        ]

    def _fields(self) -> list[Field]:
        return [field for _, fields in self._groups() for field in fields]

    def _place(self) -> str:
        """The place that is typed so far, by which it may be trusted."""
        options = self.settings.get("storage_options", {})
        kept = {f"{monitor_form.PLAIN}{name}": value for name, value in options.items()}
        return monitor_form.place_so_far({**self.settings, **kept, **self.given})

    def _form(self) -> Markup:
        t = self.t
        groups = self._groups()
        known = {field.name for _, fields in groups for field in fields}
        loose = [text for name, text in self.errors.items() if name not in known]
        back = (
            addresses.service(self.name, "monitors")
            if self.monitor is None
            else addresses.monitor(self.name, self.monitor.name)
        )
        tests = button(t("Test the connection"), name="then", value="test")
        return element(
            "form",
            alert([element("p", text) for text in loose]) if loose else None,
            *(
                panel(
                    title,
                    element(
                        "div",
                        *(control(one, self.errors.get(one.name, "")) for one in fields),
                        class_="fields",
                    ),
                    key=f"part-{place}",
                )
                for place, (title, fields) in enumerate(groups)
            ),
            element(
                "div",
                link_button(t("Cancel"), back, kind="quiet"),
                tests if self.monitor is None else None,
                button(
                    t("Make the monitor") if self.monitor is None else t("Save"),
                    kind="primary",
                    name="then",
                    value="keep",
                ),
                class_="form-end",
            ),
            data_do="submit",
            data_draft="draft",
            data_change="draft",
            novalidate=True,
        )

    def _found(self) -> Child:
        t = self.t
        if self.monitor is not None:
            text = t(
                "It acts in your name once you have changed it. Asked at another place, it forgets "
                "the credentials that are kept."
            )
            return panel(t("What a change does"), element("p", text, class_="none"))
        if self.under_way:
            shown: Child = element(
                "p", self.under_way, class_="muted", role="status", aria_busy="true"
            )
        elif self.tested is not None:
            shown = connection(t, self.tested)
        else:
            text = t(
                "Test the connection, and what is there shows here. Nothing is kept or pulled."
            )
            shown = element("p", text, class_="none")
        return panel(t("What is there"), shown)

    def _read(self, fields: Any) -> dict[str, Any]:
        values = Form("submit", "", "", self._fields()).values(fields)
        return monitor_form.body_of(values, self.settings, self.kept)

    async def do_draft(self, act: Act) -> None:
        """What is being typed: other fields may matter now."""
        self._remember(act.fields)

    async def do_submit(self, act: Act) -> None:
        """Test it, or keep it."""
        if self._task is not None and not self._task.done():
            return
        self._remember(act.fields)
        self.errors, self.tested = {}, None
        try:
            body = self._read(act.fields)
            if act.fields.get("then") == "test":
                self._begin_test(MonitorBody(**body))
            else:
                await self._keep(body)
        except (ModelcloudError, ValidationError) as error:
            self._show_wrong(error)

    async def _keep(self, body: dict[str, Any]) -> None:
        record = await self.asks.call(
            monitors.create_monitor, service=self.name, body=MonitorBody(**body)
        )
        self.tab.say(self.t("{place} is watched", place=record.place), "ok")
        await self.tab.go(addresses.monitor(self.name, record.name))

    def _begin_test(self, body: MonitorBody) -> None:
        self.under_way = self.t("Looking there …")
        self._task = asyncio.get_running_loop().create_task(self._test(body))

    async def _test(self, body: MonitorBody) -> None:
        try:
            self.tested = await self.asks.call(
                monitors.test_new_monitor, service=self.name, body=body
            )
        except ModelcloudError as error:
            self._show_wrong(error)
        finally:
            self.under_way = ""
            if self.tab.shows(self):
                self.tab.show()

    def _remember(self, fields: Any) -> None:
        self.given = {
            name: value for name, value in fields.items() if not monitor_form.is_secret(name)
        }

    def _show_wrong(self, error: ModelcloudError | ValidationError) -> None:
        """Beside the fields, in words of a form rather than of the command line."""
        found = problems_of(error, [one.name for one in self._fields()])
        if isinstance(error, InvalidInput) and "path" in found:
            found["remote_path"] = found.pop("path")
        self.errors = {name: plainly(text) for name, text in found.items()}


class EditMonitor(NewMonitor):
    """The form for one that is there."""

    _record: MonitorRecord

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Edit {name}", name=self.place["monitor"])

    @property
    def monitor(self) -> MonitorRecord:
        """The one that is changed, as it was when the page was opened."""
        return self._record

    async def read_part(self) -> None:
        """The monitor too."""
        if not hasattr(self, "_record"):
            self._record = await self.asks.call(
                monitors.get_monitor, service=self.name, monitor=self.place["monitor"]
            )
        await super().read_part()

    async def _keep(self, body: dict[str, Any]) -> None:
        record = await self.asks.call(
            monitors.edit_monitor,
            on=self._record.revision,
            service=self.name,
            monitor=self._record.name,
            body=MonitorChanges(**body),
        )
        self.tab.say(self.t("Saved"), "ok")
        await self.tab.go(addresses.monitor(self.name, record.name))
