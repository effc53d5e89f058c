"""How limits on lengths and sizes are declared, checked and put in words.

Must never: look at a value; only at what a type's author declared.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from modelcloud.sdk.data_types.base import declared_wrong, describe


def whole_limits(type_name: str, least: int, limits: dict[str, Any]) -> None:
    """Check that each limit that is given is a whole number of at least `least`.

    Raises:
        ModelLoadError: one is not.
    """
    for name, value in limits.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise declared_wrong(
                type_name, f"{name} is {describe(value)}", f"a whole number of at least {least}"
            )


def in_order(type_name: str, *limits: tuple[str, Any]) -> None:
    """Check that the limits that are given do not fall, in the order they stand here.

    Raises:
        ModelLoadError: one is under an earlier one.
    """
    given = [(name, value) for name, value in limits if value is not None]
    for (low_name, low), (high_name, high) in pairwise(given):
        if low > high:
            raise declared_wrong(
                type_name,
                f"{low_name} {low} is over {high_name} {high}",
                f"{low_name} ≤ {high_name}",
            )


def range_words(low: Any, high: Any) -> str:
    """` from 0 to 40`, ` of at least 0`, ` of at most 40` or nothing."""
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low}"
    if low is None:
        return f" of at most {high}"
    return f" from {low} to {high}"


def count_words(low: int | None, high: int | None, unit: str) -> str:
    """` of 2 to 5 items`, ` of at least 2 items`, ` of at most 5 items`, ` of 3 items`; or none."""
    if not low and high is None:
        return ""
    if high is None:
        return f" of at least {low} {unit}"
    if not low:
        return f" of at most {high} {unit}"
    return f" of {high} {unit}" if low == high else f" of {low} to {high} {unit}"


def choice_words(choices: Iterable[Any], most: int = 12) -> str:
    """`'a', 'b', 'c'`, cut after `most`."""
    listed = [repr(choice) for choice in choices]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def camel_case(limits: dict[str, Any]) -> dict[str, Any]:
    """`{"min_length": 2, "max_length": None}` → `{"minLength": 2}`."""
    out = {}
    for name, value in limits.items():
        if value is not None:
            first, *rest = name.split("_")
            out[first + "".join(word.capitalize() for word in rest)] = value
    return out
