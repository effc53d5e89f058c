"""The versions of a service and its rollouts, newest first."""

from __future__ import annotations

from modelcloud.control.api import rollouts, versions
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.services.versions import VersionSummary
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    badge,
    button,
    chip,
    link,
    number,
    panel,
    row,
    size,
    table,
    when,
)
from modelcloud.dashboard.parts.history import rollout_table
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage

#: Rows that a table begins with, and that each step adds.
SHOWN = 25


class ServiceHistory(ServicePage):
    """Both."""

    tab_name = "history"
    versions_shown = SHOWN
    rollouts_shown = SHOWN

    async def read_part(self) -> None:
        """The newest of both."""
        self.versions = await self.asks.call(
            versions.list_versions, service=self.name, page=Page(self.versions_shown)
        )
        self.rollouts = await self.asks.call(
            rollouts.list_rollouts, service=self.name, page=Page(self.rollouts_shown)
        )

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        rows = [self._version(one) for one in self.versions.items]
        heads = [
            t("Version"),
            t("State"),
            t("Description"),
            t("Metrics"),
            t("Size"),
            t("By"),
            t("Made"),
        ]
        return element(
            "div",
            panel(
                t("Versions"),
                table(t("Versions"), heads, rows, empty_text=t("No version yet.")),
                self._more("versions") if self.versions.next else None,
            ),
            panel(
                t("Rollouts"),
                rollout_table(t, self.rollouts.items),
                self._more("rollouts") if self.rollouts.next else None,
            ),
            class_="stack",
        )

    def _version(self, one: VersionSummary) -> Markup:
        t = self.t
        metrics = [
            join(
                element("span", name, class_="muted"),
                " ",
                number(value) if isinstance(value, float) else str(value),
            )
            for name, value in list(one.metrics.items())[:3]
        ]
        shown: list[Child] = []
        for metric in metrics:
            shown += [metric, element("br")]
        return row(
            link(element("strong", str(one.version)), addresses.version(self.name, one.version)),
            badge(t, one.status.value) if one.enabled else chip(t("disabled")),
            one.description,
            element("span", *shown[:-1], class_="small"),
            size(one.size),
            one.created_by,
            when(one.created_at),
            key=f"version-{one.version}",
        )

    def _more(self, what: str) -> Markup:
        return element("div", button(self.t("Show more"), "more", data_what=what), class_="more")

    async def do_more(self, act: Act) -> None:
        """More rows."""
        if act.get("what") == "versions":
            self.versions_shown = min(self.versions_shown + 4 * SHOWN, MAX_LIMIT)
        else:
            self.rollouts_shown = min(self.rollouts_shown + 4 * SHOWN, MAX_LIMIT)
