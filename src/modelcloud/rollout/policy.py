"""How a service goes from one generation to the next, as functions of plain data.

Must never: act, wait, read a clock or remember. The same snapshot, observation and moment give the
same decision ("Policies should be entirely stateless and idempotent": TensorFlow Serving).

Rules the strategies share:

- A candidate is promoted only when all its replicas are ready, and its dead are not replaced.
- Processes of any other generation (a warm earlier one, a superseded candidate) are gone before a
  candidate's start, or are counted against it.
- Whatever is wrong, the way out is the serving generation at full strength.

`blue_green` and `recreate` go clearing → loading → switching, and differ in how many workers the
serving generation keeps meanwhile: all or none. `canary` is `blue_green` with watching before the
switch. `rolling` goes shifting, both routed. From any of them `reverting` leads back. With nothing
serving, every strategy is `blue_green`. With another revision of the serving generation's options
as the target, all there is to it is `reconfiguring`, in the workers that run.

The number of replicas may be another one at each decision; a phase rests on the one it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from modelcloud.rollout import counts, wishes
from modelcloud.rollout.canary import Answers, broken_limit, summary
from modelcloud.rollout.decision import MARGIN_S, PREPARE_S, Decision
from modelcloud.rollout.going_back import give_up, reverting
from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import (
    DeploymentSnapshot,
    Flight,
    Outcome,
    Phase,
    doubles,
    target_shape,
)
from modelcloud.types import (
    Desired,
    GenerationWish,
    Observed,
    State,
    Strategy,
)

#: From the new route table to the last gateway's acknowledgement.
SWITCH_S = 30.0
#: Of a canary's way, the part up to its first step, and from there to the switch.
_CANARY_PERCENT = (45, counts.READY_PERCENT)


def supersedable(snapshot: DeploymentSnapshot, observed: Observed) -> bool:
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
        and not counts.ready(observed, target)
    )


def is_warm(snapshot: DeploymentSnapshot, observed: Observed) -> bool:
    """Whether the previous generation could be switched in as it stands."""
    return (
        snapshot.previous is not None
        and snapshot.keep_warm_until is not None
        and snapshot.previous.generation not in observed.failures
        and counts.ready(observed, snapshot.previous.generation) >= snapshot.replicas
    )


def is_bare(snapshot: DeploymentSnapshot, observed: Observed) -> bool:
    """Whether neither what serves nor a candidate has a worker, and none of them failed."""
    flight = snapshot.flight
    specs = [snapshot.serving, flight.target if flight else None]
    known = {spec.generation for spec in specs if spec is not None}
    there = {worker.generation for worker in observed.workers} | observed.failures.keys()
    return not known & there


# ---- decisions


def decide(
    snapshot: DeploymentSnapshot,
    observed: Observed,
    now: float,
    answers: Answers | None = None,
    bounds: Sequence[float] = (),
) -> Decision:
    """What to want of a deployment now.

    Args:
        snapshot: the facts that were kept.
        observed: what the engine sees.
        now: monotonic seconds.
        answers: what the rollout's target has answered so far; None: nobody has counted.
        bounds: upper bounds, in seconds, of the buckets in `answers`.
    """
    flight = snapshot.flight
    if flight is None:
        return _steady(snapshot, observed, now)
    if flight.recalled and flight.phase is not Phase.REVERTING:
        return give_up(snapshot, flight, observed, now, flight.reason)
    if flight.phase is Phase.WATCHING:
        return _watching(snapshot, flight, observed, now, answers, bounds)
    return _PHASES[flight.phase](snapshot, flight, observed, now)


def _steady(s: DeploymentSnapshot, o: Observed, now: float) -> Decision:
    serving = [] if s.serving is None else [wishes.serve(s.serving, s.replicas)]
    if s.previous is None or s.keep_warm_until is None or now >= s.keep_warm_until:
        return Decision(desired=wishes.desired(s, *serving))
    return Decision(
        desired=wishes.desired(s, *serving, *wishes.linger(s, o, s.previous)),
        wake_at=s.keep_warm_until,
    )


def _clearing(s: DeploymentSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    keeps = {f.target.generation}
    if s.serving is not None and doubles(f.strategy):
        keeps.add(s.serving.generation)
    others = sum(w.generation not in keeps or w.state in counts.LEAVING for w in o.workers)
    if not others:
        return _loading(s, replace(f, phase=Phase.LOADING, since=now), o, now)
    deadline = f.since + s.drain_s + MARGIN_S
    if now >= deadline:
        reason = f"{_workers(others)} did not stop in time"
        return give_up(s, f, o, now, reason)
    return Decision(
        desired=wishes.desired(s, *_meanwhile(s, f, o)),
        flight=f,
        step=State.PENDING,
        note=f"waiting for {_workers(others)} to stop",
        wake_at=deadline,
    )


def _loading(s: DeploymentSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    target, replicas = f.target.generation, target_shape(s).replicas
    if target in o.failures:
        return give_up(s, f, o, now, o.failures[target])
    ready = counts.ready(o, target)
    if ready >= replicas:
        if f.strategy.name is Strategy.CANARY:
            return _watching(s, replace(f, phase=Phase.WATCHING, since=now), o, now)
        return _switching(s, replace(f, phase=Phase.SWITCHING, since=now), o, now)
    f = counts.prepared(f, o, target, now)
    deadline = f.since + (PREPARE_S if f.preparing else f.target.load_timeout_s + MARGIN_S)
    if now >= deadline:
        return give_up(s, f, o, now, _overdue(f, o, ready, replicas))
    percent = counts.percent(o, target, replicas)
    if f.strategy.name is Strategy.CANARY:
        percent = percent * _CANARY_PERCENT[0] // counts.READY_PERCENT
    return Decision(
        desired=wishes.desired(s, *_meanwhile(s, f, o), wishes.hold(f.target, replicas)),
        flight=f,
        step=counts.step(o, target),
        percent=percent,
        note=_note(o, target, f"{ready} of {replicas} ready"),
        wake_at=deadline,
    )


def _watching(
    s: DeploymentSnapshot,
    f: Flight,
    o: Observed,
    now: float,
    answers: Answers | None = None,
    bounds: Sequence[float] = (),
) -> Decision:
    """One step of a canary: its share, then its time, then the next step or the switch.

    The time and the counting begin when the gateways have acknowledged the share. It is over only
    with all replicas ready, since the switch needs them (more may have been asked for meanwhile).
    """
    assert s.serving is not None
    target, steps = f.target.generation, f.strategy.steps
    replicas = target_shape(s).replicas
    if target in o.failures:
        return give_up(s, f, o, now, o.failures[target])
    ready = counts.ready(o, target)
    if not ready:
        return give_up(s, f, o, now, "every new worker was lost as it was watched")
    step = steps[f.step]
    if not f.watched and o.percents.get(target) == step.percent:
        f = replace(f, watched=True, since=now)
    f, seen = _count(f, answers)
    if reason := broken_limit(f.strategy, seen, bounds):
        return give_up(s, f, o, now, f"at {step.percent:g} % of the requests, {reason}")
    deadline = f.since + (step.watch_s if f.watched else SWITCH_S)
    if now >= deadline:
        if not f.watched:
            reason = f"its share of the requests was not acknowledged within {SWITCH_S:.0f} s"
            return give_up(s, f, o, now, reason)
        if ready >= replicas:
            verdict = f"{step.percent:g} %: {summary(f.strategy, seen, bounds)}"
            f = replace(f, since=now, watched=False, baseline=None, verdict=verdict)
            if f.step + 1 == len(steps):
                return _switching(s, replace(f, phase=Phase.SWITCHING), o, now)
            return _watching(s, replace(f, step=f.step + 1), o, now, answers, bounds)
        deadline = max(deadline, f.since + f.target.load_timeout_s + MARGIN_S)
        if now >= deadline:
            return give_up(s, f, o, now, _overdue(f, o, ready, replicas))
    low, high = _CANARY_PERCENT
    share = f"{step.percent:g} % of the requests for {step.watch_s:g} s"
    return Decision(
        desired=wishes.desired(
            s, wishes.serve(s.serving, s.replicas), wishes.share(f.target, replicas, step.percent)
        ),
        flight=f,
        step=State.CHECKING,
        percent=low + (high - low) * f.step // len(steps),
        note=_after(f, f"step {f.step + 1} of {len(steps)}: {share}"),
        wake_at=deadline,
    )


def _count(f: Flight, answers: Answers | None) -> tuple[Flight, Answers]:
    """The flight with where its step's counting begins, and the answers since then."""
    if not f.watched or answers is None:
        return f, Answers()
    if f.baseline is None:
        f = replace(f, baseline=answers)
    elif answers.requests < f.baseline.requests:  # a gateway was lost, and its counts with it
        f = replace(f, baseline=Answers())
    return f, answers.since(f.baseline or Answers())


def _switching(s: DeploymentSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    target, shape = f.target.generation, target_shape(s)
    before = []
    if s.serving is not None and doubles(f.strategy):
        before = wishes.linger(s, o, s.serving)
    desired = wishes.desired(
        s, wishes.serve(f.target, shape.replicas), *before, dispatch=shape.dispatch
    )
    if counts.routed(o) == {target} and target not in o.percents:
        return _succeeded(desired, f)
    if s.serving is not None and not counts.ready(o, target):
        return give_up(s, f, o, now, "every new worker was lost as it was switched in")
    deadline = f.since + SWITCH_S
    if now >= deadline:
        reason = f"the switch was not acknowledged within {SWITCH_S:.0f} s"
        return give_up(s, f, o, now, reason)
    return Decision(
        desired=desired,
        flight=f,
        step=State.SERVING,
        percent=counts.READY_PERCENT,
        note=_after(f, "switching"),
        wake_at=deadline,
    )


def _shifting(s: DeploymentSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    assert s.serving is not None
    target, replicas = f.target.generation, target_shape(s).replicas
    if target in o.failures:
        return give_up(s, f, o, now, o.failures[target])
    ready = counts.ready(o, target)
    new, old = counts.shift(s, f, o, into=target, out_of=s.serving.generation)
    desired = wishes.desired(s, wishes.serve(s.serving, old), wishes.share(f.target, new))
    if ready >= replicas and counts.routed(o) == {target}:
        return _succeeded(desired, f)
    f = counts.progress(counts.prepared(f, o, target, now), ready, now)
    load_s = PREPARE_S if f.preparing else f.target.load_timeout_s
    deadline = f.since + s.drain_s + load_s + MARGIN_S
    if now >= deadline:
        return give_up(s, f, o, now, _overdue(f, o, ready, replicas))
    return Decision(
        desired=desired,
        flight=f,
        step=counts.step(o, target),
        percent=counts.percent(o, target, replicas),
        note=_note(o, target, f"{ready} of {replicas} replaced"),
        wake_at=deadline,
    )


def _reconfiguring(s: DeploymentSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    target = f.target
    if target.generation in o.failures:
        return give_up(s, f, o, now, o.failures[target.generation])
    having = counts.having(o, target)
    if having >= s.replicas and counts.part(o, target) == 1:
        return _succeeded(wishes.desired(s, wishes.serve(target, s.replicas)), f)
    f = counts.progress(f, having, now)
    deadline = f.since + target.load_timeout_s + MARGIN_S
    given = f"{having} of {s.replicas} workers have the new options"
    if now >= deadline:
        return give_up(s, f, o, now, f"{given} within {target.load_timeout_s:g} s")
    return Decision(
        desired=wishes.desired(s, wishes.change(target, s.replicas)),
        flight=f,
        step=State.LOADING,
        percent=min(having * counts.READY_PERCENT // s.replicas, counts.READY_PERCENT),
        note=given,
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


_PHASES: dict[Phase, Callable[[DeploymentSnapshot, Flight, Observed, float], Decision]] = {
    Phase.CLEARING: _clearing,
    Phase.LOADING: _loading,
    Phase.SWITCHING: _switching,
    Phase.SHIFTING: _shifting,
    Phase.RECONFIGURING: _reconfiguring,
    Phase.REVERTING: reverting,
}


def _meanwhile(s: DeploymentSnapshot, f: Flight, o: Observed) -> list[GenerationWish]:
    """The serving generation while a candidate comes up.

    With `recreate` it stays routed with no worker, which lets requests wait instead of failing.
    """
    if s.serving is None:
        return []
    if f.strategy.name is Strategy.RECREATE:
        return [wishes.serve(s.serving, 0)]
    # Short only where a recreate was superseded: what that one stopped must be gone first.
    back = counts.fit(o, s.serving.generation, s.replicas, s.replicas + target_shape(s).replicas)
    return [wishes.serve(s.serving, back)]


# ---- words


def _note(o: Observed, target: int, text: str) -> str:
    return f"{counts.step(o, target).value}: {text}"


def _after(f: Flight, text: str) -> str:
    return f"{text} (before, at {f.verdict})" if f.verdict else text


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _overdue(f: Flight, o: Observed, ready: int, replicas: int) -> str:
    step = counts.step(o, f.target.generation).value
    if f.preparing:
        return f"it was not prepared within {PREPARE_S:g} s (still {step})"
    return (
        f"{ready} of {replicas} workers were ready within {f.target.load_timeout_s:g} s "
        f"(the last one was still {step})"
    )
