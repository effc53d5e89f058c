"""What is done with a version that a monitor brought: a pure decision on where things stand.

Must never: ask the store, or bring back what a person took offline.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from modelcloud.control.deployments.deployment_states import Wanted


class Way(str, Enum):
    """How a version goes online."""

    NEW = "new"
    REPLACE = "replace"
    AFRESH = "afresh"  # as new, in place of a deployment that never came to serve
    WAIT = "wait"  # for a rollout that is on its way
    NOT = "not"


class Target(NamedTuple):
    """The deployment where a monitor's versions go.

    Attributes:
        version: that it is at.
        wanted: what it is to be.
        serves: whether it has a proven generation.
        moving: whether a rollout of it is not over.
    """

    version: int
    wanted: Wanted
    serves: bool
    moving: bool


class Decision(NamedTuple):
    """A way, and for `NOT` why."""

    way: Way
    reason: str = ""


def decide(known: bool, target: Target | None) -> Decision:
    """How the next version goes online.

    Args:
        known: whether the monitor has a deployment, be it gone by now.
        target: that deployment; None: it is gone.
    """
    if not known:
        return Decision(Way.NEW)
    if target is None or target.wanted is Wanted.DELETED:
        return Decision(
            Way.NOT,
            "not deployed: the deployment of its versions was deleted; set `replaces` to another "
            "version that is online, or to null for a new one",
        )
    if target.moving:
        return Decision(Way.WAIT)
    if target.wanted is Wanted.OFFLINE:
        return Decision(
            Way.NOT, f"not deployed: version {target.version}, whose place it takes, is offline"
        )
    return Decision(Way.REPLACE if target.serves else Way.AFRESH)
