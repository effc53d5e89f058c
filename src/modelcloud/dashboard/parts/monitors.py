"""Monitors as rows of a table, what one look found, and what arrived."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modelcloud.control.monitors.history import EventRecord
from modelcloud.control.monitors.monitoring import ConnectionRecord, Found
from modelcloud.control.monitors.monitors import MonitorRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    alert,
    badge,
    facts,
    link,
    row,
    size,
    table,
    when,
)
from modelcloud.dashboard.parts.history import duration
from modelcloud.dashboard.words import Words

_ACTIVITY_WORDS = (
    "starting",
    "waiting",
    "looking",
    "pulling",
    "registering",
    "deploying",
    "rolling out",
    "paused",
)

_FLAG = re.compile(r"--(?=[a-z])")


def plainly(text: str) -> str:
    """What is wrong, naming fields as a form does rather than as flags of a command."""
    return _FLAG.sub("", text)


def activity(t: Words, monitor: MonitorRecord) -> Markup:
    """What it does now, or that it cannot."""
    if monitor.error and not monitor.paused:
        return badge(t, "failed", title=plainly(monitor.error))
    return badge(t, monitor.activity)


def monitor_table(
    t: Words, monitors: Iterable[MonitorRecord], *, service: bool = False, empty_text: str = ""
) -> Markup:
    """The table; `service`: with the name of each one's service."""
    heads: list[Child] = [
        t("Monitor"),
        *([t("Service")] if service else []),
        t("Place"),
        t("State"),
        t("Newest version"),
        t("Last arrival"),
        t("Last look"),
    ]
    rows = [_row(t, one, service=service) for one in monitors]
    return table(t("Monitors"), heads, rows, empty_text=empty_text)


def _row(t: Words, one: MonitorRecord, *, service: bool) -> Markup:
    about = [link(one.service, addresses.service(one.service))] if service else []
    failed = element("div", plainly(one.error), class_="muted small clip") if one.error else None
    return row(
        link(element("strong", one.name), addresses.monitor(one.service, one.name)),
        *about,
        element("code", one.place, class_="place"),
        join(activity(t, one), failed),
        _version(one.service, one.version),
        when(one.changed_at),
        when(one.looked_at),
        key=f"monitor-{one.id}",
    )


def _version(service: str, number: int | None) -> Child:
    return "—" if number is None else link(str(number), addresses.version(service, number))


def event_table(t: Words, service: str, events: Iterable[EventRecord]) -> Markup:
    """What came of its looks, newest first."""
    heads: list[Child] = [
        t("When"),
        t("Outcome"),
        t("Version"),
        t("Rollout"),
        t("Took"),
        t("Reason"),
    ]
    return table(
        t("What arrived"),
        heads,
        [_event(t, service, one) for one in events],
        empty_text=t("Nothing has arrived yet, and no look has failed."),
    )


def _event(t: Words, service: str, one: EventRecord) -> Markup:
    again: Child = None
    if one.times > 1:
        again = element(
            "div", t("{count} times, last", count=one.times), " ", when(one.last_at),
            class_="muted small",
        )  # fmt: skip
    rollout: Child = "—"
    if one.rollout is not None:
        state = badge(t, one.rollout_state.value) if one.rollout_state else None
        rollout = join(link(f"#{one.rollout}", addresses.rollout(one.rollout)), " ", state)
    return row(
        join(when(one.at), again),
        badge(t, one.outcome.value),
        _version(service, one.version),
        rollout,
        duration(one.duration_s),
        element("span", plainly(one.detail), class_="small"),
        key=f"event-{one.id}",
    )


def connection(t: Words, found: ConnectionRecord) -> Markup:
    """What one look came to."""
    good = t("The place answers, and both are there.")
    return element(
        "div",
        alert(good, tone="ok") if found.ok else alert(plainly(found.error)),
        facts([(t("Done-file"), _found(t, found.done)), (t("Model"), _found(t, found.model))]),
        role="status",
    )


def _found(t: Words, one: Found | None) -> Child:
    if one is None:
        return t("not found")
    parts: list[Child] = [t("a folder") if one.folder else t("a file")]
    if one.size is not None:
        parts.append(f", {size(one.size)}")
    if one.modified is not None:
        parts += [", ", when(one.modified, as_="date")]
    return join(*parts)
