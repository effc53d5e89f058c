"""The fields of the form that brings a version online.

Must never: ask for anything; versions, types and deployments are handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.control.resources.instance_types import InstanceTypeRecord
from modelcloud.control.services.versions import VersionSummary
from modelcloud.dashboard.parts.basic import size
from modelcloud.dashboard.parts.forms import Field
from modelcloud.dashboard.parts.strategy_fields import number_fields, strategies
from modelcloud.dashboard.words import Words
from modelcloud.types import DispatchPolicy


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
    policies = [(policy.value, t(policy.value.replace("_", " "))) for policy in DispatchPolicy]
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
        fields += number_fields(t, strategy, before.strategy)
        policies.insert(0, ("", t("as before")))
    policy = str(given.get("dispatch") or policies[0][0])
    fields.append(
        Field(
            name="dispatch", label=t("Requests go to"), kind="select", optional=True,
            choices=policies, value=policy,
        )
    )  # fmt: skip
    if policy == DispatchPolicy.CONSISTENT_HASH.value:
        fields.append(
            Field(
                name="dispatch.key", label=t("By what"), placeholder="header:x-user",
                value=before.dispatch.get("key") if before else None,
                help=t("header:NAME or query:NAME; requests with the same go to one worker"),
            )
        )  # fmt: skip
    fields += [
        Field(
            name="threads", label=t("Calls at a time in a worker"), kind="integer", optional=True,
            value=before.threads if before else 1,
        ),
        Field(
            name="keep_warm_s", label=t("Seconds that the old one stays ready"), kind="number",
            optional=True, value=before.keep_warm_s if before else None,
            help=t("To roll back at once; left empty: as usual"),
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


def resources(one: InstanceTypeRecord) -> str:
    """An instance type in a few words."""
    parts = [
        f"{one.cpu:g} CPU" if one.cpu else "",
        size(one.memory) if one.memory else "",
        f"{one.gpu:g} GPU" if one.gpu else "",
    ]
    return ", ".join(part for part in parts if part) or "unlimited"


def dispatch_from(values: dict[str, Any]) -> Any:
    """Where requests go, as the API takes it; its fields are taken out of `values`."""
    policy, key = values.pop("dispatch", None), values.pop("dispatch.key", None)
    if policy == DispatchPolicy.CONSISTENT_HASH.value:
        return {"policy": policy, "key": key or ""}
    return policy
