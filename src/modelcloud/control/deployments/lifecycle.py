"""What is done to a deployment that is there: renew, start, stop, update, scale, go back, delete.

Must never: tell an engine anything; what is wanted is written down, and reconcilers that are told
of it after the commit carry it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete as delete_rows
from sqlalchemy import select

from modelcloud.control.access.permissions import Action, Actor, require
from modelcloud.control.common.records import Listing
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments import deployments
from modelcloud.control.deployments.deploying import (
    Accepted,
    accepted,
    begin,
    deployable,
    refuse_claimed,
    refuse_seventh,
)
from modelcloud.control.deployments.deployment_forms import (
    RollbackBody,
    ScaleBody,
    UpdateBody,
    strategy_of,
)
from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.deployments.deployments import DeploymentRecord, Standing, resource_of
from modelcloud.control.deployments.generation_specs import Ground
from modelcloud.control.deployments.quota_sums import amounts, excess
from modelcloud.errors import Conflict
from modelcloud.rollout.records import Kind, RolloutState
from modelcloud.serve.options import check_options
from modelcloud.store.tables import Deployment, Label, RolloutRow, Service
from modelcloud.types import GenerationSpec, State, StrategySpec

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ANY_REVISION = Expected()


def redeploy(
    tx: Session, actor: Actor, ground: Ground, service_name: str, version: int, now: float
) -> Accepted:
    """A new generation of the same version with the same values; brings one back online too.

    Raises:
        NotFound: no such service, or the version is not deployed.
        Refused: the actor may not.
        Conflict: the version is disabled, online elsewhere, or would be the seventh online.
    """
    service = deployments.service_of(tx, actor, service_name, Action.UPDATE)
    standing = deployments.find(tx, service, version)
    return _again(tx, actor, ground, service, standing, now, "redeploy")


def start(
    tx: Session, actor: Actor, ground: Ground, service_name: str, version: int, now: float
) -> Accepted:
    """Bring online what is offline or has failed. Raises as `redeploy` does.

    Raises:
        Conflict: it is online.
    """
    service = deployments.service_of(tx, actor, service_name, Action.UPDATE)
    standing = deployments.find(tx, service, version)
    if standing.online:
        raise Conflict(f"version {version} of {service_name!r} is online; redeploy renews it")
    return _again(tx, actor, ground, service, standing, now, "start")


def update(
    tx: Session,
    actor: Actor,
    ground: Ground,
    service_name: str,
    version: int,
    asked: UpdateBody,
    now: float,
    *,
    on: int | None = None,
    expected: Expected = ANY_REVISION,
) -> Accepted:
    """Change options live: a new generation of the same version. With none changed, there is none.

    `on` is a rollout that can no longer be superseded: the change is then to what it leads to.

    Raises:
        NotFound: no such service, or the version is not deployed.
        Refused: the actor may not.
        InvalidInput: an option does not fit.
        Conflict: it does not serve.
        PreconditionFailed: it was changed since.
    """
    service = deployments.service_of(tx, actor, service_name, Action.UPDATE)
    standing = deployments.find(tx, service, version)
    row = standing.row
    expected.check(row.revision, f"version {version} of {service_name!r}")
    if not (standing.online and standing.serves):
        raise Conflict(
            f"version {version} of {service_name!r} does not serve: start or redeploy it"
        )
    change = _columns(row)
    for rollout in standing.unfinished:
        if rollout.id == on:
            change.update(rollout.change)
    code = deployable(tx, service, change["version"])
    check_options(asked.options, code.signature.get("options", []))
    merged = {**change["options"], **asked.options}
    if merged == change["options"]:
        detail = "no option differs from what it is"
        return accepted(tx, actor, Action.UPDATE, row, None, detail, changed=False)
    change["options"] = merged
    rollout = begin(
        tx, actor, ground, row, code, change,
        kind=Kind.UPDATE, strategy=_strategy(row, asked), now=now, serves=True,
    )  # fmt: skip
    detail = f"options {', '.join(sorted(asked.options))}"
    return accepted(tx, actor, Action.UPDATE, row, rollout, detail)


def scale(
    tx: Session,
    actor: Actor,
    ground: Ground,
    service_name: str,
    version: int,
    asked: ScaleBody,
    *,
    expected: Expected = ANY_REVISION,
) -> Accepted:
    """Have another number of replicas, live.

    Raises:
        NotFound: no such service, or the version is not deployed.
        Refused: the actor may not.
        Conflict: it would exceed a quota; the message holds the sums.
        PreconditionFailed: it was changed since.
    """
    service = deployments.service_of(tx, actor, service_name, Action.UPDATE)
    standing = deployments.find(tx, service, version)
    row, replicas = standing.row, asked.replicas
    expected.check(row.revision, f"version {version} of {service_name!r}")
    detail = f"{replicas} replicas"
    wanted = {row.replicas, *(r.change.get("replicas", row.replicas) for r in standing.unfinished)}
    if wanted == {replicas}:
        return accepted(tx, actor, Action.UPDATE, row, None, detail, changed=False)
    if standing.online and replicas > standing.uses.replicas:
        coming = standing.shape
        asks = amounts(coming.cpu, coming.memory, coming.gpu, replicas)
        over = excess(
            asks, deployments.bounds(tx, ground, service.group, standing.engine, but=row.id)
        )
        if over:
            raise Conflict(f"over quota: {over}")
    row.replicas = replicas
    row.revision += 1
    for rollout in standing.unfinished:
        if "replicas" in rollout.change:  # its success is not to bring the earlier number back
            rollout.change = {**rollout.change, "replicas": replicas}
    return accepted(tx, actor, Action.UPDATE, row, None, detail)


def stop(tx: Session, actor: Actor, service_name: str, version: int) -> Accepted:
    """Take it offline: it finishes what it received, keeps its values and can be started again.

    Raises:
        NotFound: no such service, or the version is not deployed.
        Refused: the actor may not; it was deployed by another.
    """
    service = deployments.service_of(tx, actor, service_name)
    row = deployments.find(tx, service, version).row
    require(actor, Action.STOP, resource_of(service, [row]))
    if row.wanted == Wanted.OFFLINE.value:
        return accepted(tx, actor, Action.STOP, row, None, "offline already", changed=False)
    _leave(row, Wanted.OFFLINE, f"stopped by {actor.name}")
    return accepted(tx, actor, Action.STOP, row, None, "offline")


def delete(tx: Session, actor: Actor, service_name: str, version: int) -> Accepted:
    """Take it offline for good; the row goes with its last worker, its labels go now.

    Raises:
        NotFound: no such service, or the version is not deployed.
        Refused: the actor may not; it was deployed by another.
    """
    service = deployments.service_of(tx, actor, service_name)
    row = deployments.find(tx, service, version).row
    require(actor, Action.DELETE, resource_of(service, [row]))
    return _delete(tx, actor, row)


def delete_all(tx: Session, actor: Actor, service_name: str) -> Listing[DeploymentRecord]:
    """Take everything of a service offline for good; its versions stay registered.

    Raises:
        NotFound: no such service.
        Refused: the actor may not; some were deployed by others.
    """
    service = deployments.service_of(tx, actor, service_name)
    rows = [standing.row for standing in deployments.standings(tx, service)]
    require(actor, Action.DELETE, resource_of(service, rows))
    return Listing(items=[_delete(tx, actor, row).deployment for row in rows])


def roll_back(
    tx: Session,
    actor: Actor,
    ground: Ground,
    service_name: str,
    version: int,
    asked: RollbackBody,
    now: float,
    *,
    running: int | None,
    warm: GenerationSpec | None,
) -> Accepted:
    """Go back: out of the running rollout, else to the generation before.

    `running` is the rollout on its way, which the caller then recalls; `warm` the generation
    before, while its workers stand by.

    Raises:
        NotFound: no such service, or the version is not deployed.
        Refused: the actor may not.
        Conflict: there is nothing to go back to, or its version is online elsewhere.
    """
    service = deployments.service_of(tx, actor, service_name, Action.UPDATE)
    standing = deployments.find(tx, service, version)
    row = standing.row
    if running is not None:
        rollout = tx.get_one(RolloutRow, running)
        return accepted(tx, actor, Action.UPDATE, row, rollout, f"recall of rollout {running}")
    previous = row.facts.get("previous")
    if not (standing.online and standing.serves) or previous is None:
        raise Conflict(
            f"version {version} of {service_name!r} has no earlier generation to go back to"
        )
    number = previous["version"]
    refuse_claimed(deployments.standings(tx, service), service, number, but=standing)
    change = _brought_by(tx, row, msgspec.convert(previous, GenerationSpec))
    still_warm = warm is not None and warm.generation == previous["generation"]
    rollout = begin(
        tx, actor, ground, row, deployable(tx, service, number), change,
        kind=Kind.ROLLBACK, strategy=_strategy(row, asked), now=now, serves=True,
        spec=warm if still_warm else None,
    )  # fmt: skip
    detail = f"rollback to version {number}, generation {previous['generation']}"
    return accepted(tx, actor, Action.UPDATE, row, rollout, detail)


# ---- inside

#: What a generation brings with it; how many replicas there are and who answers how much does not.
_BROUGHT = ("version", "instance_type", "cpu", "memory", "gpu", "threads", "options", "deployed_by")


def _again(
    tx: Session,
    actor: Actor,
    ground: Ground,
    service: Service,
    standing: Standing,
    now: float,
    detail: str,
) -> Accepted:
    row, serves = standing.row, standing.serves
    found = deployments.standings(tx, service)
    refuse_claimed(found, service, row.version, but=standing)
    refuse_seventh(found, service, but=standing)
    code = deployable(tx, service, row.version)
    row.wanted = Wanted.ONLINE.value
    if not serves:
        row.state, row.reason = State.PENDING.value, ""
    rollout = begin(
        tx, actor, ground, row, code, _columns(row),
        kind=Kind.UPDATE if serves else Kind.INITIAL,
        strategy=msgspec.convert(row.strategy, StrategySpec), now=now, serves=serves,
    )  # fmt: skip
    return accepted(tx, actor, Action.UPDATE, row, rollout, detail)


def _columns(row: Deployment) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _BROUGHT}


def _brought_by(tx: Session, row: Deployment, previous: GenerationSpec) -> dict[str, Any]:
    """What the rollout that once brought a generation made true."""
    changes = tx.execute(
        select(RolloutRow.target, RolloutRow.change)
        .where(
            RolloutRow.deployment_id == row.id,
            RolloutRow.state == RolloutState.SUCCEEDED.value,
        )
        .order_by(RolloutRow.id.desc())
    )
    for target, change in changes:
        if msgspec.convert(target, GenerationSpec).number == previous.number:
            return {name: change[name] for name in _BROUGHT if name in change}
    raise Conflict(f"how generation {previous.generation} was deployed is no longer known")


def _strategy(row: Deployment, asked: UpdateBody | RollbackBody) -> StrategySpec:
    return strategy_of(asked.strategy, msgspec.convert(row.strategy, StrategySpec))


def _leave(row: Deployment, wanted: Wanted, reason: str) -> None:
    row.wanted, row.state, row.reason = wanted.value, State.DRAINING.value, reason
    row.revision += 1


def _delete(tx: Session, actor: Actor, row: Deployment) -> Accepted:
    _leave(row, Wanted.DELETED, f"deleted by {actor.name}")
    tx.execute(delete_rows(Label).where(Label.deployment_id == row.id))
    return accepted(tx, actor, Action.DELETE, row, None, "deleted")
