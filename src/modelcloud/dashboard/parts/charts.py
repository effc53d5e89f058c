"""Curves: options for ECharts, as plain data, and small ones as drawings.

Colours are named by their tokens in the style sheet (`$series-1`), so that they follow the theme.

Must never: ask for data; points are handed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from modelcloud.dashboard.markup import Markup, element

#: There are so many colours; a series beyond shares one.
COLOURS = 6


class Series(NamedTuple):
    """A curve: pairs of x and y; a y of None is a gap. `colour`: a token; empty: the next."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: str = ""
    filled: bool = False
    dashed: bool = False


def chart(label: str, options: dict[str, Any], *, low: bool = False, key: str = "") -> Markup:
    """A place for a chart."""
    return element(
        "div",
        class_="chart low" if low else "chart",
        role="img",
        aria_label=label,
        data_key=key or f"chart-{label}",
        data_keep=True,
        data_chart=json.dumps(options, separators=(",", ":")),
    )


def lines(
    series: Sequence[Series],
    *,
    unit: str = "",
    times: bool = True,
    x_name: str = "",
    steps: bool = False,
) -> dict[str, Any]:
    """Curves over time (x in seconds since the epoch), or over steps."""
    legend = len(series) > 1
    axis_text = {"color": "$muted", "fontSize": 11}
    rule = {"lineStyle": {"color": "$line"}}
    return {
        "animation": False,
        "aria": {"enabled": False},
        "textStyle": {"fontFamily": "inherit"},
        "grid": {
            "left": 8,
            "right": 12,
            "top": 34 if legend else 14,
            "bottom": 24 if x_name else 6,
            "containLabel": True,
        },
        "legend": {
            "show": legend,
            "top": 0,
            "left": 0,
            "icon": "roundRect",
            "itemWidth": 10,
            "itemHeight": 4,
            "textStyle": {"color": "$muted", "fontSize": 12},
            "inactiveColor": "$line-strong",
            "type": "scroll",
        },
        "tooltip": {
            "trigger": "axis",
            "backgroundColor": "$raised",
            "borderColor": "$line",
            "textStyle": {"color": "$text", "fontSize": 12},
            "confine": True,
            "axisPointer": {"lineStyle": {"color": "$line-strong"}},
        },
        "xAxis": {
            "type": "time" if times else "value",
            "name": x_name,
            "nameLocation": "middle",
            "nameGap": 26,
            "nameTextStyle": {"color": "$muted", "fontSize": 12},
            "axisLine": rule,
            "axisTick": {"show": False},
            "splitLine": {"show": False},
            "axisLabel": {**axis_text, "hideOverlap": True},
            "min": "dataMin",
            "max": "dataMax",
        },
        "yAxis": {
            "type": "value",
            "scale": not times,
            "axisLine": {"show": False},
            "axisTick": {"show": False},
            "splitLine": rule,
            "splitNumber": 4,
            "min": 0 if times else None,
            "axisLabel": {**axis_text, "formatter": "{value}" + (f" {unit}" if unit else "")},
        },
        "series": [_series(one, place, times, steps) for place, one in enumerate(series)],
    }


def _series(one: Series, place: int, times: bool, steps: bool) -> dict[str, Any]:
    colour = f"${one.colour or f'series-{place % COLOURS + 1}'}"
    scale = 1000 if times else 1
    made: dict[str, Any] = {
        "name": one.name,
        "type": "line",
        "showSymbol": False,
        "sampling": "lttb",
        "step": "end" if steps else False,
        "lineStyle": {"width": 1.8, "color": colour, "type": "dashed" if one.dashed else "solid"},
        "itemStyle": {"color": colour},
        "data": [[round(x * scale, 3), y] for x, y in one.points],
    }
    if one.filled:
        made["areaStyle"] = {"color": colour, "opacity": 0.1}
    return made


def spark(label: str, values: Sequence[float], *, width: int = 240, height: int = 36) -> Markup:
    """A small curve without axes; flat at the bottom where nothing was done."""
    top = max(values, default=0) or 1
    across = width / max(len(values) - 1, 1)
    points = [
        (round(place * across, 1), round(height - 2 - (value / top) * (height - 5), 1))
        for place, value in enumerate(values)
    ]
    path = "M" + "L".join(f"{x},{y}" for x, y in points) if points else ""
    area = f"{path}L{width},{height}L0,{height}Z" if points else ""
    return element(
        "svg",
        element("path", d=area, fill="currentColor", opacity="0.1"),
        element(
            "path",
            d=path,
            fill="none",
            stroke="currentColor",
            stroke_width="1.5",
            vector_effect="non-scaling-stroke",
        ),
        class_="spark",
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
