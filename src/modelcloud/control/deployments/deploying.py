"""Puts a version online: as one more of its service, or in place of one that is.

Must never: tell an engine anything; a rollout is written down here, and a reconciler that is told
of it after the commit carries it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select

from modelcloud.control.access import audit
from modelcloud.control.access.permissions import Action, Actor, allowed
from modelcloud.control.common.records import Record
from modelcloud.control.deployments import deployments, rollouts
from modelcloud.control.deployments.deployment_forms import (
    DeployBody,
    check_label,
    dispatch_of,
    strategy_of,
)
from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.deployments.deployments import DeploymentRecord, Standing
from modelcloud.control.deployments.generation_specs import Ground, make_spec
from modelcloud.control.deployments.quota_sums import amounts, excess
from modelcloud.control.deployments.rollouts import RolloutRecord
from modelcloud.control.deployments.routable import refuse_ambiguous
from modelcloud.errors import Conflict, InvalidInput, NotFound
from modelcloud.rollout.records import Kind, RolloutState
from modelcloud.serve.options import check_options
from modelcloud.store.tables import Deployment, InstanceType, RolloutRow, Service, Version
from modelcloud.types import LOCAL, Dispatch, GenerationSpec, Resources, State, StrategySpec

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Versions of one service that may be online (third seed).
MAX_ONLINE = 6
#: Versions at whose addresses one deployment answers; of those it replaced, the highest.
MAX_ANSWERS = 50


class Accepted(Record):
    """What an operation came to.

    Attributes:
        rollout: what was begun, or went back; None where none was needed. One that exceeds a quota
            is `failed` already and its reason holds the sums.
        changed: False where everything was as asked for.
    """

    deployment: DeploymentRecord
    rollout: RolloutRecord | None
    changed: bool = True


def deploy(
    tx: Session, actor: Actor, ground: Ground, service_name: str, asked: DeployBody, now: float
) -> Accepted:
    """Put a version online.

    Raises:
        NotFound: no such service, version, instance type or version to replace.
        Refused: the actor may not deploy here.
        Conflict: the version is disabled or online already, six others are, what is to be replaced
            does not serve, or a web application has no port.
        InvalidInput: a value does not fit.
    """
    service = deployments.service_of(tx, actor, service_name, Action.DEPLOY)
    version = deployable(tx, service, asked.version)
    found = deployments.standings(tx, service)
    if asked.mode == "replace":
        standing: Standing | None = _replaced(found, service, asked)
    else:
        standing = _room_for_new(found, service, asked)
    refuse_claimed(found, service, version.number, but=standing)
    earlier = None if standing is None else standing.row
    change = _change(tx, service, version, asked, earlier)
    change["deployed_by"] = _owner(actor, service, asked, earlier)
    kind = Kind.UPDATE
    if asked.mode == "new":
        kind = Kind.INITIAL
        row = _new_row(service, actor, version.number, now) if standing is None else standing.row
        write_columns(row, change)
        row.weight, row.shadow = _weight(found, asked, row), 0.0
        change.pop("weight", None)  # may be changed by others before this one serves
        row.wanted, row.state, row.reason = Wanted.ONLINE.value, State.PENDING.value, ""
        tx.add(row)
        tx.flush()
    else:
        assert standing is not None
        row = standing.row
    rollout = begin(
        tx, actor, ground, row, version, change,
        kind=kind, strategy=msgspec.convert(change["strategy"], StrategySpec), now=now,
        serves=kind is Kind.UPDATE,
    )  # fmt: skip
    return accepted(
        tx, actor, Action.DEPLOY, row, rollout,
        f"version {version.number} as new"
        if asked.mode == "new"
        else f"version {version.number} in place of {asked.replaces}",
    )  # fmt: skip


# ---- what every operation that begins a rollout does


def begin(
    tx: Session,
    actor: Actor,
    ground: Ground,
    row: Deployment,
    version: Version,
    change: dict[str, Any],
    *,
    kind: Kind,
    strategy: StrategySpec,
    now: float,
    serves: bool,
    spec: GenerationSpec | None = None,
) -> RolloutRow:
    """Write a rollout down, or that it exceeds a quota: then it has failed and nothing starts.

    `change` is what of the row becomes true with its success; `serves` whether the row has served
    up to now; `spec` an earlier generation to switch in again, in place of a new one of `version`.
    """
    service = row.service
    shape = {name: change.get(name, getattr(row, name)) for name in _SHAPE}
    if spec is None:
        spec = make_spec(
            ground,
            service,
            version,
            deployment_id=row.id,
            generation=service.next_generation,
            resources=Resources(cpu=shape["cpu"], memory=shape["memory"], gpu=shape["gpu"]),
            threads=shape["threads"],
            options=change.get("options", row.options),
            engine=_engine(ground, row, change),
        )
        service.next_generation += 1
    asks = amounts(shape["cpu"], shape["memory"], shape["gpu"], shape["replicas"])
    over = excess(
        asks, deployments.bounds(tx, ground, service.group, spec.engine or LOCAL, but=row.id)
    )
    rollout = RolloutRow(
        service_id=service.id,
        deployment_id=row.id,
        kind=kind.value,
        state=(RolloutState.FAILED if over else RolloutState.PENDING).value,
        step=State.PENDING.value,
        percent=0,
        reason=f"over quota: {over}" if over else "",
        strategy=msgspec.to_builtins(strategy),
        source=row.facts["serving"] if serves else None,
        target=msgspec.to_builtins(spec),
        change=change,
        actor=actor.name,
        accepted_at=now,
        started_at=None,
        finished_at=now if over else None,
    )
    tx.add(rollout)
    tx.flush()
    row.revision += 1
    if over and not serves:
        row.state, row.reason = State.FAILED.value, rollout.reason
    return rollout


def accepted(
    tx: Session,
    actor: Actor,
    action: Action,
    row: Deployment,
    rollout: RolloutRow | None,
    detail: str,
    *,
    changed: bool = True,
) -> Accepted:
    """The record of what an operation came to, which the audit log gets too."""
    service = row.service
    failed = rollout is not None and rollout.state == RolloutState.FAILED.value
    audit.note(
        tx, actor, action, "deployment", f"{service.name}/{row.version}", service.group.name,
        audit.FAILED if failed else audit.OK,
        f"{detail}: {rollout.reason}" if rollout is not None and failed else detail,
    )  # fmt: skip
    tx.flush()
    return Accepted(
        deployment=deployments.records(tx, service, [row])[0],
        rollout=None if rollout is None else rollouts.record(rollout, service.name),
        changed=changed,
    )


def deployable(tx: Session, service: Service, number: int) -> Version:
    """The version of this number, if it may be put online.

    Raises:
        NotFound: there is none.
        Conflict: it is disabled, a web application without a port of its own, or has no command
            that the service's route could call.
    """
    version = tx.scalar(
        select(Version).where(Version.service_id == service.id, Version.number == number)
    )
    if version is None:
        raise NotFound(f"service {service.name!r} has no version {number}")
    if not version.enabled:
        raise Conflict(f"version {number} of {service.name!r} is disabled; enable it first")
    site = any(command.get("wholeSite") for command in version.signature.get("commands", ()))
    if site and service.port is None:
        raise Conflict(
            f"version {number} of {service.name!r} is a web application, which answers every path: "
            "give the service a port of its own first"
        )
    if service.route is not None:
        refuse_ambiguous(service.name, number, version.signature)
    return version


def refuse_claimed(
    found: list[Standing], service: Service, number: int, but: Standing | None
) -> None:
    """Raise Conflict if another deployment than `but` has the version online."""
    for standing in found:
        if (but is None or standing.row.id != but.row.id) and number in standing.claims:
            raise Conflict(f"version {number} of {service.name!r} is online already")


def refuse_seventh(found: list[Standing], service: Service, but: Standing | None) -> None:
    """Raise Conflict if as many others are online as may be."""
    online = [s.row.version for s in found if s.online and (but is None or s.row.id != but.row.id)]
    if len(online) >= MAX_ONLINE:
        raise Conflict(
            f"{MAX_ONLINE} versions of {service.name!r} are online ({_listed(online)}), which is "
            f"the most there may be: stop one, or replace one",
            online=sorted(online),
        )


def write_columns(row: Deployment, change: dict[str, Any]) -> None:
    """Make the row what `change` says; names that are no column of it stay out."""
    for name in _COLUMNS & change.keys():
        setattr(row, name, change[name])
    others = sorted({*row.answers} - {row.version})
    row.answers = sorted([row.version, *others[1 - MAX_ANSWERS :]])


# ---- inside


def _engine(ground: Ground, row: Deployment, change: dict[str, Any]) -> str:
    """Where the workers of its next generation run, as `GenerationSpec` has it."""
    asked, serving = change.get("engine"), row.facts.get("serving") or {}
    engine = asked if asked is not None else serving.get("engine", ground.engine)
    engine = "" if engine == LOCAL else engine
    if engine and engine != ground.engine:
        start = f"modelcloud up --engine {engine}"
        raise Conflict(f"this platform has no engine {engine!r}: start it with `{start}`")
    return str(engine)


_SHAPE = ("cpu", "memory", "gpu", "replicas", "threads")
_COLUMNS = {
    *_SHAPE, "version", "instance_type", "dispatch", "strategy", "keep_warm_s", "options", "weight",
    "deployed_by",
}  # fmt: skip


def _replaced(found: list[Standing], service: Service, asked: DeployBody) -> Standing:
    if asked.replaces is None:
        raise InvalidInput("replaces", "nothing", "the online version that is replaced")
    for standing in found:
        if standing.row.version == asked.replaces and standing.online and standing.serves:
            return standing
    online = _listed([s.row.version for s in found if s.online and s.serves])
    raise Conflict(
        f"version {asked.replaces} of {service.name!r} does not serve, so it cannot be replaced; "
        f"serving: {online or 'none'}"
    )


def _room_for_new(found: list[Standing], service: Service, asked: DeployBody) -> Standing | None:
    """The earlier deployment of the version that takes it up again; None: there is none."""
    if asked.replaces is not None:
        raise InvalidInput("replaces", str(asked.replaces), "with mode replace only")
    refuse_claimed(found, service, asked.version, but=None)
    refuse_seventh(found, service, but=None)
    earlier = [s for s in found if s.row.version == asked.version]
    return earlier[-1] if earlier else None


def _change(
    tx: Session, service: Service, version: Version, asked: DeployBody, row: Deployment | None
) -> dict[str, Any]:
    """All that the deployment will be, from the request and, with `replace`, what it is."""
    stays = row if asked.mode == "replace" else None
    declared = version.signature.get("options", [])
    if asked.options is not None:
        options = asked.options
    else:
        names = {option["name"] for option in declared}
        options = {k: v for k, v in (stays.options if stays else {}).items() if k in names}
    check_options(options, declared)
    for option in declared:
        if "default" not in option and option["name"] not in {**version.options, **options}:
            raise InvalidInput(option["name"], "nothing", "a value: the option has no default")
    strategy = msgspec.convert(stays.strategy, StrategySpec) if stays else StrategySpec()
    dispatch = msgspec.convert(stays.dispatch, Dispatch) if stays else Dispatch()
    change: dict[str, Any] = {
        "version": version.number,
        **_resources(tx, asked.instance_type, stays),
        "replicas": _or(asked.replicas, stays.replicas if stays else 1),
        "threads": _or(asked.threads, stays.threads if stays else 1),
        "keep_warm_s": _or(asked.keep_warm_s, stays.keep_warm_s if stays else 60.0),
        "dispatch": msgspec.to_builtins(dispatch_of(asked.dispatch, dispatch)),
        "strategy": msgspec.to_builtins(strategy_of(asked.strategy, strategy)),
        "options": options,
    }
    if asked.engine is not None:
        change["engine"] = asked.engine
    if asked.label is not None:
        change["label"] = check_label(asked.label)
    if asked.weight is not None:
        change["weight"] = asked.weight
    return change


def _owner(actor: Actor, service: Service, asked: DeployBody, earlier: Deployment | None) -> str:
    """Whose it will be: who replaces a version owns the new one, and nobody takes another's up."""
    if asked.mode == "replace" or earlier is None:
        return actor.name
    mine = allowed(actor, Action.DELETE, deployments.resource_of(service, [earlier]))
    return actor.name if mine else earlier.deployed_by


def _resources(tx: Session, name: str | None, stays: Deployment | None) -> dict[str, Any]:
    if name is None and stays is not None:
        return {
            "instance_type": stays.instance_type,
            "cpu": stays.cpu,
            "memory": stays.memory,
            "gpu": stays.gpu,
        }
    known = tx.scalars(select(InstanceType).order_by(InstanceType.name)).all()
    for instance_type in known:
        if instance_type.name == name:
            return {
                "instance_type": name,
                "cpu": instance_type.cpu,
                "memory": instance_type.memory,
                "gpu": instance_type.gpu,
            }
    got = "nothing" if name is None else repr(name[:60])
    raise InvalidInput("instance_type", got, ", ".join(t.name for t in known) or "none is there")


def _new_row(service: Service, actor: Actor, version: int, now: float) -> Deployment:
    return Deployment(
        service=service,
        version=version,
        answers=[],
        shadow=0.0,
        facts={},
        deployed_by=actor.name,
        created_at=now,
        revision=0,
    )


def _weight(found: list[Standing], asked: DeployBody, row: Deployment) -> float:
    """As asked for; else 0 beside others, so that a new version takes no request unasked."""
    if asked.weight is not None:
        return asked.weight
    return 0.0 if any(s.online and s.row.id != row.id for s in found) else 1.0


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
