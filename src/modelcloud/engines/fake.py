"""An engine in memory, for tests: its workers and gateways move only when told to.

Must never: start a process, read a clock or act by itself. Drive it with `advance`, `acknowledge`,
`reap` (or `settle`, which is all of them until nothing moves) and with `hang`, `fail`, `kill`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec

from modelcloud.types import Desired, GenerationWish, Observed, State, WorkerView, advance

_COMING = (State.PENDING, State.LOADING, State.WARMING, State.CHECKING, State.SERVING)
_NEXT = dict(pairwise(_COMING))


class _Worker(msgspec.Struct, kw_only=True):
    id: int
    generation: int
    state: State = State.PENDING
    hangs: bool = False
    restarts: int = 0

    @property
    def leaving(self) -> bool:
        return self.state not in _COMING

    def become(self, state: State) -> None:
        self.state = advance(self.state, state)


class FakeEngine:
    """An `Engine` of one service.

    Args:
        signature: what every generation offers once one of its workers is ready.
    """

    def __init__(self, signature: dict[str, Any] | None = None) -> None:
        self.desired = Desired(service="")
        self.wants: list[Desired] = []
        self._signature = signature or {}
        self._workers: dict[int, _Worker] = {}
        self._failures: dict[int, str] = {}
        self._routed: dict[int, tuple[int, ...]] = {}
        self._offering: set[int] = set()
        self._last_id = 0
        self._callbacks: list[Callable[[], None]] = []
        self._notice: asyncio.Handle | None = None

    # ---- the seam

    def want(self, desired: Desired) -> None:
        """Take the wish; missing workers appear as `pending`, surplus ones begin to drain."""
        self.desired = desired
        self.wants.append(desired)
        self._comply()

    def observe(self, service: str) -> Observed:
        """What is there now; nothing of another service."""
        if service != self.desired.service:
            return Observed()
        workers = tuple(
            WorkerView(id=w.id, generation=w.generation, state=w.state, restarts=w.restarts)
            for w in self._workers.values()
        )
        wanted = sum(wish.replicas for wish in self.desired.generations if wish.routed)
        ready = sum(len(ids) for ids in self._table().values())
        return Observed(
            workers=workers,
            failures=dict(self._failures),
            routed=dict(self._routed),
            settled=frozenset({w.generation for w in workers} - set(self._routed)),
            degraded="" if ready >= wanted else f"{ready} of {wanted} workers ready",
            signatures=dict.fromkeys(self._offering, self._signature),
        )

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the running event loop after each change; without a loop, never."""
        self._callbacks.append(callback)

    # ---- the levers

    def advance(self, worker: int) -> bool:
        """Move a coming worker one step on; False if it hangs, is ready or is leaving."""
        w = self._workers[worker]
        if w.hangs or w.state not in _NEXT:
            return False
        w.become(_NEXT[w.state])
        if w.state is State.SERVING:
            self._offering.add(w.generation)
        self._changed()
        return True

    def acknowledge(self) -> bool:
        """Let the gateways confirm the newest table; False if they had."""
        if (table := self._table()) == self._routed:
            return False
        self._routed = table
        self._changed()
        return True

    def reap(self, worker: int) -> bool:
        """Let a leaving worker go; False while the gateways' table still names it."""
        w = self._workers[worker]
        if not w.leaving or worker in self._routed.get(w.generation, ()):
            return False
        del self._workers[worker]
        self._comply()
        return True

    def hang(self, worker: int) -> None:
        """From now on the worker moves no further."""
        self._workers[worker].hangs = True

    def fail(self, worker: int, reason: str = "setup raised ValueError") -> None:
        """The worker dies with this reason; its generation's wish says whether another comes."""
        w = self._workers.pop(worker)
        wish = self._wish(w.generation)
        if wish is not None and not w.leaving:
            if wish.restart:
                self._start(w.generation, restarts=w.restarts + 1)
            else:
                self._failures.setdefault(w.generation, reason)
        self._comply()

    def kill(self, worker: int) -> None:
        """The worker dies of SIGKILL."""
        self.fail(worker, "killed by signal 9")

    def settle(self, *, loads: bool = True) -> None:
        """Advance (unless `loads` is False), acknowledge and reap until nothing moves."""
        moved = True
        while moved:
            moved = self.acknowledge()
            for worker in self.workers():
                moved |= (loads and self.advance(worker)) or self.reap(worker)

    def workers(self, generation: int | None = None) -> list[int]:
        """Ids of the processes there are, of one generation or of all, oldest first."""
        return [
            w.id for w in self._workers.values() if generation is None or w.generation == generation
        ]

    def states(self, generation: int) -> list[State]:
        """States of a generation's workers, oldest first."""
        return [w.state for w in self._workers.values() if w.generation == generation]

    # ---- inside

    def _wish(self, generation: int) -> GenerationWish | None:
        for wish in self.desired.generations:
            if wish.spec.generation == generation:
                return wish
        return None

    def _table(self) -> dict[int, tuple[int, ...]]:
        """The newest route table, published; `_routed` is the one acknowledged."""
        table = {}
        for wish in self.desired.generations:
            generation = wish.spec.generation
            ready = tuple(
                w.id
                for w in self._workers.values()
                if w.generation == generation and w.state is State.SERVING
            )
            if wish.routed and ready:
                table[generation] = ready
        return table

    def _start(self, generation: int, *, restarts: int = 0) -> None:
        self._last_id += 1
        self._workers[self._last_id] = _Worker(
            id=self._last_id, generation=generation, restarts=restarts
        )

    def _comply(self) -> None:
        wanted = {wish.spec.generation: wish for wish in self.desired.generations}
        for generation in list(self._failures):
            if generation not in wanted or wanted[generation].restart:
                del self._failures[generation]
        self._offering &= wanted.keys()
        for w in self._workers.values():
            if not w.leaving and w.generation not in wanted:
                self._leave(w)
        for generation, wish in wanted.items():
            alive = [
                w for w in self._workers.values() if w.generation == generation and not w.leaving
            ]
            alive.sort(key=lambda w: (w.state is not State.SERVING, w.id))
            for w in alive[wish.replicas :]:
                self._leave(w)
            if generation not in self._failures:
                for _ in range(wish.replicas - len(alive)):
                    self._start(generation)
        self._changed()

    @staticmethod
    def _leave(w: _Worker) -> None:
        w.become(State.DRAINING if w.state is State.SERVING else State.STOPPED)

    def _changed(self) -> None:
        if self._notice is None and self._callbacks:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._notice = loop.call_soon(self._notify)

    def _notify(self) -> None:
        self._notice = None
        for callback in self._callbacks:
            callback()
