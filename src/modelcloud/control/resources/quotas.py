"""What groups may use at a time, what they do use, and what the node has.

Must never: refuse a deployment; that is for who deploys, by `quota_sums`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from modelcloud.control.access import audit, groups
from modelcloud.control.access.groups import GroupRecord, Quota
from modelcloud.control.access.permissions import Action, Actor, Resource, readable_groups, require
from modelcloud.control.common.records import Record
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments import deployments
from modelcloud.control.deployments.quota_sums import Amounts
from modelcloud.errors import NotFound
from modelcloud.node.orders import Standing
from modelcloud.store.tables import Group
from modelcloud.types import LOCAL

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Uses(Record):
    """So many processors, bytes, devices and workers."""

    cpu: float = 0.0
    memory: int = 0
    gpu: float = 0.0
    replicas: int = 0


class Capacity(Record):
    """What the workers of the node may use together, memory in bytes."""

    cpu: float
    memory: int
    gpu: float


class GroupUses(Record):
    """What a group uses, and may use."""

    group: str
    in_use: Uses
    quota: Quota


class NodeRecord(Record):
    """The node.

    Attributes:
        host, port: where it takes predictions.
        engines: where workers may run; the first one is where they do unless told.
        in_use: by everything online, of all groups.
        groups: of the groups that who asks may read.
    """

    host: str
    port: int
    engines: list[str]
    capacity: Capacity
    in_use: Uses
    groups: list[GroupUses]


def node(tx: Session, actor: Actor, standing: Standing) -> NodeRecord:
    """The node, and who uses it.

    Raises:
        Refused: the actor's token opens predictions only.
    """
    require(actor, Action.READ_INSTANCE, Resource(kind="node"))
    used = deployments.usage(tx)
    query = select(Group).order_by(Group.name)
    readable = readable_groups(actor)
    if readable is not None:
        query = query.where(Group.id.in_(readable))
    return NodeRecord(
        host=standing.config.host,
        port=standing.port,
        engines=[*dict.fromkeys((standing.config.engine, LOCAL))],
        capacity=Capacity(cpu=standing.cpus, memory=standing.memory, gpu=standing.gpus),
        in_use=_uses(sum(used.values(), Amounts())),
        groups=[
            GroupUses(
                group=group.name,
                in_use=_uses(used.get(group.id, Amounts())),
                quota=groups.quota_of(group),
            )
            for group in tx.scalars(query)
        ],
    )


def set_quota(
    tx: Session, actor: Actor, name: str, quota: Quota, expected: Expected
) -> GroupRecord:
    """Set all of a group's quota. What is online stays so, even above it.

    Raises:
        Refused: the actor is no administrator.
        NotFound: there is no such group.
        PreconditionFailed: the group was changed in the meantime.
    """
    group = tx.scalar(select(Group).where(Group.name == name))
    require(actor, Action.MANAGE_QUOTAS, Resource(kind="group", name=name, group=name))
    if group is None:
        raise NotFound(f"no group {name!r}")
    expected.check(group.revision, f"group {name!r}")
    group.quota_cpu = quota.cpu
    group.quota_memory = quota.memory
    group.quota_gpu = quota.gpu
    group.quota_replicas = quota.replicas
    group.revision += 1
    given = quota.model_dump(exclude_none=True)
    detail = ", ".join(f"{what} {limit:g}" for what, limit in given.items()) or "no limits"
    audit.note(tx, actor, Action.MANAGE_QUOTAS, "group", name, name, detail=detail)
    return groups.record(actor, group)


def _uses(amounts: Amounts) -> Uses:
    # Tenths do not add up to tenths in binary.
    cpu, gpu = round(amounts.cpu, 6), round(amounts.gpu, 6)
    return Uses(cpu=cpu, memory=amounts.memory, gpu=gpu, replicas=amounts.replicas)
