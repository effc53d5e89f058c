"""The facts a rollout rests on, and how they follow from one another. Plain data, no I/O.

Must never: decide what the engine is to do; that is `policy`. A snapshot is replaced as a whole,
before the engine is told what follows from it, so it is also what a store would keep.
"""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec.structs import replace

from modelcloud.errors import InvalidInput
from modelcloud.rollout.records import RolloutState
from modelcloud.types import GenerationSpec, Strategy, StrategySpec


class Phase(str, Enum):
    """How far a rollout is."""

    CLEARING = "clearing"  # processes that must be gone before the candidate starts
    LOADING = "loading"  # the candidate comes up, not routed
    SWITCHING = "switching"  # the candidate is routed, acknowledgements are awaited
    SHIFTING = "shifting"  # rolling: both are routed, the numbers move
    REVERTING = "reverting"  # back to the serving generation at full strength


class Flight(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout on its way.

    Attributes:
        since: monotonic time of the last progress; the phase's deadline counts from it.
        ready: most workers that were ready in this phase; more is progress.
        reason: why it goes back.
        recalled: whether it goes back because someone asked for that.
    """

    target: GenerationSpec
    strategy: StrategySpec
    phase: Phase
    since: float
    ready: int = 0
    reason: str = ""
    recalled: bool = False


class ServiceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be known of a service beside what is observed.

    Attributes:
        drain_s: how long the engine lets a worker finish what it received.
        serving: the last generation proven; every failure leads back to it.
        previous: what served before it, the target of a rollback.
        keep_warm_until: monotonic time up to which the workers of `previous` stay; None: they went.
    """

    service: str
    replicas: int
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


def check_strategy(spec: StrategySpec) -> None:
    """Refuse numbers with which no step could be taken.

    Raises:
        InvalidInput: negative, or both zero.
    """
    for field in ("max_surge", "max_unavailable"):
        value: int = getattr(spec, field)
        if value < 0:
            raise InvalidInput(f"strategy.{field}", str(value), "0 or more workers")
    if spec.name is Strategy.ROLLING and not (spec.max_surge or spec.max_unavailable):
        raise InvalidInput(
            "strategy", "max_surge 0 and max_unavailable 0", "at least one of them above 0"
        )


def start(
    snapshot: ServiceSnapshot, target: GenerationSpec, strategy: StrategySpec, now: float
) -> ServiceSnapshot:
    """The snapshot with a rollout to `target` on its way; a warm previous generation is given up.

    With `target` the warm previous generation itself, its workers are the candidate and one switch
    is all there is to do, whatever the strategy.
    """
    warm = snapshot.keep_warm_until is not None and target == snapshot.previous
    if warm or snapshot.serving is None:
        strategy = StrategySpec(name=Strategy.BLUE_GREEN)
    if warm:
        phase = Phase.LOADING
    elif strategy.name is Strategy.ROLLING:
        phase = Phase.SHIFTING
    else:
        phase = Phase.CLEARING
    flight = Flight(target=target, strategy=strategy, phase=phase, since=now)
    return replace(snapshot, flight=flight, keep_warm_until=None)


def finish(snapshot: ServiceSnapshot, outcome: Outcome, now: float) -> ServiceSnapshot:
    """The snapshot after its rollout ended: what is serving changes with success only."""
    flight = snapshot.flight
    if flight is None or outcome.state is not RolloutState.SUCCEEDED:
        return replace(snapshot, flight=None)
    stays = (
        flight.strategy.name is Strategy.BLUE_GREEN
        and snapshot.serving is not None
        and snapshot.keep_warm_s > 0
    )
    return replace(
        snapshot,
        serving=flight.target,
        previous=snapshot.serving or snapshot.previous,
        keep_warm_until=now + snapshot.keep_warm_s if stays else None,
        flight=None,
    )


def recall(snapshot: ServiceSnapshot, reason: str) -> ServiceSnapshot:
    """The snapshot with its rollout told to go back; one already going back is left as it is."""
    flight = snapshot.flight
    if flight is None or flight.phase is Phase.REVERTING:
        return snapshot
    return replace(snapshot, flight=replace(flight, recalled=True, reason=reason))
