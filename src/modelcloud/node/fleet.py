"""The workers of one service: from wanted counts per generation to that many processes.

Must never: know of routes or rollouts; start a replacement before a dead worker was reaped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from typing import Any

from modelcloud.node.brake import LIMIT, WINDOW_S, Brake
from modelcloud.node.worker import Surroundings, Worker
from modelcloud.types import Desired, GenerationWish, State

log = logging.getLogger(__name__)


class Generation:
    """What is wanted of a generation, its living workers, and its record."""

    def __init__(self, wish: GenerationWish) -> None:
        self.wish = wish
        self.named = True  # by the current wish; otherwise it is forgotten with its last worker
        self.workers: dict[int, Worker] = {}
        self.signature: dict[str, Any] | None = None
        self.failure = ""
        self.deaths = 0
        self.last_death = ""
        self.brake = Brake()

    @property
    def number(self) -> int:
        """Its number: 1, 2, 3 and so on."""
        return self.wish.spec.generation

    @property
    def ready(self) -> list[Worker]:
        """Workers that requests may be routed to."""
        return [worker for worker in self.workers.values() if worker.state is State.SERVING]

    @property
    def promising(self) -> bool:
        """Whether a worker is ready or one is to come soon.

        Routed with no replicas is how `recreate` says that requests are to wait for the next.
        """
        if self.ready or (self.wish.routed and not self.wish.replicas):
            return True
        return self.wish.replicas > 0 and not self.failure and not self.brake.on

    @property
    def degraded(self) -> str:
        """Why it is below its strength after a death; empty when it is not."""
        ready, replicas = len(self.ready), self.wish.replicas
        if not (self.wish.restart and self.last_death and (ready < replicas or self.brake.on)):
            return ""
        text = f"generation {self.number}: {ready} of {replicas} workers ready; {self.last_death}"
        if self.brake.on:
            text += f"; {LIMIT} or more deaths within {WINDOW_S:.0f} s, so it is restarted slowly"
        return text


class Fleet:
    """Every worker of a service. Each `reconcile` brings what is there closer to what is wanted.

    Args:
        around: what the workers share.
        on_change: called after anything that `reconcile` should look at.
    """

    def __init__(self, around: Surroundings, *, on_change: Callable[[], None]) -> None:
        self._around = around
        self._on_change = on_change
        self._numbers = count(1)
        self.generations: dict[int, Generation] = {}
        self.deaths = 0

    @property
    def workers(self) -> list[Worker]:
        """Every worker that was not reaped, oldest first."""
        found = [w for generation in self.generations.values() for w in generation.workers.values()]
        return sorted(found, key=lambda worker: worker.id)

    def want(self, desired: Desired) -> None:
        """Replace the wish; a generation that it does not name is to have no worker."""
        for generation in self.generations.values():
            generation.named = False
            generation.wish = GenerationWish(
                spec=generation.wish.spec, replicas=0, routed=False, restart=False
            )
        for wish in desired.generations:
            generation = self.generations.setdefault(wish.spec.generation, Generation(wish))
            generation.named = True
            generation.wish = wish
            if wish.restart:
                generation.failure = ""  # from now on a death is repaired, not a verdict

    def fail(self, worker: int, reason: str) -> None:
        """Have a sick worker ended and, where deaths are repaired, replaced."""
        for found in self.workers:
            if found.id == worker:
                found.fail(reason)

    def suspect(self, worker: int, reason: str) -> None:
        """A gateway lost touch with it: it has just died, or is sick."""
        for found in self.workers:
            if found.id == worker:
                found.suspect(reason)

    def reconcile(self, *, stalled: bool) -> None:
        """Check every worker's health, retire what is too much, start what is missing.

        Args:
            stalled: the node itself stood still, so silence says nothing about a worker.
        """
        now = self._around.clock()
        for worker in self.workers:
            if stalled:
                worker.forgive()
            worker.check()
        for generation in list(self.generations.values()):
            generation.brake.relax(now)
            self._balance(generation, now)
            if len(generation.ready) >= generation.wish.replicas and not generation.brake.on:
                generation.last_death = ""
            if not generation.named and not generation.workers:
                del self.generations[generation.number]

    def _balance(self, generation: Generation, now: float) -> None:
        workers, replicas = list(generation.workers.values()), generation.wish.replicas
        wanted = [worker for worker in workers if worker.wanted]
        # Those not ready go first, then the youngest.
        wanted.sort(key=lambda worker: (worker.state is State.SERVING, -worker.id))
        for worker in wanted[: max(len(wanted) - replicas, 0)]:
            worker.retire()
        missing = replicas - sum(worker.present for worker in workers)
        for worker in workers:
            if missing > 0 and worker.revive():
                missing -= 1
        if missing > 0 and not generation.failure:
            for _ in range(generation.brake.starts(now, missing)):
                self._start(generation, now)

    def _start(self, generation: Generation, now: float) -> None:
        number = next(self._numbers)
        generation.brake.started(now)
        try:
            generation.workers[number] = Worker(
                number,
                generation.wish.spec,
                self._around,
                restarts=generation.deaths,
                on_change=lambda: self._changed(generation),
                on_exit=lambda worker: self._gone(generation, worker),
            )
        except OSError as error:
            self._died(generation, f"worker {number} could not be started: {error}", served=False)

    def _changed(self, generation: Generation) -> None:
        for worker in generation.workers.values():
            if worker.state is State.SERVING:
                generation.signature = generation.signature or worker.signature
            elif worker.state is State.FAILED and not generation.wish.restart:
                generation.failure = generation.failure or worker.error
        self._on_change()

    def _gone(self, generation: Generation, worker: Worker) -> None:
        del generation.workers[worker.id]
        if not worker.retired:
            self._died(generation, worker.error, served=bool(worker.signature))
        self._on_change()

    def _died(self, generation: Generation, reason: str, *, served: bool) -> None:
        if served or generation.wish.restart:  # otherwise it is the verdict, and told as such
            log.warning("generation %d lost a worker: %s", generation.number, reason)
        self.deaths += 1
        generation.deaths += 1
        generation.last_death = reason.split("\n", 1)[0]
        braked = generation.brake.on
        generation.brake.died(self._around.clock(), generation.wish.replicas)
        if not generation.wish.restart:
            generation.failure = generation.failure or reason
        elif generation.brake.on and not braked:
            log.error("%s", generation.degraded)
