"""What people see of a rollout: its record, kept from acceptance to long after its end.

Must never: be read by the policy. Decisions rest on `DeploymentSnapshot`; this is the report.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import msgspec

from modelcloud.errors import ModelcloudError, Superseded, UpdateFailed
from modelcloud.types import Dispatch, GenerationSpec, Observed, State, StrategySpec

LOG_LINES = 200
LOG_LINE_CHARS = 2000


class Kind(str, Enum):
    """Why a rollout was begun."""

    INITIAL = "initial"
    UPDATE = "update"
    ROLLBACK = "rollback"


class RolloutState(str, Enum):
    """`pending` waits its turn, `running` is on its way, the others are final.

    `rolled_back`: it was on its way when a rollback was asked for, and went back.
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"


class WorkerStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as it stood when the rollout was last looked at."""

    id: int
    generation: int
    version: int
    state: State


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment has beside its generation.

    Attributes:
        replicas: workers to have.
        dispatch: how gateways choose among them.
        keep_warm_s: how long the workers of the generation before stay after a switch.
    """

    replicas: int
    dispatch: Dispatch = Dispatch()
    keep_warm_s: float = 60.0


class Rollout(msgspec.Struct, kw_only=True):
    """One rollout, its steps recorded.

    Attributes:
        shape: what the deployment has with the target; None: what it has already.
        deployment: key of the deployment, as in `GenerationSpec`.
        source: the generation that served when it started; None when nothing did.
        target: the generation it leads to; known for good once it is on its way.
        step: where the target generation stands; of an unsuccessful rollout, how far it came.
        percent: how far it is, 0 to 100.
        share: percent of the deployment's requests that the target generation gets now; None: the
            rollout is not on its way.
        reason: why it ended otherwise than in success; while it is pending, what it waits for.
        accepted_at: wall clock in seconds, for people only, as are the other two.
        log: what happened, with the candidate's own output; the last `LOG_LINES` lines.
    """

    id: str
    service: str
    kind: Kind
    strategy: StrategySpec
    target: GenerationSpec
    accepted_at: float
    shape: Shape | None = None
    deployment: str = ""
    source: GenerationSpec | None = None
    state: RolloutState = RolloutState.PENDING
    step: State = State.PENDING
    percent: int = 0
    share: float | None = None
    reason: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    workers: tuple[WorkerStanding, ...] = ()
    log: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=LOG_LINES))

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self.state not in (RolloutState.PENDING, RolloutState.RUNNING)

    @property
    def reconfigures(self) -> bool:
        """Whether it gives the running workers other options, in place of a new generation."""
        return self.source is not None and self.source.generation == self.target.generation

    def add_log(self, line: str) -> None:
        """Keep one line; an overlong one is cut."""
        line = line.rstrip("\r\n")
        self.log.append(line if len(line) <= LOG_LINE_CHARS else line[: LOG_LINE_CHARS - 1] + "…")

    def look_at(self, observed: Observed) -> None:
        """Take down how the workers of source and target stand."""
        versions = {spec.generation: spec.version for spec in (self.source, self.target) if spec}
        self.workers = tuple(
            WorkerStanding(
                id=w.id, generation=w.generation, version=versions[w.generation], state=w.state
            )
            for w in observed.workers
            if w.generation in versions
        )

    def error(self) -> ModelcloudError | None:
        """What to tell who asked for it: nothing on success, or while it is not finished."""
        if self.state is RolloutState.FAILED:
            return UpdateFailed(self.reason, rollout=self.id, step=self.step.value)
        if self.state in (RolloutState.SUPERSEDED, RolloutState.ROLLED_BACK):
            return Superseded(self.reason, rollout=self.id)
        return None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `GET /rollouts/<id>`; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "service": self.service,
            "deployment": self.deployment,
            "kind": self.kind.value,
            "state": self.state.value,
            "step": self.step.value,
            "percent": self.percent,
            "share": self.share,
            "reason": self.reason,
            "strategy": msgspec.to_builtins(self.strategy),
            "reconfigures": self.reconfigures,
            "from": _generation(self.source),
            "to": _generation(self.target),
            "accepted_at": _iso(self.accepted_at),
            "started_at": _iso(self.started_at),
            "finished_at": _iso(self.finished_at),
            "workers": msgspec.to_builtins(self.workers),
            "log": list(self.log),
        }


def _generation(spec: GenerationSpec | None) -> dict[str, int] | None:
    if spec is None:
        return None
    return {
        "generation": spec.generation,
        "revision": spec.revision,
        "version": spec.version,
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
