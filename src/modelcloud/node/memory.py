"""Watches what workers use of memory, and ends those beyond their instance type's bound.

Must never: hold up the node; the kernel's tables are read in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from modelcloud.node.resources import over_memory
from modelcloud.node.usage import usage_of
from modelcloud.node.worker import Worker

#: Between two looks. A worker that takes memory faster than the machine has it meets the kernel.
LOOK_S = 1.0


class MemoryWatch:
    """Looks at all workers that have a bound.

    Args:
        workers: gives those there are.
    """

    def __init__(self, workers: Callable[[], Sequence[Worker]]) -> None:
        self._workers = workers
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def look(self, now: float) -> None:
        """Look, if it is time for that and the last look is over. `now`: monotonic seconds."""
        if now - self._looked_at < LOOK_S or self._looking is not None:
            return
        self._looked_at = now
        bound = [worker for worker in self._workers() if worker.spec.resources.memory]
        if bound:
            self._looking = asyncio.get_running_loop().create_task(self._look(bound))

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self, workers: Sequence[Worker]) -> None:
        try:
            used = await asyncio.to_thread(usage_of, [w.pid for w in workers if w.pid])
            for worker in workers:
                found = worker.used or used.get(worker.pid)
                reason = over_memory(worker.spec.resources, found.memory) if found else ""
                if reason:
                    worker.fail(reason)
        finally:
            self._looking = None
