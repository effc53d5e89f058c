"""The way back: from any phase to the serving generation at full strength.

Must never: act, read a clock or remember, as all of the policy.
"""

from __future__ import annotations

from msgspec.structs import replace

from modelcloud.rollout import counts, wishes
from modelcloud.rollout.decision import MARGIN_S, PREPARE_S, Decision
from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import (
    DeploymentSnapshot,
    Flight,
    Outcome,
    Phase,
    doubles,
    in_place,
)
from modelcloud.types import GenerationSpec, Observed, Strategy


def give_up(s: DeploymentSnapshot, f: Flight, o: Observed, now: float, reason: str) -> Decision:
    """Over at once where the serving generation was not touched, else by way of `reverting`."""
    f = replace(f, reason=reason)
    untouched = doubles(f.strategy) and f.phase in (Phase.CLEARING, Phase.LOADING)
    if s.serving is None or untouched:
        return _reverted(s, f)
    f = replace(f, phase=Phase.REVERTING, since=now, ready=0, preparing=False)
    return reverting(s, f, o, now)


def reverting(s: DeploymentSnapshot, f: Flight, o: Observed, now: float) -> Decision:
    """Have the serving generation answer everything again, at full strength."""
    assert s.serving is not None
    if in_place(s):
        return _putting_back(s, s.serving, f, o, now)
    old, new = s.serving.generation, f.target.generation
    wanted = [wishes.serve(s.serving, s.replicas)]
    if not doubles(f.strategy):
        back, stay = counts.shift(s, f, o, into=old, out_of=new)
        wanted = [wishes.serve(s.serving, back)]
        if f.strategy.name is Strategy.ROLLING:
            # The new workers that came up stand in until the old ones are back.
            wanted.append(wishes.share(f.target, stay))
    ready = counts.ready(o, old)
    back_at_full = doubles(f.strategy) or ready >= s.replicas
    if back_at_full and counts.routed(o) == {old}:
        return _reverted(s, f)
    f = counts.progress(counts.prepared(f, o, old, now), ready, now)
    load_s = PREPARE_S if f.preparing else s.serving.load_timeout_s
    deadline = f.since + s.drain_s + load_s + MARGIN_S
    if now >= deadline:
        late = f"going back took too long ({ready} of {s.replicas} earlier workers are ready)"
        return _reverted(s, replace(f, reason=f"{f.reason}; {late}"))
    return Decision(
        desired=wishes.desired(s, *wanted),
        flight=f,
        note=f"going back: {f.reason}",
        wake_at=deadline,
    )


def _putting_back(
    s: DeploymentSnapshot, serving: GenerationSpec, f: Flight, o: Observed, now: float
) -> Decision:
    """The workers get their options back, or are replaced by some that have them."""
    having = counts.having(o, serving)
    # As long as the failure is told, the engine has not heard that it goes back.
    told = serving.generation in o.failures
    if having >= s.replicas and counts.part(o, serving) == 1 and not told:
        return _reverted(s, f)
    f = counts.progress(f, having, now)
    deadline = f.since + s.drain_s + serving.load_timeout_s + MARGIN_S
    if now >= deadline:
        late = f"going back took too long ({having} of {s.replicas} workers have their options)"
        return _reverted(s, replace(f, reason=f"{f.reason}; {late}"))
    return Decision(
        desired=wishes.desired(s, wishes.serve(serving, s.replicas)),
        flight=f,
        note=f"going back: {f.reason}",
        wake_at=deadline,
    )


def _reverted(s: DeploymentSnapshot, f: Flight) -> Decision:
    wanted = () if s.serving is None else (wishes.serve(s.serving, s.replicas),)
    state = RolloutState.ROLLED_BACK if f.recalled else RolloutState.FAILED
    return Decision(
        desired=wishes.desired(s, *wanted),
        flight=f,
        outcome=Outcome(state, f.reason),
    )
