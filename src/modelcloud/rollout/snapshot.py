"""The facts a rollout rests on, and how they follow from one another. Plain data, no I/O.

Must never: decide what the engine is to do; that is `policy`. A snapshot is replaced as a whole,
before the engine is told what follows from it, so it is also what a store would keep.
"""

from __future__ import annotations

import math
from enum import Enum
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import replace

from modelcloud.errors import InvalidInput
from modelcloud.rollout.canary import Answers
from modelcloud.rollout.records import RolloutState, Shape
from modelcloud.types import Dispatch, GenerationSpec, Strategy, StrategySpec

MAX_STEPS = 20
MAX_WATCH_S = 86_400.0


class Phase(str, Enum):
    """How far a rollout is."""

    CLEARING = "clearing"  # processes that must be gone before the candidate starts
    LOADING = "loading"  # the candidate comes up, not routed
    WATCHING = "watching"  # canary: the candidate answers a share of the requests and is judged
    SWITCHING = "switching"  # the candidate is routed, acknowledgements are awaited
    SHIFTING = "shifting"  # rolling: both are routed, the numbers move
    RECONFIGURING = "reconfiguring"  # the serving generation's workers are given other options
    REVERTING = "reverting"  # back to the serving generation at full strength


class Flight(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout on its way.

    Attributes:
        shape: what the deployment has with the target; None: what it has already.
        since: monotonic time of the last progress; the phase's deadline counts from it.
        ready: most workers that were ready in this phase; more is progress.
        preparing: whether the generation that comes up was last seen being prepared.
        step: index of the canary step.
        watched: whether the gateways have acknowledged the step's share.
        baseline: what the candidate had answered when they had.
        verdict: what the step before has shown.
        reason: why it goes back.
        recalled: whether it goes back because someone asked for that.
    """

    target: GenerationSpec
    strategy: StrategySpec
    shape: Shape | None = None
    phase: Phase
    since: float
    ready: int = 0
    preparing: bool = False
    step: int = 0
    watched: bool = False
    baseline: Answers | None = None
    verdict: str = ""
    reason: str = ""
    recalled: bool = False


class DeploymentSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be known of a deployment beside what is observed.

    Attributes:
        replicas: workers to have of the serving generation; it may change at any time.
        dispatch: how gateways choose among them.
        keep_warm_s: how long `previous` keeps its workers after a switch.
        drain_s: how long the engine lets a worker finish what it received.
        serving: the last generation proven; every failure leads back to it.
        previous: what served before it, the target of a rollback.
        keep_warm_until: monotonic time up to which the workers of `previous` stay; None: they went.
    """

    deployment: str
    replicas: int
    dispatch: Dispatch = Dispatch()
    keep_warm_s: float = 60.0
    drain_s: float = 30.0
    serving: GenerationSpec | None = None
    previous: GenerationSpec | None = None
    keep_warm_until: float | None = None
    flight: Flight | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How a rollout ended."""

    state: RolloutState
    reason: str = ""


def target_shape(snapshot: DeploymentSnapshot) -> Shape:
    """What the deployment has once the rollout on its way has succeeded."""
    if snapshot.flight is not None and snapshot.flight.shape is not None:
        return snapshot.flight.shape
    return Shape(
        replicas=snapshot.replicas,
        dispatch=snapshot.dispatch,
        keep_warm_s=snapshot.keep_warm_s,
    )


def in_place(snapshot: DeploymentSnapshot) -> bool:
    """Whether the rollout on its way changes the options of the serving generation's workers."""
    serving, flight = snapshot.serving, snapshot.flight
    if serving is None or flight is None:
        return False
    return serving.generation == flight.target.generation


def doubles(strategy: StrategySpec) -> bool:
    """Whether the serving generation stays at full strength until the candidate's is proven."""
    return strategy.name in (Strategy.BLUE_GREEN, Strategy.CANARY)


# ---- numbers that users give


def check_strategy(spec: StrategySpec) -> None:
    """Refuse numbers with which no step could be taken.

    Raises:
        InvalidInput: one is out of its range; it says which, and what is accepted.
    """
    for field in ("max_surge", "max_unavailable"):
        value: int = getattr(spec, field)
        if value < 0:
            raise InvalidInput(f"strategy.{field}", str(value), "0 or more workers")
    if spec.name is Strategy.ROLLING and not (spec.max_surge or spec.max_unavailable):
        raise InvalidInput(
            "strategy", "max_surge 0 and max_unavailable 0", "at least one of them above 0"
        )
    if not 1 <= len(spec.steps) <= MAX_STEPS:
        raise InvalidInput("strategy.steps", f"{len(spec.steps)} steps", f"1 to {MAX_STEPS} steps")
    for step in spec.steps:
        if not 0 < step.percent <= 100:
            raise InvalidInput("strategy.steps", f"{step.percent:g} percent", "above 0, up to 100")
        if not 0 <= step.watch_s <= MAX_WATCH_S:
            raise InvalidInput(
                "strategy.steps", f"a watch_s of {step.watch_s:g}", f"0 to {MAX_WATCH_S:g} seconds"
            )
    percents = [step.percent for step in spec.steps]
    if any(later <= earlier for earlier, later in pairwise(percents)):
        given = ", ".join(f"{percent:g}" for percent in percents)
        raise InvalidInput("strategy.steps", f"{given} percent", "each step above the one before")
    if not 0 <= spec.max_error_rate <= 1:
        raise InvalidInput("strategy.max_error_rate", f"{spec.max_error_rate:g}", "0 to 1")
    if not 0 <= spec.max_p99_ms < math.inf:
        raise InvalidInput(
            "strategy.max_p99_ms", f"{spec.max_p99_ms:g}", "milliseconds, or 0 for no limit"
        )
    if spec.min_requests < 1:
        raise InvalidInput("strategy.min_requests", str(spec.min_requests), "1 or more answers")


def check_replicas(replicas: int) -> None:
    """Refuse a deployment of no worker.

    Raises:
        InvalidInput: fewer than one.
    """
    if replicas < 1:
        raise InvalidInput("replicas", str(replicas), "1 or more")


# ---- how facts follow from facts


def start(
    snapshot: DeploymentSnapshot,
    target: GenerationSpec,
    strategy: StrategySpec,
    now: float,
    shape: Shape | None = None,
) -> DeploymentSnapshot:
    """The snapshot with a rollout to `target` on its way; a warm previous generation is given up.

    With `target` the warm previous generation itself, its workers are the candidate and one switch
    is all there is to do, whatever the strategy; with another revision of the serving one's options
    (see `in_place`), its workers are.
    """
    warm = snapshot.keep_warm_until is not None and target == snapshot.previous
    if warm or snapshot.serving is None:
        strategy = StrategySpec(name=Strategy.BLUE_GREEN)
    if snapshot.serving is not None and target.generation == snapshot.serving.generation:
        phase = Phase.RECONFIGURING
    elif warm:
        phase = Phase.LOADING
    elif strategy.name is Strategy.ROLLING:
        phase = Phase.SHIFTING
    else:
        phase = Phase.CLEARING
    flight = Flight(target=target, strategy=strategy, shape=shape, phase=phase, since=now)
    return replace(snapshot, flight=flight, keep_warm_until=None)


def finish(snapshot: DeploymentSnapshot, outcome: Outcome, now: float) -> DeploymentSnapshot:
    """The snapshot after its rollout ended: what is serving changes with success only."""
    flight, shape = snapshot.flight, target_shape(snapshot)
    if flight is None or outcome.state is not RolloutState.SUCCEEDED:
        return replace(snapshot, flight=None)
    stays = (
        doubles(flight.strategy)
        and snapshot.serving is not None
        and not in_place(snapshot)
        and shape.keep_warm_s > 0
    )
    return replace(
        snapshot,
        **msgspec.structs.asdict(shape),
        serving=flight.target,
        previous=snapshot.serving or snapshot.previous,
        keep_warm_until=now + shape.keep_warm_s if stays else None,
        flight=None,
    )


def recall(snapshot: DeploymentSnapshot, reason: str) -> DeploymentSnapshot:
    """The snapshot with its rollout told to go back; one already going back is left as it is."""
    flight = snapshot.flight
    if flight is None or flight.phase is Phase.REVERTING:
        return snapshot
    return replace(snapshot, flight=replace(flight, recalled=True, reason=reason))


def prove_again(snapshot: DeploymentSnapshot) -> DeploymentSnapshot:
    """The snapshot with a candidate that was proven, and has no worker any more, coming up anew."""
    flight = snapshot.flight
    if flight is None or flight.phase not in (Phase.WATCHING, Phase.SWITCHING):
        return snapshot
    flight = replace(flight, phase=Phase.LOADING, ready=0, watched=False, baseline=None)
    return replace(snapshot, flight=flight)


def scale(snapshot: DeploymentSnapshot, replicas: int, now: float) -> DeploymentSnapshot:
    """The snapshot with another number of replicas; a rollout gets the time of its phase anew."""
    flight = snapshot.flight
    if flight is not None:
        shape = flight.shape and replace(flight.shape, replicas=replicas)
        flight = replace(flight, shape=shape, since=now, ready=0)
    return replace(snapshot, replicas=replicas, flight=flight)


def reshape(snapshot: DeploymentSnapshot, shape: Shape | None, now: float) -> DeploymentSnapshot:
    """The snapshot with a rollout that leads to another shape, in the time of its phase anew."""
    flight = snapshot.flight
    if flight is None or flight.shape == shape:
        return snapshot
    return replace(snapshot, flight=replace(flight, shape=shape, since=now, ready=0))


def stop(snapshot: DeploymentSnapshot) -> DeploymentSnapshot:
    """The snapshot of a deployment that is to have no worker; `previous` stays as it was."""
    return replace(snapshot, serving=None, keep_warm_until=None, flight=None)


# ---- time, which is monotonic and means nothing to another process


def later(snapshot: DeploymentSnapshot, by: float) -> DeploymentSnapshot:
    """The snapshot with every deadline `by` seconds later: nothing was done in that time."""
    flight, warm_until = snapshot.flight, snapshot.keep_warm_until
    return replace(
        snapshot,
        flight=flight and replace(flight, since=flight.since + by),
        keep_warm_until=None if warm_until is None else warm_until + by,
    )


def anew(snapshot: DeploymentSnapshot, now: float) -> DeploymentSnapshot:
    """The snapshot with every deadline counting from now."""
    flight, warm_until = snapshot.flight, snapshot.keep_warm_until
    return replace(
        snapshot,
        flight=flight and replace(flight, since=now),
        keep_warm_until=None if warm_until is None else now + snapshot.keep_warm_s,
    )


def timeless(snapshot: DeploymentSnapshot) -> DeploymentSnapshot:
    """The snapshot as it is kept, without its times; `anew` makes it one to act by."""
    flight, warm_until = snapshot.flight, snapshot.keep_warm_until
    return replace(
        snapshot,
        flight=flight and replace(flight, since=0.0),
        keep_warm_until=None if warm_until is None else 0.0,
    )


def to_json(snapshot: DeploymentSnapshot) -> dict[str, Any]:
    """The snapshot as a store keeps it."""
    facts: dict[str, Any] = msgspec.to_builtins(timeless(snapshot))
    return facts


def from_json(facts: dict[str, Any]) -> DeploymentSnapshot:
    """The snapshot that was kept, to be given to `Reconciler.restore`.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        return msgspec.convert(facts, DeploymentSnapshot)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "facts", str(error), "the facts of a deployment as they were kept"
        ) from None
