"""What serves and how it fares, as JSON-ready records: pure functions of facts.

Must never: ask anyone; whoever calls brings the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modelcloud import __version__
from modelcloud.dataplane.messages import Stats
from modelcloud.types import GenerationSpec, Observed, State


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the records are made of.

    Attributes:
        serving: what serves; None before the first generation does.
        updating: whether a rollout is on its way.
        stopping: whether the server drains.
        running_s: seconds since the server was started.
    """

    service: str
    replicas: int
    observed: Observed
    serving: GenerationSpec | None
    updating: bool
    stopping: bool
    running_s: float

    @property
    def ready(self) -> int:
        """Workers that answer requests now."""
        routed = {worker for ids in self.observed.routed.values() for worker in ids}
        return sum(w.state is State.SERVING and w.id in routed for w in self.observed.workers)

    @property
    def signature(self) -> dict[str, Any]:
        """What the serving generation offers; empty before any serves."""
        if self.serving is None:
            return {}
        return self.observed.signatures.get(self.serving.generation, {})


def health(facts: Facts) -> str:
    """The state in a word: INITIALIZING, FAILED, DEGRADED, UPDATING or RUNNING."""
    if facts.serving is None:
        return "INITIALIZING"
    if not facts.ready and not facts.updating:
        return "FAILED"
    if facts.observed.degraded:
        return "DEGRADED"
    return "UPDATING" if facts.updating else "RUNNING"


def readiness(facts: Facts) -> tuple[bool, dict[str, Any]]:
    """Whether predictions are answered, and the record that says so with the reasons."""
    reasons = []
    if facts.stopping:
        reasons.append("the server is stopping")
    if not facts.ready:
        reasons.append("no worker is ready")
    ready = not reasons
    if facts.observed.degraded:
        reasons.append(facts.observed.degraded)
    workers = {"ready": facts.ready, "wanted": facts.replicas}
    return ready, {
        "ready": ready,
        "workers": workers,
        "degraded": bool(facts.observed.degraded),
        "reasons": reasons,
    }


def meta(facts: Facts, stats: Sequence[Stats]) -> dict[str, Any]:
    """The record of `GET /` and `GET /meta`."""
    since = [c.last_call_s for gateway in stats for c in gateway.commands if c.last_call_s >= 0]
    serving = facts.serving
    return {
        "modelcloud": __version__,
        "service": facts.service,
        "status": health(facts),
        "version": serving.version if serving else None,
        "generation": serving.generation if serving else None,
        "millisRunning": round(facts.running_s * 1000),
        "millisSinceLastCommand": round(min(since) * 1000) if since else None,
        "options": options(facts.signature),
        "commands": facts.signature.get("commands", []),
    }


def setup(facts: Facts) -> dict[str, Any]:
    """The record of `GET /setup`: the options' values, descriptions and schema."""
    return {
        "options": options(facts.signature),
        "values": facts.signature.get("optionValues", {}),
        "schema": facts.signature.get("optionsSchema", {}),
    }


def options(signature: dict[str, Any]) -> list[dict[str, Any]]:
    """Each option's description, its current value, and whether a model takes it as it serves."""
    values, light = signature.get("optionValues", {}), signature.get("lightOptions", ())
    return [
        {**option, "value": values.get(option["name"]), "light": option["name"] in light}
        for option in signature.get("options", [])
    ]
