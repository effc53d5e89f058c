"""What of a service is deployed, as a table with what may be done to each."""

from __future__ import annotations

from collections.abc import Iterable

from modelcloud.control.access.permissions import Action
from modelcloud.control.deployments.deployment_states import Status, Wanted
from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import badge, button, chip, link, row, table
from modelcloud.dashboard.parts.icons import icon
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.words import Words


def online_table(
    t: Words, service: str, deployments: Iterable[DeploymentRecord], rights: Rights, me: str
) -> Markup:
    """The table."""
    rows = [
        _row(t, service, one, rights)
        for one in sorted(deployments, key=lambda one: (-one.version, one.id))
    ]
    heads = [t("Version"), t("State"), t("Replicas"), t("Instance type"), t("Weight"), t("By"), ""]
    return table(
        t("Deployments of {name}", name=service), heads, rows, empty_text=t("Nothing is online.")
    )


def _row(t: Words, service: str, one: DeploymentRecord, rights: Rights) -> Markup:
    reason = one.reason or one.degraded
    rollout: Child = None
    if one.rollout is not None and not one.rollout.finished:
        text = t("rollout #{id}, {percent} %", id=one.rollout.id, percent=one.rollout.percent)
        rollout = element("div", link(text, addresses.rollout(one.rollout.id)), class_="small")
    labels = [join(" ", chip(label, tone="accent")) for label in one.labels]
    return row(
        join(
            link(element("strong", str(one.version)), addresses.version(service, one.version)),
            *labels,
        ),
        join(
            badge(t, one.status.value, title=one.state.value),
            rollout,
            element("div", reason, class_="muted small") if reason else None,
        ),
        f"{one.ready} / {one.replicas}",
        one.instance_type,
        join(
            f"{one.weight:g}",
            element("div", t("shadow {share}", share=f"{one.shadow:g}"), class_="muted small")
            if one.shadow
            else None,
        ),
        one.deployed_by,
        _actions(t, one, rights),
        key=f"deployment-{one.id}",
    )


def _actions(t: Words, one: DeploymentRecord, rights: Rights) -> Child:
    owners = {one.deployed_by}
    updates = rights.may(Action.UPDATE)
    stops, deletes = rights.may(Action.STOP, owners), rights.may(Action.DELETE, owners)
    online = one.wanted is Wanted.ONLINE
    serves = one.status is Status.SERVING
    offered = [
        (t("Change options"), "change", "edit", updates and serves),
        (t("Scale"), "scale", "plus", updates and online),
        (
            t("Roll back"),
            "roll_back",
            "back",
            updates and serves and (one.previous is not None or _moving(one)),
        ),
        (t("Redeploy"), "redeploy", "renew", updates and online),
        (t("Start"), "start", "play", updates and not online),
        (t("Stop"), "stop", "stop", stops and online),
        (t("Take offline for good"), "remove", "trash", deletes),
    ]
    shown = [
        button(
            label,
            do,
            symbol=symbol,
            kind="quiet bad" if do == "remove" else "quiet",
            data_version=one.version,
        )
        for label, do, symbol, may in offered
        if may
    ]
    if not shown:
        return None
    label = t("What to do with version {version}", version=one.version)
    return element(
        "div",
        element(
            "details",
            element("summary", icon("more"), aria_label=label, class_="button quiet small"),
            element("div", *shown, class_="sheet"),
            class_="menu",
            data_key=f"menu-{one.id}",
        ),
        class_="actions",
    )


def _moving(one: DeploymentRecord) -> bool:
    return one.rollout is not None and not one.rollout.finished
