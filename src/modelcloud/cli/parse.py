"""Text of the command line → the values it stands for.

Must never: read a file or the environment, save for the admin token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import typer

from modelcloud.types import Strategy, StrategySpec

TOKEN_VARIABLE = "MODELCLOUD_ADMIN_TOKEN"  # noqa: S105 — the variable's name
STRATEGIES = "blue_green, rolling or recreate"
YEAR_S = 365 * 86_400
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """`name=value` texts by name, in order.

    Raises:
        typer.BadParameter: one without `=` or a name, or a name that comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--option {text}: accepted: NAME=VALUE")
        if name in found:
            raise typer.BadParameter(f"--option {name} is given twice")
        found[name] = value
    return found


# The readers below are given a flag's default too, which is a number and stays as it is.


def size(text: str | int) -> int:
    """`65536`, `64k`, `64M` or `2G` → bytes; the units are powers of 1024.

    Raises:
        typer.BadParameter: it is no such text.
    """
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)", text.strip().lower())
    if match is None or (count := int(match[1]) * UNITS[match[2]]) == 0:
        raise typer.BadParameter(f"{text!r} is no size; accepted: bytes, or a number with k, M, G")
    return count


def whole(text: str | int, *, low: int = 0, high: int = 2**31 - 1) -> int:
    """A whole number from `low` to `high`.

    Raises:
        typer.BadParameter: it is none.
    """
    if isinstance(text, int):
        return text
    if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
        raise typer.BadParameter(f"{text!r}; accepted: a whole number from {low} to {high}")
    return int(text)


def count(text: str | int) -> int:
    """A whole number of at least 1."""
    return whole(text, low=1)


def port(text: str | int) -> int:
    """A TCP port, or 0 for any that is free."""
    return whole(text, high=65535)


def span(text: str | float, *, low: float = 0.0) -> float:
    """A number of seconds from `low` to a year: none is waited for without end.

    Raises:
        typer.BadParameter: it is none.
    """
    if isinstance(text, (int, float)):
        return text
    if not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", text) or not low <= float(text) <= YEAR_S:
        raise typer.BadParameter(f"{text!r}; accepted: seconds, from {low:g} to {YEAR_S}")
    return float(text)


def wait(text: str | float) -> float:
    """A longest wait, in seconds: as `span`, but zero would mean failing at once."""
    return span(text, low=0.01)


def strategy(
    name: Strategy | None, max_surge: int | None, max_unavailable: int | None
) -> StrategySpec | None:
    """The three flags as one record; None when none was given.

    Raises:
        typer.BadParameter: numbers that the strategy has no use for.
    """
    if name is None and max_surge is None and max_unavailable is None:
        return None
    spec = StrategySpec()
    spec = StrategySpec(
        name=name or spec.name,
        max_surge=spec.max_surge if max_surge is None else max_surge,
        max_unavailable=spec.max_unavailable if max_unavailable is None else max_unavailable,
    )
    if spec.name is not Strategy.ROLLING and (max_surge, max_unavailable) != (None, None):
        raise typer.BadParameter("--max-surge and --max-unavailable go with --strategy rolling")
    return spec


def token(text: str | None, file: Path | None) -> str:
    """The admin token from its flag, its file or the environment; "" when there is none.

    It is taken out of the environment, so that no process started from here inherits it.

    Raises:
        typer.BadParameter: two flags at once, or a file that cannot be read or holds none.
    """
    inherited = os.environ.pop(TOKEN_VARIABLE, "")
    if text is not None and file is not None:
        raise typer.BadParameter("give --admin-token or --admin-token-file, not both")
    if file is not None:
        try:
            text = file.read_text("utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise typer.BadParameter(f"--admin-token-file {file}: {reason}") from None
    if text == "":
        raise typer.BadParameter("the admin token is empty")
    return text or inherited
