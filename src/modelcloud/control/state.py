"""What every part of a running control plane is handed: the platform, as one frozen record.

Must never: do anything; the parts in it do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from modelcloud.config import PlatformConfig
from modelcloud.engines.base import Engine
from modelcloud.node.orders import Standing

if TYPE_CHECKING:
    from modelcloud.store.store import Store

Part = TypeVar("Part")


@runtime_checkable
class Background(Protocol):
    """A part that works by itself, for as long as the control plane runs."""

    async def start(self) -> None:
        """Begin; returns once it works."""

    async def stop(self) -> None:
        """End; returns once nothing of it runs any more."""


@runtime_checkable
class Reroutes(Protocol):
    """A part that tells the engine how services are reached."""

    async def refresh(self) -> None:
        """Look at the store anew; returns once all gateways do as it says."""


@dataclass(frozen=True, kw_only=True)
class PlatformState:
    """The platform.

    Attributes:
        standing: what the node is: its settings, addresses, processors, memory and devices.
        parts: what else serves the routers and pages, one of each type; asked for by `part`.
            Those that are `Background` are started in this order, and stopped in reverse.
        clock: monotonic seconds, for deadlines.
        wall: seconds since the epoch, for what is kept and shown.
    """

    store: Store
    engine: Engine
    standing: Standing
    parts: tuple[object, ...] = ()
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    @property
    def config(self) -> PlatformConfig:
        """The settings of the whole."""
        return self.standing.config

    def part(self, kind: type[Part]) -> Part:
        """The part of this type.

        Raises:
            LookupError: the platform was put together without one: a bug.
        """
        for part in self.parts:
            if isinstance(part, kind):
                return part
        raise LookupError(f"the platform has no {kind.__name__}")

    async def reroute(self) -> None:
        """Call this once who may predict has changed: a token, a user, a member or a group."""
        for part in self.parts:
            if isinstance(part, Reroutes):
                await part.refresh()

    @property
    def data(self) -> Path:
        """The folder of everything that is kept."""
        return Path(self.config.data)

    @property
    def service_logs(self) -> Path:
        """Folder with one folder per service: `deployment.log`, and `<version>.log` of each."""
        return self.data / "logs" / "services"
