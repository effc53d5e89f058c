"""Counts the answers of candidates while a canary step watches them.

Must never: judge; the policy does. It asks for counters only while somebody watches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import zip_longest

from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.errors import ModelcloudError
from modelcloud.rollout.canary import Answers
from modelcloud.rollout.reconciler import Reconciler

log = logging.getLogger(__name__)

EVERY_S = 1.0


class CanaryWatch:
    """Tells each reconciler that watches what its candidate has answered.

    Args:
        stats: the counters of the gateways now; may raise an error of this package.
        reconcilers: all there are.
    """

    def __init__(
        self,
        stats: Callable[[], Awaitable[Sequence[Stats]]],
        reconcilers: Callable[[], Iterable[Reconciler]],
    ) -> None:
        self._stats = stats
        self._reconcilers = reconcilers
        self._tally = Tally()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def look(self) -> None:
        """Begin to count if somebody watches now; call it after anything was observed."""
        if self._task is None and not self._closed and self._watching():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """End."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    def _watching(self) -> list[tuple[int, Reconciler]]:
        return [
            (generation, reconciler)
            for reconciler in self._reconcilers()
            if (generation := reconciler.watching) is not None
        ]

    async def _run(self) -> None:
        try:
            while watching := self._watching():
                try:
                    self._tally.add(await self._stats())
                except ModelcloudError as error:  # a step without counters passes by its time
                    log.warning("canaries are not counted: %s", error.message)
                else:
                    for generation, reconciler in watching:
                        if reconciler.watching == generation:
                            answers = self._tally.answers(reconciler.service, generation)
                            reconciler.answers(generation, answers)
                await asyncio.sleep(EVERY_S)
        finally:
            self._task = None
            self._tally = Tally()


class Tally:
    """What generations have answered, over all gateways, through restarts of gateways."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str, str, int], Answers] = {}
        self._total: dict[tuple[str, int], Answers] = {}

    def add(self, gateways: Iterable[Stats]) -> None:
        """Add what came since the counters were last looked at."""
        for gateway in gateways:
            for stats in gateway.commands:
                key = (gateway.gateway_id, stats.service, stats.command, stats.generation)
                now, before = _answers(stats), self._seen.get(key, Answers())
                self._seen[key] = now
                if now.requests < before.requests:  # a new gateway under this number
                    before = Answers()
                whose = stats.service, stats.generation
                self._total[whose] = _sum(self._total.get(whose, Answers()), now.since(before))

    def answers(self, service: str, generation: int) -> Answers:
        """All that were counted."""
        return self._total.get((service, generation), Answers())


def _answers(stats: CommandStats) -> Answers:
    return Answers(
        requests=sum(stats.by_status.values()),
        errors=sum(count for status, count in stats.by_status.items() if status >= 500),
        buckets=tuple(stats.buckets),
    )


def _sum(a: Answers, b: Answers) -> Answers:
    return Answers(
        requests=a.requests + b.requests,
        errors=a.errors + b.errors,
        buckets=tuple(x + y for x, y in zip_longest(a.buckets, b.buckets, fillvalue=0)),
    )
