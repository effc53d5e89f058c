"""`deploy` and what follows it: live changes of what is online, and the record of each.

Must never: call a deployment done before the platform says that its rollout is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelcloud.cli import parse, session, show
from modelcloud.cli.services import DEPLOYMENT_COLUMNS, Service, Version
from modelcloud.cli.update import (
    MaxErrorRate,
    MaxP99,
    MaxSurge,
    MaxUnavailable,
    MinRequests,
    NoWait,
    Steps,
    StrategyName,
)
from modelcloud.types import DispatchPolicy, StrategySpec

if TYPE_CHECKING:
    from modelcloud.platform import Platform

Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of setup; repeat it."),
]


def deploy(
    service: Service,
    version: Version,
    *,
    replace: Annotated[
        int | None,
        typer.Option(
            metavar="VERSION",
            parser=parse.count,
            help="Take the place of this version, live; else one more version goes online.",
        ),
    ] = None,
    instance_type: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Resources of one replica; else small, or as what it replaces."
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas",
            "-n",
            metavar="N",
            parser=parse.count,
            help="Workers; else 1, or as many as what it replaces.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="local|ray", parser=parse.engine, help="Where its workers run."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", parser=parse.count, help="Calls a worker runs at a time."),
    ] = None,
    dispatch: Annotated[
        DispatchPolicy | None,
        typer.Option(metavar="POLICY", help="least_loaded, round_robin, random, consistent_hash."),
    ] = None,
    dispatch_key: Annotated[
        str, typer.Option(metavar="KEY", help="With consistent_hash: header:NAME or query:NAME.")
    ] = "",
    option: Options = None,
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="A label that then leads to it.")
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            metavar="N", parser=parse.amount, help="Its share of requests that name no version."
        ),
    ] = None,
    keep_warm: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", parser=parse.span, help="How long replaced workers stay ready."
        ),
    ] = None,
    strategy: StrategyName = None,
    step: Steps = None,
    max_error_rate: MaxErrorRate = None,
    max_p99: MaxP99 = None,
    min_requests: MinRequests = None,
    max_surge: MaxSurge = None,
    max_unavailable: MaxUnavailable = None,
    no_wait: NoWait = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Bring a version online, beside the others or in place of one."""
    spec = parse.strategy(
        strategy, max_surge, max_unavailable, step, max_error_rate, max_p99, min_requests
    )
    with session.connect(url) as platform:
        fields: dict[str, Any] = {
            "replaces": replace,
            "instance_type": instance_type,
            "replicas": replicas,
            "engine": engine,
            "threads": threads,
            "dispatch": _dispatch(dispatch, dispatch_key),
            "options": _typed(platform, service, version, option) or None,
            "label": label,
            "weight": weight,
            "keep_warm_s": keep_warm,
            "strategy": _plain(spec),
        }
        answer = session.once(
            lambda key: platform.deploy(service, version, idempotency_key=key, **fields)
        )
        _follow(platform, answer, no_wait=no_wait, as_json=as_json)


def deployments(service: Service, url: session.Url = None, as_json: show.Json = False) -> None:
    """List what of a service is, or was, online."""
    with session.connect(url) as platform:
        show.listed(platform.deployments(service), DEPLOYMENT_COLUMNS, as_json=as_json)


def redeploy(
    service: Service,
    version: Version,
    no_wait: NoWait = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Start a version's workers anew, failed, offline or serving."""
    with session.connect(url) as platform:
        answer = session.once(lambda key: platform.redeploy(service, version, idempotency_key=key))
        _follow(platform, answer, no_wait=no_wait, as_json=as_json)


def start(
    service: Service,
    version: Version,
    no_wait: NoWait = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Bring an offline version online again."""
    with session.connect(url) as platform:
        answer = session.once(lambda key: platform.start(service, version, idempotency_key=key))
        _follow(platform, answer, no_wait=no_wait, as_json=as_json)


def stop(
    service: Service, version: Version, url: session.Url = None, as_json: show.Json = False
) -> None:
    """Take a version offline; what it received is still answered."""
    with session.connect(url) as platform:
        answer = platform.stop(service, version)
    told = "goes offline" if answer["changed"] else "is offline already"
    show.said(f"{service} version {version} {told}", answer, as_json=as_json)


def scale(
    service: Service,
    version: Version,
    replicas: Annotated[int, typer.Argument(metavar="N", parser=parse.count, help="Workers.")],
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Change the number of replicas, live."""
    with session.connect(url) as platform:
        answer = platform.scale(service, version, replicas)
    show.said(f"{service} version {version}: {replicas} replicas wanted", answer, as_json=as_json)


def undeploy(
    service: Service,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[VERSION]", parser=parse.count, help="Only this one; else all of the service."
        ),
    ] = None,
    yes: session.Yes = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Delete a deployment, or all of a service; the versions stay registered."""
    what = f"all of {service}" if version is None else f"{service} version {version}"
    session.confirm(f"the deployment of {what}", yes=yes)
    with session.connect(url) as platform:
        answer = platform.undeploy(service, version)
    show.said(f"{what} is no longer deployed", answer, as_json=as_json)


def rollouts(
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Of this service only.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE",
            help="pending, running, succeeded, failed, superseded or rolled_back.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", parser=parse.count, help="At most so many, newest first.")
    ] = 20,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """List the last rollouts, newest first."""
    columns = ("id", "service", "kind", "from", "to", "generation", "state", "step", "actor",
               "accepted_at", "reason")  # fmt: skip
    with session.connect(url) as platform:
        records = platform.rollouts(limit, service=service, state=state)
    if as_json:
        show.as_text(records)
        return
    rows = [
        {
            **record,
            "from": (record["from"] or {}).get("version"),
            "to": record["to"]["version"],
            "generation": record["to"]["generation"],
        }
        for record in records
    ]
    show.listed(rows, columns)


def update_deployment(
    service: str,
    version: int,
    texts: list[str] | None,
    strategy: StrategySpec | None,
    *,
    url: str | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """`modelcloud update SERVICE VERSION`: change options of what is online."""
    with session.connect(url) as platform:
        options, plan = _typed(platform, service, version, texts), _plain(strategy)
        answer = session.once(
            lambda key: platform.update(service, version, options, plan, idempotency_key=key)
        )
        _follow(platform, answer, no_wait=no_wait, as_json=as_json)


def roll_deployment_back(
    service: str, version: int, *, url: str | None, no_wait: bool, as_json: bool
) -> None:
    """`modelcloud rollback SERVICE VERSION`: go back to what served before."""
    with session.connect(url) as platform:
        answer = session.once(lambda key: platform.rollback(service, version, idempotency_key=key))
        # A rollout that was on its way is called off: that too is going back.
        wanted = ("succeeded", "rolled_back")
        _follow(platform, answer, no_wait=no_wait, as_json=as_json, wanted=wanted)


def _follow(
    platform: Platform,
    answer: dict[str, Any],
    *,
    no_wait: bool,
    as_json: bool,
    wanted: tuple[str, ...] = ("succeeded",),
) -> None:
    """Show the rollout of an answer until it ends, then the answer as it is by then.

    Raises:
        UpdateFailed, Superseded: it ended otherwise than wanted.
    """
    from rich.console import Console

    from modelcloud.cli.follow import follow

    begun = answer["rollout"]
    if begun is None:
        show.said("nothing to do: all of it is so already", answer, as_json=as_json)
        return
    if no_wait:
        told = f"rollout {begun['id']} accepted; modelcloud rollouts {begun['service']} shows it"
        show.said(told, answer, as_json=as_json)
        return
    rollout = follow(platform, str(begun["id"]), Console(stderr=as_json), wanted=wanted)
    serving = rollout["to" if rollout["state"] == "succeeded" else "from"]
    if serving is None:
        told, deployment = "nothing serves, as before", answer["deployment"]
    else:
        told = f"version {serving['version']}, generation {serving['generation']} serves"
        deployment = platform.deployment(rollout["service"], serving["version"])
    now = {**answer, "deployment": deployment, "rollout": rollout}
    show.said(f"{rollout['service']}: {told}", now, as_json=as_json)


def _typed(
    platform: Platform, service: str, version: int, texts: list[str] | None
) -> dict[str, Any]:
    from modelcloud.cli.update import typed

    if not texts:
        return {}
    signature = platform.version(service, version)["signature"]
    return typed(parse.pairs(texts), signature["options"])


def _plain(spec: StrategySpec | None) -> Any:
    import msgspec

    return None if spec is None else msgspec.to_builtins(spec)


def _dispatch(policy: DispatchPolicy | None, key: str) -> dict[str, str] | None:
    if policy is None:
        if key:
            raise typer.BadParameter("--dispatch-key goes with --dispatch consistent_hash")
        return None
    return {"policy": policy.value, "key": key}
