"""How a service goes from one generation to the next, as functions of plain data.

Must never: act, wait, read a clock or remember. The same snapshot, observation and moment give the
same decision ("Policies should be entirely stateless and idempotent": TensorFlow Serving).

Rules the strategies share:

- A candidate is promoted only when all its replicas are ready, and its dead are not replaced.
- Processes of any other generation (a warm earlier one, a superseded candidate) are gone before a
  candidate's start, or are counted against it.
- Whatever is wrong, the way out is the serving generation at full strength.

`blue_green` and `recreate` go clearing → loading → switching, and differ in how many workers the
serving generation keeps meanwhile: all or none. `rolling` goes shifting, both routed. From any of
them `reverting` leads back. With nothing serving, every strategy is `blue_green`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import Flight, Outcome, Phase, ServiceSnapshot
from modelcloud.types import (
    Desired,
    GenerationSpec,
    GenerationWish,
    Observed,
    State,
    Strategy,
    WorkerView,
)

#: Granted beyond what the engine itself allows a load or a drain, so that its reason comes first.
MARGIN_S = 30.0
#: From the new route table to the last gateway's acknowledgement.
SWITCH_S = 30.0

_LEAVING = (State.DRAINING, State.STOPPED, State.FAILED)
_STEPS = (State.PENDING, State.FETCHING, State.BUILDING_ENV, State.LOADING, State.WARMING,
          State.CHECKING, State.SERVING)  # fmt: skip
_PERCENT = dict(zip(_STEPS, (0, 5, 10, 20, 60, 80, 95), strict=True))


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to want now.

    Attributes:
        flight: the rollout's facts to keep before `desired` is handed to the engine.
        step: where the target generation stands; None leaves it as it was.
        percent: how far the rollout came; a lower number than before is no news.
        outcome: set when the rollout is over; `snapshot.finish` then gives the next snapshot.
        note: one line for people.
        wake_at: monotonic time at which time alone may change the decision.
    """

    desired: Desired
    flight: Flight | None = None
    step: State | None = None
    percent: int = 0
    outcome: Outcome | None = None
    note: str = ""
    wake_at: float | None = None


def supersedable(snapshot: ServiceSnapshot, observed: Observed) -> bool:
    """Whether no request can have been answered by the rollout's target yet.

    Up to then a newer rollout takes its place at once. Beyond, it is finished first (or fails, and
    is brought back first), so that what clients saw never jumps between three generations.
    """
    flight = snapshot.flight
    if flight is None or flight.phase in (Phase.CLEARING, Phase.LOADING):
        return True
    target = flight.target.generation
    return (
        flight.phase is Phase.SHIFTING
        and target not in observed.routed
        and not _ready(observed, target)
    )


def is_warm(snapshot: ServiceSnapshot, observed: Observed) -> bool:
    """Whether the previous generation could be switched in as it stands."""
    return (
        snapshot.previous is not None
        and snapshot.keep_warm_until is not None
        and snapshot.previous.generation not in observed.failures
        and _ready(observed, snapshot.previous.generation) >= snapshot.replicas
    )


# ---- decisions


def decide(snapshot: ServiceSnapshot, observed: Observed, now: float) -> Decision:
    """What to want of a service now."""
    flight = snapshot.flight
    if flight is None:
        return _steady(snapshot, now)
    if flight.recalled and flight.phase is not Phase.REVERTING:
        return _give_up(snapshot, flight, observed, now, flight.reason)
    return _PHASES[flight.phase](snapshot, flight, observed, now)


def _steady(s: ServiceSnapshot, now: float) -> Decision:
    wishes = []
    if s.serving is not None:
        wishes.append(_serve(s.serving, s.replicas))
    warm_until = s.keep_warm_until
    if s.previous is not None and warm_until is not None and now < warm_until:
        wishes.append(_hold(s.previous, s.replicas))
        return Decision(desired=_desired(s, *wishes), wake_at=warm_until)
    return Decision(desired=_desired(s, *wishes))


def _clearing(s: ServiceSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    keeps = {f.target.generation}
    if s.serving is not None and f.strategy.name is Strategy.BLUE_GREEN:
        keeps.add(s.serving.generation)
    others = sum(w.generation not in keeps or w.state in _LEAVING for w in o.workers)
    if not others:
        return _loading(s, replace(f, phase=Phase.LOADING, since=now), o, now)
    deadline = f.since + s.drain_s + MARGIN_S
    if now >= deadline:
        reason = f"{_workers(others)} did not stop in time"
        return _give_up(s, f, o, now, reason)
    return Decision(
        desired=_desired(s, *_meanwhile(s, f, o)),
        flight=f,
        step=State.PENDING,
        note=f"waiting for {_workers(others)} to stop",
        wake_at=deadline,
    )


def _loading(s: ServiceSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    target = f.target.generation
    if target in o.failures:
        return _give_up(s, f, o, now, o.failures[target])
    ready = _ready(o, target)
    if ready >= s.replicas:
        return _switching(s, replace(f, phase=Phase.SWITCHING, since=now), o, now)
    deadline = f.since + f.target.load_timeout_s + MARGIN_S
    if now >= deadline:
        return _give_up(s, f, o, now, _overdue(f, o, ready, s.replicas))
    return Decision(
        desired=_desired(s, *_meanwhile(s, f, o), _hold(f.target, s.replicas)),
        flight=f,
        step=_step(o, target),
        percent=_percent(o, target, s.replicas),
        note=f"{_step(o, target).value}: {ready} of {s.replicas} ready",
        wake_at=deadline,
    )


def _switching(s: ServiceSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    wishes = [_serve(f.target, s.replicas)]
    if s.serving is not None and f.strategy.name is Strategy.BLUE_GREEN:
        wishes.append(_hold(s.serving, s.replicas))
    desired = _desired(s, *wishes)
    if _routed(o) == {f.target.generation}:
        return _succeeded(desired, f)
    if s.serving is not None and not _ready(o, f.target.generation):
        return _give_up(s, f, o, now, "every new worker was lost as it was switched in")
    deadline = f.since + SWITCH_S
    if now >= deadline:
        reason = f"the switch was not acknowledged within {SWITCH_S:.0f} s"
        return _give_up(s, f, o, now, reason)
    return Decision(
        desired=desired,
        flight=f,
        step=State.SERVING,
        percent=_PERCENT[State.SERVING],
        note="switching",
        wake_at=deadline,
    )


def _shifting(s: ServiceSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    assert s.serving is not None
    target = f.target.generation
    if target in o.failures:
        return _give_up(s, f, o, now, o.failures[target])
    ready = _ready(o, target)
    new, old = _shift(s, f, o, into=target, out_of=s.serving.generation)
    desired = _desired(s, _serve(s.serving, old), _share(f.target, new))
    if ready >= s.replicas and _routed(o) == {target}:
        return _succeeded(desired, f)
    f = _progress(f, ready, now)
    deadline = f.since + s.drain_s + f.target.load_timeout_s + MARGIN_S
    if now >= deadline:
        return _give_up(s, f, o, now, _overdue(f, o, ready, s.replicas))
    return Decision(
        desired=desired,
        flight=f,
        step=_step(o, target),
        percent=_percent(o, target, s.replicas),
        note=f"{_step(o, target).value}: {ready} of {s.replicas} replaced",
        wake_at=deadline,
    )


def _give_up(s: ServiceSnapshot, f: Flight, o: Observed, now: float, reason: str) -> Decision:
    """Over at once where the serving generation was not touched, else by way of `reverting`."""
    f = replace(f, reason=reason)
    untouched = f.strategy.name is Strategy.BLUE_GREEN and f.phase is not Phase.SWITCHING
    if s.serving is None or untouched:
        return _reverted(s, f)
    return _reverting(s, replace(f, phase=Phase.REVERTING, since=now, ready=0), o, now)


def _reverting(s: ServiceSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    assert s.serving is not None
    old, new = s.serving.generation, f.target.generation
    wishes = [_serve(s.serving, s.replicas)]
    if f.strategy.name is not Strategy.BLUE_GREEN:
        back, stay = _shift(s, f, o, into=old, out_of=new)
        wishes = [_serve(s.serving, back)]
        if f.strategy.name is Strategy.ROLLING:
            # The new workers that came up stand in until the old ones are back.
            wishes.append(_share(f.target, stay))
    ready = _ready(o, old)
    back_at_full = f.strategy.name is Strategy.BLUE_GREEN or ready >= s.replicas
    if back_at_full and _routed(o) == {old}:
        return _reverted(s, f)
    f = _progress(f, ready, now)
    deadline = f.since + s.drain_s + s.serving.load_timeout_s + MARGIN_S
    if now >= deadline:
        late = f"going back took too long ({ready} of {s.replicas} earlier workers are ready)"
        return _reverted(s, replace(f, reason=f"{f.reason}; {late}"))
    return Decision(
        desired=_desired(s, *wishes),
        flight=f,
        note=f"going back: {f.reason}",
        wake_at=deadline,
    )


def _succeeded(desired: Desired, f: Flight) -> Decision:
    return Decision(
        desired=desired,
        flight=f,
        step=State.SERVING,
        percent=100,
        outcome=Outcome(RolloutState.SUCCEEDED),
    )


def _reverted(s: ServiceSnapshot, f: Flight) -> Decision:
    wishes = () if s.serving is None else (_serve(s.serving, s.replicas),)
    state = RolloutState.ROLLED_BACK if f.recalled else RolloutState.FAILED
    return Decision(
        desired=_desired(s, *wishes),
        flight=f,
        outcome=Outcome(state, f.reason),
    )


_PHASES: dict[Phase, Callable[[ServiceSnapshot, Flight, Observed, float], Decision]] = {
    Phase.CLEARING: _clearing,
    Phase.LOADING: _loading,
    Phase.SWITCHING: _switching,
    Phase.SHIFTING: _shifting,
    Phase.REVERTING: _reverting,
}


# ---- arithmetic


def _shift(
    s: ServiceSnapshot, f: Flight, o: Observed, *, into: int, out_of: int
) -> tuple[int, int]:
    """Workers to have of the incoming and of the outgoing generation while the numbers move.

    The outgoing one gives up exactly what the incoming one's ready workers and `max_unavailable`
    cover, its unready workers first, so that a crash-looping one can be updated away. The incoming
    one gets the room that every process still there leaves below replicas + `max_surge`.
    """
    surge, unavailable = f.strategy.max_surge, f.strategy.max_unavailable
    if f.strategy.name is Strategy.RECREATE:
        surge, unavailable = 0, s.replicas
    limit = s.replicas + surge
    outgoing = max(0, s.replicas - unavailable - _ready(o, into))
    if f.phase is Phase.REVERTING:  # no further worker of what is given up
        outgoing = min(outgoing, _alive(o, out_of))
    else:
        outgoing = _fit(o, out_of, outgoing, limit)
    leaving = len(o.workers) - _alive(o, into) - _alive(o, out_of)
    room = limit - leaving - max(outgoing, _alive(o, out_of))
    return max(0, min(s.replicas, room)), outgoing


def _fit(o: Observed, generation: int, wish: int, limit: int) -> int:
    """`wish`, or fewer where starting more would bring all processes together over `limit`."""
    alive = _alive(o, generation)
    return min(wish, max(alive, limit - (len(o.workers) - alive)))


def _progress(f: Flight, ready: int, now: float) -> Flight:
    return replace(f, ready=ready, since=now) if ready > f.ready else f


def _ready(o: Observed, generation: int) -> int:
    return sum(w.generation == generation and w.state is State.SERVING for w in o.workers)


def _routed(o: Observed) -> set[int]:
    return {generation for generation, workers in o.routed.items() if workers}


def _alive(o: Observed, generation: int) -> int:
    return len(_coming(o, generation))


def _coming(o: Observed, generation: int) -> list[WorkerView]:
    return [w for w in o.workers if w.generation == generation and w.state not in _LEAVING]


def _step(o: Observed, generation: int) -> State:
    """The step of the worker furthest behind; `serving` is said only once all of it is routed."""
    steps = [w.state for w in _coming(o, generation) if w.state is not State.SERVING]
    if steps:
        return min(steps, key=_STEPS.index)
    return State.CHECKING if _ready(o, generation) else State.PENDING


def _percent(o: Observed, generation: int, replicas: int) -> int:
    done = sum(_PERCENT[w.state] for w in _coming(o, generation))
    return min(done // max(replicas, 1), _PERCENT[State.SERVING])


# ---- wishes


def _desired(s: ServiceSnapshot, *wishes: GenerationWish) -> Desired:
    return Desired(service=s.service, generations=wishes)


def _serve(spec: GenerationSpec, replicas: int) -> GenerationWish:
    return GenerationWish(spec=spec, replicas=replicas, routed=True, restart=True)


def _hold(spec: GenerationSpec, replicas: int) -> GenerationWish:
    return GenerationWish(spec=spec, replicas=replicas, routed=False, restart=False)


def _share(spec: GenerationSpec, replicas: int) -> GenerationWish:
    return GenerationWish(spec=spec, replicas=replicas, routed=True, restart=False)


def _meanwhile(s: ServiceSnapshot, f: Flight, o: Observed) -> list[GenerationWish]:
    """The serving generation while a candidate comes up.

    With `recreate` it stays routed with no worker, which lets requests wait instead of failing.
    """
    if s.serving is None:
        return []
    if f.strategy.name is Strategy.RECREATE:
        return [_serve(s.serving, 0)]
    # Short only where a recreate was superseded: what that one stopped must be gone first.
    back = _fit(o, s.serving.generation, s.replicas, 2 * s.replicas)
    return [_serve(s.serving, back)]


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _overdue(f: Flight, o: Observed, ready: int, replicas: int) -> str:
    step = _step(o, f.target.generation).value
    return (
        f"{ready} of {replicas} workers were ready within {f.target.load_timeout_s:g} s "
        f"(the last one was still {step})"
    )
