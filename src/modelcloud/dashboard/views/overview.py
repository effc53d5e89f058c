"""The entrance: how everything that one may see stands."""

from __future__ import annotations

from functools import partial

from modelcloud.control.access.audit import Entry
from modelcloud.control.access.permissions import Action, allowed
from modelcloud.control.api import audit, node, rollouts
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing
from modelcloud.control.deployments.deployment_states import Status
from modelcloud.control.deployments.rollouts import RolloutRecord
from modelcloud.control.observe import glance
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    badge,
    count,
    empty,
    heading,
    link,
    link_button,
    many,
    meter,
    number,
    panel,
    row,
    size,
    table,
    when,
)
from modelcloud.dashboard.parts.charts import Series, chart, lines
from modelcloud.dashboard.parts.history import rollout_table
from modelcloud.dashboard.view import View

SHOWN = 8


class Overview(View):
    """The overview."""

    section = "overview"
    every_s = 10.0

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Overview")

    async def read(self) -> None:
        """Counts, traffic, the node, what happened last."""
        state = self.asks.state
        actor = await self.asks.actor()
        self.glance = await state.store.read(partial(glance.glance, actor=actor, now=state.wall()))
        self.node = await self.asks.call(node.get_node)
        self.rollouts: Listing[RolloutRecord] = await self.asks.call(
            rollouts.list_rollouts, page=Page(SHOWN)
        )
        self.entries: Listing[Entry] | None = None
        if allowed(actor, Action.READ_AUDIT):
            self.entries = await self.asks.call(audit.list_entries, page=Page(SHOWN))

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        register = link_button(
            t("Register a model"), "/register", symbol="register", kind="primary"
        )
        if not any(self.glance.services.values()):
            return join(
                heading(self.title),
                empty(
                    t("No services yet"),
                    t("A service answers with a model. Register the first version of one."),
                    register,
                ),
                self._node(),
            )
        return join(
            heading(self.title, register),
            self._numbers(),
            element(
                "div",
                element("div", self._traffic(), self._rollouts(), class_="stack"),
                element("div", self._node(), self._entries(), class_="stack"),
                class_="grid thirds",
            ),
        )

    def _numbers(self) -> Markup:
        t, seen = self.t, self.glance
        minutes = glance.NOW_S // 60

        def figure(value: str, label: str, to: str = "", tone: str = "") -> Markup:
            name: Child = link(label, to) if to else label
            return element(
                "div",
                element("strong", value),
                element("span", name, class_=tone or None),
                class_="figure",
            )

        states = [
            figure(str(seen.services[status]), t(status.value), f"/services?state={status.value}")
            for status in Status
        ]
        rate = 100 * seen.errors / seen.requests if seen.requests else None
        return element(
            "div",
            *states,
            figure(count(seen.requests), t("requests in {minutes} min", minutes=minutes)),
            figure("—" if rate is None else f"{rate:.2g} %", t("errors")),
            figure("—" if seen.p99_ms is None else f"{number(seen.p99_ms, 3)} ms", "p99"),
            class_="numbers",
        )

    def _traffic(self) -> Markup:
        t = self.t
        per_s = [
            (float(step.at), round(step.requests / glance.STEP_S, 3)) for step in self.glance.steps
        ]
        wrong = [
            (float(step.at), round(step.errors / glance.STEP_S, 3)) for step in self.glance.steps
        ]
        options = lines(
            [
                Series(t("requests"), per_s, filled=True),
                Series(t("errors"), wrong, "bad"),
            ],
            unit="/s",
        )
        return panel(
            t("Traffic, last hour"),
            chart(t("Requests and errors a second in the last hour"), options),
        )

    def _rollouts(self) -> Markup:
        t = self.t
        return panel(t("Latest rollouts"), rollout_table(t, self.rollouts.items, service=True))

    def _node(self) -> Markup:
        t, used, whole = self.t, self.node.in_use, self.node.capacity
        meters: list[Child] = [
            meter(
                t("Processors"),
                used.cpu,
                whole.cpu,
                f"{used.cpu:g} / {whole.cpu:g}" if whole.cpu > 0 else f"{used.cpu:g}",
            ),
            meter(
                t("Memory"),
                used.memory,
                whole.memory,
                f"{size(used.memory)} / {size(whole.memory)}"
                if whole.memory > 0
                else size(used.memory),
            ),
        ]
        if whole.gpu > 0:
            meters.append(meter("GPU", used.gpu, whole.gpu, f"{used.gpu:g} / {whole.gpu:g}"))
        replicas = element("p", many(t, "{count} replica", used.replicas), class_="muted small")
        return panel(t("Node"), *meters, element("br"), replicas)

    def _entries(self) -> Child:
        if self.entries is None:
            return None
        t = self.t
        rows = [
            row(
                when(entry.at),
                join(element("strong", entry.actor), " ", entry.action, " ", entry.name),
                badge(t, entry.outcome) if entry.outcome != "ok" else None,
                key=f"entry-{entry.id}",
            )
            for entry in self.entries.items
        ]
        return panel(
            t("Latest entries of the audit log"),
            table(t("Latest entries of the audit log"), [t("When"), t("What"), ""], rows),
            actions=link(t("All of them"), "/audit"),
        )
