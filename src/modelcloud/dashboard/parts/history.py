"""Rollouts as rows of a table: what went from where to where, by whom, and how it came out."""

from __future__ import annotations

from collections.abc import Iterable

from modelcloud.control.deployments.rollouts import RolloutRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import badge, link, row, table, when
from modelcloud.dashboard.words import Words


def rollout_table(t: Words, rollouts: Iterable[RolloutRecord], *, service: bool = False) -> Markup:
    """The table; `service`: with the name of each one's service."""
    heads: list[Child] = [
        t("Rollout"),
        *([t("Service")] if service else []),
        t("Change"),
        t("State"),
        t("By"),
        t("When"),
        t("Took"),
    ]
    rows = [_row(t, one, service=service) for one in rollouts]
    return table(t("Rollouts"), heads, rows, empty_text=t("Nothing was rolled out yet."))


def change_of(t: Words, rollout: RolloutRecord) -> str:
    """From where to where, in words."""
    new = rollout.target
    old = rollout.source
    if old is None:
        return t("version {new}, new", new=new.version)
    if old.version == new.version:
        return t(
            "version {new}, generation {a} → {b}",
            new=new.version,
            a=old.generation,
            b=new.generation,
        )
    return t("version {old} → {new}", old=old.version, new=new.version)


def duration(seconds: float | None) -> str:
    """A span of time, short."""
    if seconds is None:
        return "—"
    if seconds < 10:
        return f"{seconds:.1f}\u00a0s"
    if seconds < 120:
        return f"{seconds:.0f}\u00a0s"
    if seconds < 7200:
        return f"{seconds / 60:.0f}\u00a0min"
    return f"{seconds / 3600:.1f}\u00a0h"


def took(rollout: RolloutRecord) -> float | None:
    """Seconds from its beginning to its end."""
    if rollout.started_at is None or rollout.finished_at is None:
        return None
    return rollout.finished_at - rollout.started_at


def _row(t: Words, one: RolloutRecord, *, service: bool) -> Markup:
    about = [link(one.service, addresses.service(one.service))] if service else []
    reason = element("div", one.reason, class_="muted small") if one.reason else None
    state = badge(t, one.state.value)
    if not one.finished:
        state = join(state, element("span", f" {one.percent} %", class_="muted small"))
    return row(
        link(f"#{one.id}", addresses.rollout(one.id)),
        *about,
        join(change_of(t, one), reason),
        state,
        one.actor,
        when(one.accepted_at),
        duration(took(one)),
        key=f"rollout-{one.id}",
    )
