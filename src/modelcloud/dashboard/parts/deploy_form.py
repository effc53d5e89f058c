"""The fields of the form that brings a version online, and its strategy as the API takes it.

Must never: ask for anything; versions, types and deployments are handed in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.control.resources.instance_types import InstanceTypeRecord
from modelcloud.control.services.versions import VersionSummary
from modelcloud.dashboard.parts.basic import size
from modelcloud.dashboard.parts.forms import Field
from modelcloud.dashboard.words import Words
from modelcloud.errors import InvalidInput
from modelcloud.types import DispatchPolicy, Strategy, StrategySpec

_STRATEGY_WORDS = (
    "All at once, when all new ones are ready (blue_green)",
    "One after the other (rolling)",
    "Stop, then start (recreate)",
    "Step by step, watched (canary)",
)


def deploy_fields(
    t: Words,
    given: Mapping[str, Any],
    versions: Iterable[VersionSummary],
    types: Iterable[InstanceTypeRecord],
    serving: Sequence[DeploymentRecord],
    replaced: DeploymentRecord | None,
) -> list[Field]:
    """The fields, but for the model's options.

    Args:
        t: the words.
        given: what was filled in so far.
        versions: to choose from.
        types: likewise.
        serving: what may be replaced.
        replaced: that of it which is; None: the version comes beside the others.
    """
    modes = [
        ("new", t("As one more version")),
        *(
            (str(one.version), t("In place of version {version}", version=one.version))
            for one in serving
        ),
    ]
    policies = [
        (policy.value, t(policy.value.replace("_", " ")))
        for policy in DispatchPolicy
        if policy is not DispatchPolicy.CONSISTENT_HASH  # its key makes it none of a short form
    ]
    before = replaced
    fields = [
        Field(
            name="version", label=t("Version"), kind="select", value=given["version"],
            choices=[
                (str(one.version), f"{one.version} · {one.description[:40]}".rstrip(" ·"))
                for one in versions
            ],
        ),
        Field(
            name="mode", label=t("How"), kind="select", choices=modes,
            value="new" if before is None else str(before.version),
        ),
        Field(
            name="instance_type", label=t("Instance type"), kind="select",
            value=given.get("instance_type") or (before.instance_type if before else None),
            choices=[
                (one.name, f"{one.name} · {one.description or resources(one)}") for one in types
            ],
        ),
        Field(
            name="replicas", label=t("Replicas"), kind="integer",
            value=given.get("replicas") or (before.replicas if before else 1),
        ),
    ]  # fmt: skip
    if before is not None:
        strategy = str(given.get("strategy") or before.strategy["name"])
        fields.append(
            Field(
                name="strategy", label=t("Strategy"), kind="select", value=strategy, wide=True,
                choices=strategies(t),
            )
        )  # fmt: skip
        if strategy == Strategy.CANARY.value:
            fields += canary_fields(t)
        policies.insert(0, ("", t("as before")))
    fields += [
        Field(
            name="dispatch", label=t("Requests go to"), kind="select", optional=True,
            choices=policies, value=policies[0][0],
        ),
        Field(
            name="threads", label=t("Calls at a time in a worker"), kind="integer", optional=True,
            value=before.threads if before else 1,
        ),
    ]  # fmt: skip
    if before is None:
        help_ = t("Of the requests that name no version; left empty, 0 beside others")
        fields.append(
            Field(name="weight", label=t("Weight"), kind="number", optional=True, help=help_)
        )
    help_ = t("An address that leads to it, such as stable")
    fields.append(Field(name="label", label=t("Label"), optional=True, help=help_))
    return fields


def strategies(t: Words) -> list[tuple[str, str]]:
    """Strategies to choose from."""
    return [
        (strategy.value, t(label))
        for strategy, label in zip(Strategy, _STRATEGY_WORDS, strict=True)
    ]


def canary_fields(t: Words) -> list[Field]:
    """The numbers of a canary."""
    spec = StrategySpec()
    steps = ", ".join(f"{step.percent:g}:{step.watch_s:g}" for step in spec.steps)
    return [
        Field(
            name="steps", label=t("Steps"), value=steps, wide=True,
            help=t("percent:seconds of watching, one after the other"),
        ),
        Field(
            name="max_error_rate", label=t("Most errors (0 to 1)"), kind="number",
            value=spec.max_error_rate,
        ),
        Field(
            name="max_p99_ms", label=t("Most p99 in ms (0: any)"), kind="number",
            value=spec.max_p99_ms,
        ),
        Field(
            name="min_requests", label=t("Judged from so many answers on"), kind="integer",
            value=spec.min_requests,
        ),
    ]  # fmt: skip


def strategy_from(name: str | None, values: dict[str, Any]) -> Any:
    """The strategy with its numbers, which are taken out of `values`; None: as it is.

    Raises:
        InvalidInput: the steps cannot be read.
    """
    names = ("max_error_rate", "max_p99_ms", "min_requests")
    numbers = {key: values.pop(key) for key in names if key in values}
    steps = values.pop("steps", None)
    if name != Strategy.CANARY.value or steps is None:
        return name
    found = []
    for step in str(steps).split(","):
        percent, _, watch = step.strip().partition(":")
        try:
            found.append({"percent": float(percent), "watch_s": float(watch or 60)})
        except ValueError:
            accepted = "percent:seconds, such as 5:60, 50:60"
            raise InvalidInput("steps", json.dumps(step.strip()[:40]), accepted) from None
    return {"name": name, "steps": found, **numbers}


def resources(one: InstanceTypeRecord) -> str:
    """An instance type in a few words."""
    parts = [
        f"{one.cpu:g} CPU" if one.cpu else "",
        size(one.memory) if one.memory else "",
        f"{one.gpu:g} GPU" if one.gpu else "",
    ]
    return ", ".join(part for part in parts if part) or "unlimited"
