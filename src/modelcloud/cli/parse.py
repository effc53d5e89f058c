"""Text of the command line → the values it stands for.

Must never: read a file or the environment, save for the admin token.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from modelcloud.types import CanaryStep, Strategy, StrategySpec

TOKEN_VARIABLE = "MODELCLOUD_ADMIN_TOKEN"  # noqa: S105 — the variable's name
DATABASE_VARIABLE = "MODELCLOUD_DATABASE"
STRATEGIES = "blue_green, rolling, recreate or canary"
YEAR_S = 365 * 86_400
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def pairs(texts: Iterable[str], flag: str = "--option") -> dict[str, str]:
    """`name=value` texts by name, in order; `flag` is the one they were given with.

    Raises:
        typer.BadParameter: one without `=` or a name, or a name that comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{flag} {text}: accepted: NAME=VALUE")
        if name in found:
            raise typer.BadParameter(f"{flag} {name} is given twice")
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


def engine(text: str) -> str:
    """Where workers run."""
    if text not in {"local", "ray"}:
        raise typer.BadParameter(f"{text!r}; accepted: local, ray")
    return text


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


def amount(text: str | float) -> float:
    """A number of at least 0, of something that may be shared out.

    Raises:
        typer.BadParameter: it is none.
    """
    if isinstance(text, (int, float)):
        return text
    if not re.fullmatch(r"[0-9]{1,15}\.?[0-9]{0,15}|\.[0-9]{1,15}", text):
        raise typer.BadParameter(f"{text!r}; accepted: a number of at least 0")
    return float(text)


def share(text: str | float) -> float:
    """A number from 0 to 1.

    Raises:
        typer.BadParameter: it is none.
    """
    if (found := amount(text)) > 1:
        raise typer.BadParameter(f"{text!r}; accepted: a share, from 0 to 1")
    return found


def network(text: str) -> str:
    """A network of IP addresses, as `10.1.0.0/16`, or one address.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r}; accepted: a network, as 10.1.0.0/16") from None


def proxy(text: str) -> str:
    """An IP address, or a network of them.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}; accepted: an IP address, as 127.0.0.1, or a network, as 10.1.0.0/16"
        ) from None


def memory(text: str | int) -> int:
    """A size as `size` reads it, or 0."""
    return 0 if text == "0" else size(text)


def value(text: str) -> Any:
    """What the text is as JSON; what is no JSON stays text."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def wait(text: str | float) -> float:
    """A longest wait, in seconds: as `span`, but zero would mean failing at once."""
    return span(text, low=0.01)


def strategy(
    name: Strategy | None,
    max_surge: int | None,
    max_unavailable: int | None,
    steps: Iterable[str] | None = None,
    max_error_rate: float | None = None,
    max_p99_ms: float | None = None,
    min_requests: int | None = None,
) -> StrategySpec | None:
    """The flags of a strategy as one record; None when none was given.

    Raises:
        typer.BadParameter: numbers that the strategy has no use for.
    """
    rolling = {"max_surge": max_surge, "max_unavailable": max_unavailable}
    canary = {
        "steps": tuple(map(_step, steps)) if steps else None,
        "max_error_rate": max_error_rate,
        "max_p99_ms": max_p99_ms,
        "min_requests": min_requests,
    }
    given: dict[str, Any] = {
        field: value for field, value in (rolling | canary).items() if value is not None
    }
    if name is None and not given:
        return None
    spec = StrategySpec(**{"name": name or StrategySpec().name, **given})
    if given.keys() & rolling and spec.name is not Strategy.ROLLING:
        raise typer.BadParameter("--max-surge and --max-unavailable go with --strategy rolling")
    if given.keys() & canary and spec.name is not Strategy.CANARY:
        raise typer.BadParameter(
            "--step, --max-error-rate, --max-p99 and --min-requests go with --strategy canary"
        )
    return spec


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _step(text: str) -> CanaryStep:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?::([0-9]+(?:\.[0-9]+)?))?", text)
    if match is None:
        raise typer.BadParameter(f"--step {text}: accepted: PERCENT or PERCENT:SECONDS, as 25:60")
    if match[2] is None:
        return CanaryStep(float(match[1]))
    return CanaryStep(float(match[1]), float(match[2]))


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
