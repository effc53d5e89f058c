"""The seam to where facts are kept: first they are, then the engine is told what follows.

Must never: decide, or know what keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from modelcloud.rollout.records import Rollout
from modelcloud.rollout.snapshot import DeploymentSnapshot


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be kept of a deployment, together or not at all.

    Attributes:
        facts: all its facts, in place of the earlier ones (see `snapshot.to_json`).
        rollouts: copies of the records that changed since the last `keep`.
    """

    facts: DeploymentSnapshot
    rollouts: tuple[Rollout, ...] = ()


class Journal(Protocol):
    """Keeps what a reconciler must find again after a restart."""

    def keep(self, kept: Kept, then: Callable[[], None]) -> None:
        """Store `kept`, then call `then` on the event loop, at once or any time later.

        Until then its deployment stands still: nothing is decided and nothing else is given to
        keep. What cannot be stored yet is tried again; `then` is never called without it.
        """


class AtOnce:
    """A `Journal` that keeps nothing, for a reconciler whose facts need not outlive it."""

    def keep(self, kept: Kept, then: Callable[[], None]) -> None:
        """Go on at once."""
        then()
