"""Whether other options may go to the workers that run, in place of a new generation.

Must never: act; equal arguments, equal answer. What a model can take as it serves it says itself,
in its signature.
"""

from __future__ import annotations

from msgspec.structs import replace

from modelcloud.rollout import counts
from modelcloud.rollout.snapshot import DeploymentSnapshot
from modelcloud.types import GenerationSpec, Observed, Strategy, StrategySpec

#: What the specs of one generation may differ in.
_OPTIONS = frozenset({"generation", "revision", "options", "options_text", "inherited"})


def target_of(
    s: DeploymentSnapshot, o: Observed, target: GenerationSpec, strategy: StrategySpec
) -> GenerationSpec:
    """What a rollout to `target` that begins now leads to.

    That is the serving generation with the target's options, if nothing else differs, its model
    takes each of those that do as it serves, and all its workers are there to be given them: who
    fails is then known to have failed of them. A canary compares two generations, so it needs them;
    an option that is to be none any more leads back to how the model was loaded.
    """
    serving = s.serving
    if serving is None or strategy.name is Strategy.CANARY or target == s.previous:
        return target
    light = o.signatures.get(serving.generation, {}).get("lightOptions", ())
    changed = _changed(serving, target)
    if not changed or not changed <= set(light) or not all(_is_given(target, n) for n in changed):
        return target
    if counts.having(o, serving) < s.replicas:
        return target
    return replace(
        serving,
        revision=target.generation,
        options=target.options,
        options_text=target.options_text,
        inherited=target.inherited,
    )


def _changed(serving: GenerationSpec, target: GenerationSpec) -> set[str]:
    """The options that differ; none where more than options does."""
    fields = [name for name in serving.__struct_fields__ if name not in _OPTIONS]
    if any(getattr(serving, name) != getattr(target, name) for name in fields):
        return set()
    specs = (serving, target)
    names = {name for spec in specs for name in (*spec.options, *spec.options_text)}
    return {name for name in names if _value(serving, name) != _value(target, name)}


def _value(spec: GenerationSpec, name: str) -> tuple[object, object]:
    return spec.options.get(name), spec.options_text.get(name)


def _is_given(spec: GenerationSpec, name: str) -> bool:
    return _value(spec, name) != (None, None)
