"""Asks a throw-away worker what a version offers, before anybody may deploy it.

Must never: leave a worker behind, or let a model load: the code is imported, no more.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from modelcloud.engines.base import Engine
from modelcloud.errors import DeadlineExceeded, UpdateFailed
from modelcloud.types import Desired, GenerationSpec, GenerationWish, Observed
from modelcloud.waiting import within

if TYPE_CHECKING:
    from modelcloud.node.orders import WorkerLine

#: The service of all probes, under whose name their output is kept; no other may have it.
PREFIX = "probe"
#: Of a signature as JSON; it is stored and shown whole.
MAX_SIGNATURE = 1024 * 1024
#: Of what is said while an environment is built, a line for each package.
MAX_LINES = 1000
_PLACE = re.compile(r" \((?P<file>[^():\n]+):(?P<line>\d+)\)$")


class Prober:
    """Probes on one engine, a few at a time.

    Args:
        at_once: further ones wait.
    """

    def __init__(self, engine: Engine, at_once: int = 2) -> None:
        self._engine = engine
        self._places = asyncio.Semaphore(at_once)
        self._said: dict[str, list[str]] = {}

    def take_line(self, line: WorkerLine) -> None:
        """A line of a worker's output, or of the preparation of its generation."""
        said = self._said.get(line.deployment)
        if said is not None and not line.worker and len(said) < MAX_LINES:
            said.append(line.text)

    async def probe(
        self, spec: GenerationSpec, deadline_s: float
    ) -> tuple[dict[str, Any], list[str]]:
        """What the model offers, and what was said as its environment was built.

        Args:
            spec: its files are known to be whole; `deployment`, `generation` and `probe` are filled
                in here.
            deadline_s: from now on, with the waiting for a place.

        Returns:
            `sdk.contract.Signature.to_dict()`, and lines for people.

        Raises:
            UpdateFailed: its environment cannot be built, it cannot be imported, or holds nothing
                that can be served; `file` (below the artifact) and `line` where they are known.
            DeadlineExceeded: it took too long.
        """
        key = f"{PREFIX}/{secrets.token_hex(8)}"
        spec = replace(spec, deployment=key, generation=1, probe=True)
        said = self._said[key] = []
        try:
            return await within(self._ask(spec), deadline_s), said
        except asyncio.TimeoutError:
            raise DeadlineExceeded(
                f"what the model offers was not known within {deadline_s:g} s"
            ) from None
        finally:
            del self._said[key]

    async def _ask(self, spec: GenerationSpec) -> dict[str, Any]:
        key, number = spec.deployment, spec.generation
        wish = GenerationWish(spec=spec, replicas=1, routed=False, restart=False)
        changed = asyncio.Event()
        async with self._places:
            forget = self._engine.on_change(_only(key, changed.set))
            try:
                self._engine.want(Desired(deployment=key, generations=(wish,)))
                while True:
                    changed.clear()
                    observed: Observed = self._engine.observe(key)
                    if number in observed.signatures:
                        return _checked(observed.signatures[number])
                    if number in observed.failures:
                        raise _failed(observed.failures[number])
                    await changed.wait()
            finally:
                forget()
                self._engine.want(Desired(deployment=key))


def _only(key: str, call: Callable[[], None]) -> Callable[[str], None]:
    def changed(deployment: str) -> None:
        if deployment == key:
            call()

    return changed


def _checked(signature: dict[str, Any]) -> dict[str, Any]:
    size = len(msgspec.json.encode(signature))
    if size > MAX_SIGNATURE:
        raise UpdateFailed(
            f"what the model declares takes {size} bytes; accepted: up to {MAX_SIGNATURE}"
        )
    return signature


def _failed(reason: str) -> UpdateFailed:
    """The reason, with the place that it names."""
    fields: dict[str, Any] = {}
    if place := _PLACE.search(reason):
        fields = {"file": place["file"], "line": int(place["line"])}
    return UpdateFailed(f"this cannot be served: {reason}", **fields)
