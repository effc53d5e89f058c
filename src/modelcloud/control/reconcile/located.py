"""The node as reconcilers know it: a stored spec names its files by digest, the node by folder.

Must never: let a path into what is kept: the data folder may be moved, or restored elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from modelcloud.engines.base import Engine
from modelcloud.types import Desired, GenerationWish, Observed, Routing


class Located:
    """An `Engine` that says where the artifacts of what is wanted are.

    Args:
        engine: the node.
        artifacts: folder of the artifact store; absolute.
    """

    def __init__(self, engine: Engine, artifacts: Path) -> None:
        self._engine = engine
        self._artifacts = artifacts

    def want(self, desired: Desired) -> None:
        """Have this made so."""
        self._engine.want(
            replace(desired, generations=tuple(map(self._located, desired.generations)))
        )

    def route(self, routing: Routing) -> None:
        """Have services reached like this."""
        self._engine.route(routing)

    def observe(self, deployment: str) -> Observed:
        """What is there of a deployment."""
        return self._engine.observe(deployment)

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` with the key of a deployment that has changed."""
        return self._engine.on_change(callback)

    def _located(self, wish: GenerationWish) -> GenerationWish:
        folder = str(self._artifacts / wish.spec.digest)
        return replace(wish, spec=replace(wish.spec, snapshot=folder))
