"""Shows a rollout until it ends: a bar on a terminal, lines elsewhere.

Must never: decide what a rollout does; it only reads the server's record of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from modelcloud.cli.show import plain
from modelcloud.client import Unreachable
from modelcloud.errors import ModelcloudError, Overloaded, Superseded, UpdateFailed

if TYPE_CHECKING:
    from rich.console import Console

POLL_S = 0.2
#: A server may be silent this long, as when its gateway is replaced, before following ends.
PATIENCE_S = 15.0
LOG_TAIL = 20
UNDER_WAY = {"pending", "running"}


class Server(Protocol):
    """Who has the record: a served model, or a platform."""

    def rollout(self, rollout_id: str) -> dict[str, Any]:
        """The record as it is now."""


class Display(Protocol):
    """Where a rollout is shown."""

    def show(self, rollout: dict[str, Any]) -> None:
        """Take the record as it is now."""


def follow(
    server: Server, rollout_id: str, console: Console, *, wanted: Container[str] = ("succeeded",)
) -> dict[str, Any]:
    """Show the rollout until it ended; return its last record.

    Args:
        server: that has it.
        rollout_id: as the server gave it.
        console: where it is shown.
        wanted: the final states that are no failure.

    Raises:
        UpdateFailed: the new generation did not come up.
        Superseded: another update or a rollback took its place.
        Unreachable, Overloaded: the server gave no answer for `PATIENCE_S`.
    """
    with _display(console) as display:
        rollout = _read(server, rollout_id)
        display.show(rollout)
        while rollout["state"] in UNDER_WAY:
            time.sleep(POLL_S)
            rollout = _read(server, rollout_id)
            display.show(rollout)
    if rollout["state"] not in wanted:
        for line in rollout["log"][-LOG_TAIL:]:
            if rollout["reason"] and rollout["reason"] in line:
                continue  # what is raised says it
            console.print(f"  {plain(line)}", style="dim", markup=False, highlight=False)
        raise error_of(rollout)
    return rollout


def error_of(rollout: dict[str, Any]) -> ModelcloudError:
    """What a rollout that ended otherwise than wanted means to who asked for it."""
    kind = UpdateFailed if rollout["state"] == "failed" else Superseded
    return kind(
        f"{rollout['kind']} {rollout['id']} {words(rollout['state'])} "
        f"({words(rollout['step'])}): {rollout['reason']}"
    )


def words(name: str) -> str:
    """`rolled_back` → `rolled back`."""
    return name.replace("_", " ")


def answering(rollout: dict[str, Any]) -> str:
    """How many requests the new generation gets, while the old one answers too."""
    share = rollout.get("share") or 0.0
    return f"({share:g} % of requests)" if 0 < share < 100 else ""


def waiting(rollout: dict[str, Any]) -> str:
    """What a rollout waits for that has not begun."""
    return str(rollout["reason"]) if rollout["state"] == "pending" else ""


def standing(rollout: dict[str, Any]) -> str:
    """Where the workers are, by version and generation: `v1.1: 2 serving, v1.2: 2 loading`."""
    found: dict[tuple[int, int], Counter[str]] = {}
    for worker in rollout["workers"]:
        key = worker["version"], worker["generation"]
        found.setdefault(key, Counter())[words(worker["state"])] += 1
    return ", ".join(
        f"v{version}.{generation}: "
        + " + ".join(f"{count} {state}" for state, count in counts.items())
        for (version, generation), counts in sorted(found.items())
    )


@contextmanager
def _display(console: Console) -> Iterator[Display]:
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[share]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[workers]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress)


class _Bar:
    """One line that is redrawn."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=100, share="", workers="")

    def show(self, rollout: dict[str, Any]) -> None:
        self._progress.update(
            self._task,
            completed=rollout["percent"],
            description=words(rollout["step"]),
            share=answering(rollout),
            workers=waiting(rollout) or standing(rollout),
        )


class _Lines:
    """A line whenever something changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def show(self, rollout: dict[str, Any]) -> None:
        parts = f"{words(rollout['step'])} {rollout['percent']} %", answering(rollout)
        line = " ".join(part for part in (*parts, waiting(rollout), standing(rollout)) if part)
        if line != self._last:
            self._last = line
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _read(server: Server, rollout_id: str) -> dict[str, Any]:
    """The record; a connection that breaks, or a server without its store, gets some patience."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return server.rollout(rollout_id)
        except (Unreachable, Overloaded):  # noqa: PERF203 — each try is a request of its own
            if time.monotonic() > give_up:
                raise
            time.sleep(POLL_S)
