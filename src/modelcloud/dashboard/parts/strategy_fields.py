"""The fields of a strategy with its numbers, and the strategy as the API takes it.

Must never: judge a number; the operation that takes the strategy does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelcloud.dashboard.parts.forms import Field
from modelcloud.dashboard.words import Words
from modelcloud.errors import InvalidInput
from modelcloud.types import Strategy, StrategySpec

_STRATEGY_WORDS = (
    "All at once, when all new ones are ready (blue_green)",
    "One after the other (rolling)",
    "Stop, then start (recreate)",
    "Step by step, watched (canary)",
)
#: Before the names of fields with numbers, as the operations name them.
STRATEGY = "strategy."
_NUMBERS = {
    Strategy.CANARY.value: ("steps", "max_error_rate", "max_p99_ms", "min_requests"),
    Strategy.ROLLING.value: ("max_surge", "max_unavailable"),
}


def strategies(t: Words) -> list[tuple[str, str]]:
    """Strategies to choose from."""
    return [
        (strategy.value, t(label))
        for strategy, label in zip(Strategy, _STRATEGY_WORDS, strict=True)
    ]


def number_fields(t: Words, strategy: str, before: Mapping[str, Any]) -> list[Field]:
    """The numbers of a strategy; they begin as in `before`, which may be another one's."""
    given = before if before.get("name") == strategy else {}
    usual = StrategySpec()
    if strategy == Strategy.ROLLING.value:
        return [
            Field(
                name=STRATEGY + "max_surge", kind="integer",
                label=t("Most workers above the number"),
                value=given.get("max_surge", usual.max_surge),
                help=t("Started before old ones stop"),
            ),
            Field(
                name=STRATEGY + "max_unavailable", kind="integer",
                label=t("Most workers below it"),
                value=given.get("max_unavailable", usual.max_unavailable),
                help=t("Stopped before new ones are ready"),
            ),
        ]  # fmt: skip
    if strategy != Strategy.CANARY.value:
        return []
    return [
        Field(
            name=STRATEGY + "steps", label=t("Steps"), value=_steps_of(given, usual), wide=True,
            help=t("percent:seconds of watching, one after the other"),
        ),
        Field(
            name=STRATEGY + "max_error_rate", label=t("Most errors (0 to 1)"), kind="number",
            value=given.get("max_error_rate", usual.max_error_rate),
        ),
        Field(
            name=STRATEGY + "max_p99_ms", label=t("Most p99 in ms (0: any)"), kind="number",
            value=given.get("max_p99_ms", usual.max_p99_ms),
        ),
        Field(
            name=STRATEGY + "min_requests", kind="integer",
                label=t("Judged from so many answers on"),
            value=given.get("min_requests", usual.min_requests),
        ),
    ]  # fmt: skip


def strategy_from(name: str | None, values: dict[str, Any]) -> Any:
    """The strategy with its numbers, which are taken out of `values`; None: as it is.

    Raises:
        InvalidInput: the steps cannot be read.
    """
    given = {
        key.removeprefix(STRATEGY): values.pop(key) for key in [*values] if key.startswith(STRATEGY)
    }
    numbers = {key: given[key] for key in _NUMBERS.get(name or "", ()) if key in given}
    if "steps" in numbers:
        numbers["steps"] = _read_steps(str(numbers["steps"]))
    return {"name": name, **numbers} if numbers else name


def _steps_of(given: Mapping[str, Any], usual: StrategySpec) -> str:
    steps = given.get("steps") or [
        {"percent": step.percent, "watch_s": step.watch_s} for step in usual.steps
    ]
    return ", ".join(f"{step['percent']:g}:{step.get('watch_s', 60):g}" for step in steps)


def _read_steps(text: str) -> list[dict[str, float]]:
    found = []
    for step in text.split(","):
        percent, _, watch = step.strip().partition(":")
        try:
            found.append({"percent": float(percent), "watch_s": float(watch or 60)})
        except ValueError:
            accepted = "percent:seconds, such as 5:60, 50:60"
            raise InvalidInput(
                STRATEGY + "steps", json.dumps(step.strip()[:40]), accepted
            ) from None
    return found
