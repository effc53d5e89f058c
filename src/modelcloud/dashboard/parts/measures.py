"""What was measured over a time, as charts.

Must never: ask for it.
"""

from __future__ import annotations

from typing import NamedTuple

from modelcloud.control.observe.metrics import History
from modelcloud.dashboard.markup import Markup, element
from modelcloud.dashboard.parts.basic import panel
from modelcloud.dashboard.parts.charts import Series, chart, lines
from modelcloud.dashboard.words import Words


class Span(NamedTuple):
    """A time to look at."""

    name: str
    seconds: int


_SPAN_WORDS = ("15 min", "1 h", "6 h", "1 day", "7 days", "30 days")
SPANS = tuple(
    Span(name, seconds)
    for name, seconds in zip(
        _SPAN_WORDS, (900, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400), strict=True
    )
)
#: Points of a chart; of more, several become one.
MOST_POINTS = 720


def span_choice(t: Words, chosen: str) -> Markup:
    """Which time to look at."""
    return element(
        "select",
        *(element("option", t(name), value=name, selected=name == chosen) for name, _ in SPANS),
        data_do="span",
        aria_label=t("Time"),
        id="span",
    )


def measure_panels(t: Words, history: History) -> Markup:
    """The charts."""
    points, span = history.points[:-1], history.span_s  # the last one is not over
    if len(points) > MOST_POINTS:
        points = points[-MOST_POINTS * (len(points) // MOST_POINTS) :: len(points) // MOST_POINTS]

    def curve(
        name: str, values: list[float | None], colour: str = "", *, filled: bool = False
    ) -> Series:
        pairs = [(float(point.at), value) for point, value in zip(points, values, strict=True)]
        return Series(name, pairs, colour, filled)

    charts = [
        (
            t("Requests"),
            t("Requests and errors a second"),
            "/s",
            [
                curve(t("requests"), [round(p.requests / span, 3) for p in points], filled=True),
                curve(t("errors"), [round(p.errors / span, 3) for p in points], "bad"),
            ],
        ),
        (
            t("Latency"),
            t("Latency percentiles in milliseconds"),
            "ms",
            [
                curve("p50", [p.p50_ms for p in points]),
                curve("p95", [p.p95_ms for p in points]),
                curve("p99", [p.p99_ms for p in points]),
                curve(t("in the queue"), [p.queue_ms for p in points]),
            ],
        ),
        (
            t("Load"),
            t("Requests under way and in a batch"),
            "",
            [
                curve(t("under way"), [p.in_flight for p in points], filled=True),
                curve(t("in a batch"), [p.batch_size for p in points]),
            ],
        ),
        (
            t("Workers"),
            t("Processors that the workers kept busy"),
            "",
            [
                curve(t("processors"), [p.cpu for p in points], "series-2", filled=True),
            ],
        ),
        (
            t("Memory"),
            t("Memory of the workers in MiB"),
            "MiB",
            [
                curve(
                    t("memory"),
                    [round(p.memory / (1 << 20), 1) for p in points],
                    "series-4",
                    filled=True,
                ),
            ],
        ),
    ]
    if any(point.shadowed for point in points):
        charts.append(
            (
                t("Shadow"),
                t("Copies of other versions' requests, a second"),
                "/s",
                [
                    curve(t("answered alike"), [round(p.shadow_same / span, 3) for p in points]),
                    curve(
                        t("answered otherwise"),
                        [round(p.shadow_different / span, 3) for p in points],
                        "bad",
                    ),
                ],
            )
        )
    panels = [
        panel(title, chart(label, lines(series, unit=unit), low=True), key=f"measure-{title}")
        for title, label, unit, series in charts
    ]
    return element("div", *panels, class_="grid halves")
