"""The workers of one deployment: from wanted counts per generation to that many processes.

Must never: know of routes or rollouts; start a replacement before a dead worker was reaped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from modelcloud.node.brake import LIMIT, WINDOW_S, Brake
from modelcloud.node.preparation import Preparation, needed
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
        self.preparation: Preparation | None = None
        #: The interpreter of its workers, once it is ready for them; None before.
        self.python: str | None = None if needed(wish.spec) else wish.spec.python

    @property
    def preparing(self) -> State | None:
        """The step before its first worker that it is at, if it is."""
        return None if self.preparation is None else self.preparation.state

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
    """Every worker of a deployment. Each `reconcile` brings what is there closer to what is wanted.

    Attributes:
        revision: grows with everything of it that can be observed or routed to.
        signature: what its newest routed generation offers; that of the one before is kept while
            there is no other, so that its commands stay known.

    Args:
        deployment: its key.
        around: what the workers of a node share.
        numbers: gives the ids of workers.
        on_change: called after anything that `reconcile` should look at.
    """

    def __init__(
        self,
        deployment: str,
        around: Surroundings,
        *,
        numbers: Iterator[int],
        on_change: Callable[[], None],
    ) -> None:
        self.deployment = deployment
        self.service = ""
        self.desired = Desired(deployment=deployment)
        self.generations: dict[int, Generation] = {}
        self.signature: dict[str, Any] = {}
        self.deaths = 0
        self.revision = 0
        self._around = around
        self._numbers = numbers
        self._on_change = on_change

    @property
    def workers(self) -> list[Worker]:
        """Every worker that was not reaped, oldest first."""
        found = [w for generation in self.generations.values() for w in generation.workers.values()]
        return sorted(found, key=lambda worker: worker.id)

    @property
    def routed(self) -> list[Generation]:
        """The generations that requests are wanted to go to, oldest first."""
        return [g for _, g in sorted(self.generations.items()) if g.wish.routed]

    @property
    def promising(self) -> bool:
        """Whether a worker is ready or one is to come soon."""
        return any(generation.promising for generation in self.generations.values())

    def want(self, desired: Desired) -> None:
        """Replace the wish; a generation that it does not name is to have no worker."""
        self.desired = desired
        for generation in self.generations.values():
            generation.named = False
            generation.wish = GenerationWish(
                spec=generation.wish.spec, replicas=0, routed=False, restart=False
            )
        for wish in desired.generations:
            self.service = wish.spec.service
            generation = self.generations.setdefault(wish.spec.generation, Generation(wish))
            generation.named = True
            generation.wish = wish
            if wish.restart:
                generation.failure = ""  # from now on a death is repaired, not a verdict
        self._touch()

    def reconcile(self) -> None:
        """Check every worker's health, retire what is too much, start what is missing."""
        now = self._around.clock()
        for worker in self.workers:
            worker.check()
        for generation in list(self.generations.values()):
            braked, last_death = generation.brake.on, generation.last_death
            generation.brake.relax(now)
            self._balance(generation, now)
            self._reconfigure(generation)
            if len(generation.ready) >= generation.wish.replicas and not generation.brake.on:
                generation.last_death = ""
            if (braked, last_death) != (generation.brake.on, generation.last_death):
                self.revision += 1
            if not generation.named and generation.preparation is not None:
                generation.preparation.cancel()
            if not (generation.named or generation.workers or generation.preparation):
                del self.generations[generation.number]
                self.revision += 1
        for generation in self.routed:
            self.signature = generation.signature or self.signature

    def _balance(self, generation: Generation, now: float) -> None:
        workers, replicas = list(generation.workers.values()), generation.wish.replicas
        wanted = [worker for worker in workers if worker.wanted and not worker.leaving]
        # Those not ready go first, then the youngest.
        wanted.sort(key=lambda worker: (worker.state is State.SERVING, -worker.id))
        for worker in wanted[: max(len(wanted) - replicas, 0)]:
            worker.retire()
        if len(generation.ready) - sum(w.leaving for w in generation.ready) >= replicas:
            for worker in workers:
                if worker.leaving and worker.wanted:
                    worker.retire()
        missing = replicas - sum(worker.present and not worker.leaving for worker in workers)
        for worker in workers:
            if missing > 0 and not worker.leaving and worker.revive():
                missing -= 1
        if missing > 0 and not generation.failure:
            if generation.python is None:
                if generation.preparation is None and generation.brake.starts(now, 1):
                    self._prepare(generation, now)
                return
            for _ in range(generation.brake.starts(now, missing)):
                self._start(generation, now)

    def _reconfigure(self, generation: Generation) -> None:
        """Give one more worker the options that are wanted, while nothing speaks against it.

        A generation that goes on whatever happens has all its other workers ready at that.
        """
        wish, workers = generation.wish, list(generation.workers.values())
        if generation.failure or any(worker.changing for worker in workers):
            return
        if wish.restart and any(worker.loading for worker in workers):
            return
        for worker in generation.ready:
            if worker.revision != wish.spec.revision:
                worker.reconfigure(replace(wish.spec, python=generation.python or ""))
                return

    def _prepare(self, generation: Generation, now: float) -> None:
        """Have its files and its environment made ready, before its first worker."""
        assert self._around.workshop is not None
        spec = generation.wish.spec
        generation.brake.started(now)
        self.revision += 1
        generation.preparation = Preparation(
            f"prepare-{self.deployment.replace('/', '-')}-{generation.number}",
            spec,
            self._around.workshop,
            say=lambda text: self._around.logs.worker_line(spec, 0, text),
            on_change=lambda: self._prepared(generation),
        )
        self._prepared(generation)  # it may be over already: it could not be started

    def _prepared(self, generation: Generation) -> None:
        preparation = generation.preparation
        if preparation is not None and preparation.state is None:
            generation.preparation = None
            if not preparation.failure:
                generation.python = preparation.python
            elif generation.named:
                self._died(generation, preparation.failure, served=False)
        self._touch()

    def _start(self, generation: Generation, now: float) -> None:
        number = next(self._numbers)
        generation.brake.started(now)
        self.revision += 1
        spec, devices = generation.wish.spec, self._around.devices
        if spec.engine:
            devices = None  # the cluster gives them
        gpus = None if devices is None else devices.give(number, spec.resources.gpu)
        if devices is not None and gpus is None:
            wanted, free = spec.resources.gpu, dict(devices.free())
            reason = f"worker {number} needs {wanted:g} of a GPU; free: {free or 'none'}"
            self._died(generation, reason, served=False)
            return
        try:
            generation.workers[number] = Worker(
                number,
                replace(spec, python=generation.python or ""),
                self._around,
                restarts=generation.deaths,
                gpus=gpus,
                on_change=lambda: self._changed(generation),
                on_exit=lambda worker: self._gone(generation, worker),
            )
        except OSError as error:
            self._release(number)
            self._died(generation, f"worker {number} could not be started: {error}", served=False)

    def _release(self, worker: int) -> None:
        if self._around.devices is not None:
            self._around.devices.release(worker)

    def _touch(self) -> None:
        self.revision += 1
        self._on_change()

    def _changed(self, generation: Generation) -> None:
        wish = generation.wish
        for worker in list(generation.workers.values()):
            if worker.state is State.SERVING:
                self._heard(generation, worker)
            elif worker.state is State.FAILED and not wish.restart:
                generation.failure = generation.failure or worker.error
        ready = generation.ready
        if ready and all(worker.revision == wish.spec.revision for worker in ready):
            generation.signature = ready[0].signature
        self._touch()

    @staticmethod
    def _heard(generation: Generation, worker: Worker) -> None:
        """Take note of what a ready worker offers, and of options that it did not take."""
        generation.signature = generation.signature or worker.signature
        refusal, wish = worker.refusal, generation.wish
        if refusal is None or refusal[0] != wish.spec.revision or worker.changing:
            return
        if not wish.restart:
            generation.failure = generation.failure or refusal[1]
        else:
            worker.fail(f"cannot be given its options: {refusal[1]}")

    def _gone(self, generation: Generation, worker: Worker) -> None:
        del generation.workers[worker.id]
        self._release(worker.id)
        if not worker.retired:
            self._died(generation, worker.error, served=bool(worker.signature))
        self._touch()

    def _died(self, generation: Generation, reason: str, *, served: bool) -> None:
        first_line = reason.split("\n", 1)[0]
        if served or generation.wish.restart:  # otherwise it is the verdict, and told as such
            log.warning(
                "%s, generation %s lost a worker: %s", self.deployment, generation.number, reason
            )
            self._around.logs.note(generation.wish.spec, f"lost a worker: {first_line}")
        self.deaths += 1
        generation.deaths += 1
        generation.last_death = first_line
        braked = generation.brake.on
        generation.brake.died(self._around.clock(), generation.wish.replicas)
        if not generation.wish.restart:
            generation.failure = generation.failure or reason
        elif generation.brake.on and not braked:
            log.error("%s: %s", self.deployment, generation.degraded)
