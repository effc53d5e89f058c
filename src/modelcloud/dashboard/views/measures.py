"""What a service did over a time: all versions together, or one."""

from __future__ import annotations

from modelcloud.control.api import metrics
from modelcloud.control.observe.metrics import History
from modelcloud.dashboard.markup import Markup, element, join
from modelcloud.dashboard.parts.measures import SPANS, measure_panels, span_choice
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage


class Measures(ServicePage):
    """The charts."""

    tab_name = "metrics"
    every_s = 10.0
    span = SPANS[1].name
    version = ""

    async def read_part(self) -> None:
        """What was measured."""
        since = self.asks.state.wall() - next(s.seconds for s in SPANS if s.name == self.span)
        if self.version:
            self.history: History = await self.asks.call(
                metrics.get_version_metrics,
                service=self.name,
                version=int(self.version),
                since=since,
            )
        else:
            self.history = await self.asks.call(
                metrics.get_service_metrics, service=self.name, since=since
            )

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        there = sorted({str(one.version) for one in self.deployments}, key=int, reverse=True)
        choices = [
            ("", t("All versions")),
            *((v, t("version {version}", version=v)) for v in there),
        ]
        versions = element(
            "select",
            *(
                element("option", label, value=value, selected=value == self.version)
                for value, label in choices
            ),
            data_do="of_version",
            aria_label=t("Version"),
            id="of-version",
        )
        return join(
            element("div", versions, span_choice(t, self.span), class_="bar"),
            measure_panels(t, self.history),
        )

    async def do_span(self, act: Act) -> None:
        """Another time to look at."""
        if act.get("value") in {one.name for one in SPANS}:
            self.span = act.get("value")

    async def do_of_version(self, act: Act) -> None:
        """Another version."""
        value = act.get("value")
        self.version = value if value.isascii() and value.isdecimal() and len(value) < 10 else ""
