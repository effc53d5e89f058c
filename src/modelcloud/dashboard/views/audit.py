"""The audit log: who did what to which object, filtered, newest first."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from modelcloud.control.access.audit import Entry
from modelcloud.control.api import audit
from modelcloud.control.api.deps import TimeParam
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.dashboard.markup import Markup, element, join
from modelcloud.dashboard.parts.basic import badge, button, heading, row, table, when
from modelcloud.dashboard.parts.forms import Field, control
from modelcloud.dashboard.view import Act, View

SHOWN = 50
_FILTERS = ("actor", "action", "kind", "name", "group")
_TIMES = ("since", "until")
_SECONDS = TypeAdapter(TimeParam)


class Audit(View):
    """The entries."""

    section = "audit"
    shown = SHOWN

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Audit log")

    async def read(self) -> None:
        """The newest that are asked for."""
        wanted: dict[str, Any] = {name: self.query.get(name) or None for name in _FILTERS}
        for name in _TIMES:
            wanted[name] = self._time(name)
        self.entries = await self.asks.call(
            audit.list_entries, page=Page(min(self.shown, MAX_LIMIT)), **wanted
        )

    def _time(self, name: str) -> float | None:
        if not self.query.get(name):
            return None
        try:
            return _SECONDS.validate_python(self.query[name])
        except ValidationError:
            self.query = {**self.query, name: ""}
            return None

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        labels = {
            "actor": t("Who"),
            "action": t("Action"),
            "kind": t("Kind"),
            "name": t("Object"),
            "group": t("Group"),
        }
        fields = [
            Field(name=name, label=label, value=self.query.get(name), optional=True)
            for name, label in labels.items()
        ]
        times = [
            Field(name=name, label=label, kind="time", value=self.query.get(name), optional=True)
            for name, label in (("since", t("Since")), ("until", t("Until")))
        ]
        form = element(
            "form",
            element("div", *(control(field) for field in fields), class_="fields dense"),
            element("div", *(control(field) for field in times), class_="fields times"),
            element("div", button(t("Filter"), symbol="search"), class_="form-end"),
            data_do="filter",
            data_change="filter",
        )
        heads = [
            t("When"),
            t("Who"),
            t("Action"),
            t("Object"),
            t("Group"),
            t("From"),
            t("Outcome"),
            t("Detail"),
        ]
        rows = [self._row(entry) for entry in self.entries.items]
        more = None
        if self.entries.next and self.shown < MAX_LIMIT:
            more = element("div", button(t("Show more"), "more"), class_="more")
        return join(
            heading(self.title),
            element("section", form, class_="panel"),
            element(
                "section",
                table(self.title, heads, rows, empty_text=t("No entry fits.")),
                more,
                class_="panel",
            ),
        )

    def _row(self, entry: Entry) -> Markup:
        return row(
            when(entry.at, as_="date"),
            element("strong", entry.actor),
            entry.action,
            join(element("span", entry.kind, class_="muted"), " ", entry.name),
            entry.group,
            entry.peer,
            badge(self.t, entry.outcome),
            element("span", entry.detail, class_="muted small"),
            key=f"entry-{entry.id}",
        )

    async def do_filter(self, act: Act) -> None:
        """Other entries."""
        self.query = {name: str(act.fields.get(name, "")).strip() for name in (*_FILTERS, *_TIMES)}
        asked = {name: value for name, value in self.query.items() if value}
        self.shown = SHOWN
        self.tab.replace_address("/audit" + (f"?{urlencode(asked)}" if asked else ""))

    async def do_more(self, _: Act) -> None:
        """More entries."""
        self.shown += 3 * SHOWN
