"""What is wanted of a generation, by the part it has in a rollout.

Must never: choose the part; that is `policy`.
"""

from __future__ import annotations

from modelcloud.rollout import counts
from modelcloud.rollout.snapshot import DeploymentSnapshot
from modelcloud.types import Desired, Dispatch, GenerationSpec, GenerationWish, Observed


def desired(
    s: DeploymentSnapshot, *generations: GenerationWish, dispatch: Dispatch | None = None
) -> Desired:
    """The whole wish for a deployment; `dispatch`: another than it has."""
    return Desired(
        deployment=s.deployment, generations=generations, dispatch=dispatch or s.dispatch
    )


def serve(spec: GenerationSpec, replicas: int) -> GenerationWish:
    """It answers, and its dead are replaced."""
    return GenerationWish(spec=spec, replicas=replicas, routed=True, restart=True)


def hold(spec: GenerationSpec, replicas: int) -> GenerationWish:
    """It answers nothing, and a death of it is a failure."""
    return GenerationWish(spec=spec, replicas=replicas, routed=False, restart=False)


def share(spec: GenerationSpec, replicas: int, percent: float | None = None) -> GenerationWish:
    """It answers beside another one, a percentage or by its workers; a death is a failure."""
    return GenerationWish(spec=spec, replicas=replicas, routed=True, restart=False, percent=percent)


def change(spec: GenerationSpec, replicas: int) -> GenerationWish:
    """Its workers are given these options as they answer; a death is a failure."""
    return share(spec, replicas)


def linger(s: DeploymentSnapshot, o: Observed, spec: GenerationSpec) -> list[GenerationWish]:
    """It is held for a switch back as far as it is there; no worker is started for that."""
    there = min(s.replicas, counts.alive(o, spec.generation))
    return [hold(spec, there)] if there else []
