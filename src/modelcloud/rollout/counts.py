"""Counts an observation's workers, and how many there may be of each while numbers move.

Must never: choose what to do; that is `policy`.
"""

from __future__ import annotations

from msgspec.structs import replace

from modelcloud.rollout.snapshot import DeploymentSnapshot, Flight, Phase, target_shape
from modelcloud.types import GenerationSpec, Observed, State, Strategy, WorkerView

#: States of a worker that will not serve again unless it is called back.
LEAVING = (State.DRAINING, State.STOPPED, State.FAILED)
_STEPS = (State.PENDING, State.FETCHING, State.BUILDING_ENV, State.LOADING, State.WARMING,
          State.CHECKING, State.SERVING)  # fmt: skip
_PERCENT = dict(zip(_STEPS, (0, 5, 10, 20, 60, 80, 95), strict=True))
#: How far a rollout is when all is ready and only the switch is missing.
READY_PERCENT = _PERCENT[State.SERVING]


def ready(o: Observed, generation: int) -> int:
    """Workers of a generation that can answer."""
    return sum(w.generation == generation and w.state is State.SERVING for w in o.workers)


def alive(o: Observed, generation: int) -> int:
    """Workers of a generation that can answer or are coming up."""
    return len(_coming(o, generation))


def having(o: Observed, spec: GenerationSpec) -> int:
    """Workers of a generation that can answer and have these of its options."""
    mine = [w for w in o.workers if w.generation == spec.generation]
    return sum(w.revision == spec.revision and w.state is State.SERVING for w in mine)


def part(o: Observed, spec: GenerationSpec) -> float:
    """Of a generation's workers that can answer, the part that has these of its options."""
    there = ready(o, spec.generation)
    return having(o, spec) / there if there else 1.0


def routed(o: Observed) -> set[int]:
    """Generations that the gateways send requests to."""
    return {generation for generation, workers in o.routed.items() if workers}


def share(o: Observed, generation: int) -> float:
    """Percent of the deployment's requests that a generation gets, rounded to tenths."""
    workers = {g: len(ids) for g, ids in o.routed.items() if ids}
    if generation not in workers:
        return 0.0
    if generation in o.percents:
        return o.percents[generation]
    left = 100.0 - sum(percent for g, percent in o.percents.items() if g in workers)
    sharing = sum(count for g, count in workers.items() if g not in o.percents)
    return round(left * workers[generation] / sharing, 1)


def step(o: Observed, generation: int) -> State:
    """The step of the worker furthest behind; `serving` is said only once all of it is routed."""
    if generation in o.preparing:
        return o.preparing[generation]
    steps = [w.state for w in _coming(o, generation) if w.state is not State.SERVING]
    if steps:
        return min(steps, key=_STEPS.index)
    return State.CHECKING if ready(o, generation) else State.PENDING


def percent(o: Observed, generation: int, replicas: int) -> int:
    """How far a generation has come up, 0 to `READY_PERCENT`."""
    if generation in o.preparing:
        return _PERCENT[o.preparing[generation]]
    done = sum(_PERCENT[w.state] for w in _coming(o, generation))
    return min(done // max(replicas, 1), READY_PERCENT)


def progress(f: Flight, ready_now: int, now: float) -> Flight:
    """The flight, with its time counting anew when more workers are ready than ever before."""
    return replace(f, ready=ready_now, since=now) if ready_now > f.ready else f


def prepared(f: Flight, o: Observed, generation: int, now: float) -> Flight:
    """The flight, with its time counting anew when preparing its generation begins or ends."""
    preparing = generation in o.preparing
    return f if preparing == f.preparing else replace(f, preparing=preparing, since=now)


def shift(
    s: DeploymentSnapshot, f: Flight, o: Observed, *, into: int, out_of: int
) -> tuple[int, int]:
    """Workers to have of the incoming and of the outgoing generation while the numbers move.

    The outgoing one gives up exactly what the incoming one's ready workers and `max_unavailable`
    cover, its unready workers first, so that a crash-looping one can be updated away. Where the two
    have different numbers of replicas, it gives up the part of its own that is ready of the other.
    The incoming one gets the room that every process still there leaves below replicas +
    `max_surge`, and keeps what it has where that room has become smaller (fewer replicas are wanted
    than before).
    """
    has, wants = s.replicas, target_shape(s).replicas
    if into != f.target.generation:
        has, wants = wants, has
    surge, unavailable = f.strategy.max_surge, f.strategy.max_unavailable
    if f.strategy.name is Strategy.RECREATE:
        surge, unavailable = 0, has
    limit = max(has, wants) + surge
    incoming_now, outgoing_now = alive(o, into), alive(o, out_of)
    outgoing = max(0, has - unavailable - ready(o, into) * has // wants)
    if f.phase is Phase.REVERTING:  # no further worker of what is given up
        outgoing = min(outgoing, outgoing_now)
    else:
        outgoing = fit(o, out_of, outgoing, limit)
    leaving = len(o.workers) - incoming_now - outgoing_now
    room = limit - leaving - max(outgoing, outgoing_now)
    return min(wants, max(room, incoming_now)), outgoing


def fit(o: Observed, generation: int, wish: int, limit: int) -> int:
    """`wish`, or fewer where starting more would bring all processes together over `limit`."""
    there = alive(o, generation)
    return min(wish, max(there, limit - (len(o.workers) - there)))


def _coming(o: Observed, generation: int) -> list[WorkerView]:
    return [w for w in o.workers if w.generation == generation and w.state not in LEAVING]
