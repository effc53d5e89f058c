"""A version: what it is, what its training said, what it does."""

from __future__ import annotations

from typing import Any

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import metrics, versions
from modelcloud.control.observe.metrics import History
from modelcloud.control.services.version_forms import VersionChanges
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    alert,
    badge,
    button,
    chip,
    code,
    facts,
    heading,
    link,
    number,
    panel,
    row,
    size,
    table,
    when,
)
from modelcloud.dashboard.parts.charts import Series, chart, lines
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.parts.measures import SPANS, measure_panels, span_choice
from modelcloud.dashboard.parts.signature import commands_list, options_table
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import NotFound


class VersionPage(ServicePage):
    """One version."""

    every_s = 10.0
    span = SPANS[1].name

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("{name} version {version}", name=self.name, version=self.place["version"])

    @property
    def number(self) -> int:
        """Of the version."""
        text = self.place["version"]
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise NotFound(self.t("There is no such page."))
        return int(text)

    async def read_part(self) -> None:
        """The version, its curves, what it did."""
        number = self.number
        self.version = await self.asks.call(versions.get_version, service=self.name, version=number)
        self.curves = {}
        if self.version.curves:
            found = await self.asks.call(versions.get_curves, service=self.name, version=number)
            self.curves = found.curves
        span = next(one for one in SPANS if one.name == self.span)
        self.history: History = await self.asks.call(
            metrics.get_version_metrics,
            service=self.name,
            version=number,
            since=self.asks.state.wall() - span.seconds,
        )

    def draw(self) -> Markup:
        """The page."""
        return join(self._version_head(), self.draw_part())

    def _version_head(self) -> Markup:
        t, version = self.t, self.version
        actions: list[Child] = []
        if self.rights.may(Action.DEPLOY) and version.enabled:
            actions.append(
                button(
                    t("Deploy"),
                    "deploy",
                    symbol="deploy",
                    kind="primary",
                    data_version=version.version,
                )
            )
        if self.rights.may(Action.EDIT_VERSION):
            actions.append(button(t("Edit"), "edit_version", symbol="edit"))
        crumbs = [(t("Services"), "/services"), (self.name, addresses.service(self.name))]
        state = badge(t, version.status.value) if version.enabled else chip(t("disabled"))
        return heading(self.title, state, *actions, note=version.description, crumbs=crumbs)

    def draw_part(self) -> Markup:
        """All of it."""
        t = self.t
        return join(
            element(
                "div",
                element(
                    "div",
                    self._training(),
                    panel(t("Setup options"), options_table(t, self.version.signature)),
                    panel(t("Commands"), commands_list(t, self.version.signature)),
                    class_="stack",
                ),
                element("div", self._address(), self._metrics(), self._about(), class_="stack"),
                class_="grid thirds",
            ),
            element(
                "div",
                element("h2", t("What it does")),
                span_choice(t, self.span),
                class_="bar section",
            ),
            measure_panels(t, self.history),
            self._end(),
        )

    def _end(self) -> Child:
        t = self.t
        if not self.rights.may(Action.DELETE, {self.version.created_by}):
            return None
        text = t("Its files go with the last version that has them. This cannot be undone.")
        return panel(
            t("Delete this version"),
            element("p", text, class_="note"),
            element(
                "div",
                button(
                    t("Delete {name}", name=self.title),
                    "drop_version",
                    symbol="trash",
                    kind="danger",
                ),
                class_="form-end",
            ),
            class_="danger-zone",
        )

    def _training(self) -> Child:
        t = self.t
        if not self.curves:
            return None
        series = [
            Series(name, [(float(x), float(y)) for x, y in points])
            for name, points in self.curves.items()
        ]
        options = lines(series, times=False, x_name=t("step"))
        return panel(t("Training"), chart(t("Training curves by step"), options))

    def _metrics(self) -> Markup:
        t = self.t
        rows = [
            row(
                name,
                element("strong", number(value) if isinstance(value, float) else str(value)),
                key=f"metric-{name}",
            )
            for name, value in self.version.metrics.items()
        ]
        text = t("None was given. A metrics.json beside the model is read.")
        return panel(
            t("Model metrics"),
            table(t("Model metrics"), [t("Metric"), t("Value")], rows, empty_text=text),
        )

    def _address(self) -> Markup:
        t = self.t
        return panel(t("Address"), code(f"{self.gateway}{self.version.address}", "address", t))

    def _about(self) -> Markup:
        t, version = self.t, self.version
        origin: dict[str, Any] = version.origin
        notes = [element("p", note, class_="small muted") for note in origin.get("notes", [])]
        source = origin.get("path") or t("an upload")
        options: Child = element("code", str(version.options)) if version.options else t("none")
        return panel(
            t("About"),
            facts(
                [
                    (t("Runtime"), version.runtime),
                    (t("Main file"), element("code", version.main)),
                    (t("Files"), f"{version.files} · {size(version.size)}"),
                    (t("Artifact"), element("code", version.artifact[:16], title=version.artifact)),
                    (t("Options"), options),
                    (
                        t("Environment"),
                        element("code", version.requirements)
                        if version.requirements
                        else t("the platform's own"),
                    ),
                    (t("From"), source),
                    (t("By"), version.created_by),
                    (t("Made"), when(version.created_at, as_="date")),
                    (
                        t("Log"),
                        link(
                            t("What its workers wrote"),
                            f"{addresses.service(self.name, 'logs')}?version={version.version}",
                        ),
                    ),
                ]
            ),
            alert(notes, tone="warn") if notes else None,
        )

    async def do_span(self, act: Act) -> None:
        """Another time to look at."""
        if act.get("value") in {one.name for one in SPANS}:
            self.span = act.get("value")

    async def do_edit_version(self, _: Act) -> None:
        """A form for what may be changed of it."""
        t, version = self.t, self.version
        self.open(
            Form(
                "save_version",
                t("Edit {name}", name=self.title),
                t("Save"),
                [
                    Field(
                        name="description",
                        label=t("Description"),
                        kind="area",
                        value=version.description,
                        wide=True,
                        focus=True,
                    ),
                    Field(
                        name="metrics",
                        label=t("Model metrics"),
                        kind="json",
                        value=version.metrics,
                        wide=True,
                    ),
                    Field(
                        name="enabled",
                        label=t("It may be deployed"),
                        kind="check",
                        value=version.enabled,
                        wide=True,
                    ),
                ],
                args={"revision": str(version.revision)},
            )
        )

    async def do_save_version(self, act: Act) -> None:
        """Change it."""
        assert self.form is not None
        await self.asks.call(
            versions.edit_version,
            on=act.number("revision"),
            service=self.name,
            version=self.number,
            body=VersionChanges(**self.form.values(act.fields)),
        )
        self.done(self.t("Saved"))

    async def do_drop_version(self, _: Act) -> None:
        """Ask first."""
        t = self.t
        text = t("Its files go with the last version that has them. This cannot be undone.")
        self.open(
            Form(
                "drop_version_now",
                t("Delete {name}?", name=self.title),
                t("Delete"),
                [],
                danger=True,
                above=element("p", text),
            )
        )

    async def do_drop_version_now(self, _: Act) -> None:
        """Delete it."""
        await self.asks.call(versions.delete_version, service=self.name, version=self.number)
        self.done(self.t("{name} deleted", name=self.title))
        await self.tab.go(addresses.service(self.name, "history"))
