"""How a deployment is shown to people: one state, from what is wanted, decided and observed.

Must never: decide anything by it; decisions rest on the facts themselves.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from modelcloud.rollout.records import Rollout
from modelcloud.rollout.snapshot import DeploymentSnapshot
from modelcloud.types import Observed, State, WorkerView


class Wanted(str, Enum):
    """What a deployment is to be; `deleted` until its last worker is gone."""

    ONLINE = "online"
    OFFLINE = "offline"
    DELETED = "deleted"


class Status(str, Enum):
    """The states in four words."""

    DEPLOYING = "Deploying"
    SERVING = "Serving"
    FAILED = "Failed"
    OFFLINE = "Offline"


class Shown(msgspec.Struct, frozen=True):
    """A state, and why it is not a better one."""

    state: State
    reason: str = ""


_LEAVING = (State.DRAINING, State.STOPPED, State.FAILED)
_ORDER = list(State)


def status_of(state: State) -> Status:
    """The word for a state."""
    if state is State.SERVING:
        return Status.SERVING
    if state is State.FAILED:
        return Status.FAILED
    if state in (State.DRAINING, State.STOPPED):
        return Status.OFFLINE
    return Status.DEPLOYING


def shown(
    wanted: Wanted,
    facts: DeploymentSnapshot,
    running: Rollout | None,
    observed: Observed,
    reason: str,
) -> Shown:
    """The state of a deployment.

    A deployment that serves is `serving` while it is updated, and after an update that failed. One
    that has something to serve but no worker that could is `failed` once a worker was lost, and in
    the step of its slowest worker as long as none was: its node has just been started.

    `running` is its rollout that waits or is on its way, `reason` why its last one failed, or why
    it was stopped.
    """
    if wanted is not Wanted.ONLINE:
        return Shown(State.DRAINING if observed.workers else State.STOPPED, reason)
    if facts.serving is not None:
        return _standing(facts.serving.generation, observed)
    if running is not None:
        return Shown(running.step if running.step not in _LEAVING else State.PENDING)
    return Shown(State.FAILED, reason)


def _standing(generation: int, observed: Observed) -> Shown:
    routed = {worker for workers in observed.routed.values() for worker in workers}
    if any(w.id in routed and w.state is State.SERVING for w in observed.workers):
        return Shown(State.SERVING, observed.degraded)
    mine = [w for w in observed.workers if w.generation == generation]
    if any(w.restarts or w.error for w in mine):
        return Shown(State.FAILED, observed.degraded or "no worker is ready")
    if preparing := observed.preparing.get(generation):
        return Shown(preparing)
    return Shown(_slowest(mine), observed.degraded)


def _slowest(workers: list[WorkerView]) -> State:
    coming = [w.state for w in workers if w.state not in _LEAVING]
    state = min(coming, key=_ORDER.index, default=State.PENDING)
    return State.CHECKING if state is State.SERVING else state
