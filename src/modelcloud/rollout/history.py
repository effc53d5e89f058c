"""The rollouts of one deployment that are remembered, and who waits for them.

Must never: decide anything about them. An end is announced only when `publish` is called, which is
after it was kept, so that nobody is told of an end that a restart takes back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from modelcloud import errors
from modelcloud.rollout.records import Rollout
from modelcloud.waiting import within

LENGTH = 100


class History:
    """The last `LENGTH` rollouts."""

    def __init__(self) -> None:
        self._rollouts: deque[Rollout] = deque(maxlen=LENGTH)  # newest first
        self._open: dict[str, tuple[Rollout, asyncio.Event]] = {}  # whose end was not announced
        self._changed: dict[str, Rollout] = {}  # since they were last taken
        self._callbacks: list[Callable[[Rollout], None]] = []
        self._last_id = 0

    def next_id(self) -> str:
        """An id that no remembered rollout has."""
        return str(self._last_id + 1)

    def add(self, rollout: Rollout) -> None:
        """Remember a new rollout."""
        self.restore([rollout])
        self.changed(rollout)

    def restore(self, rollouts: Iterable[Rollout]) -> None:
        """Remember rollouts, oldest first, as they were kept."""
        for rollout in rollouts:
            self._rollouts.appendleft(rollout)
            if rollout.id.isdecimal():
                self._last_id = max(self._last_id, int(rollout.id))
            if not rollout.finished:
                self._open[rollout.id] = rollout, asyncio.Event()

    # ---- what is to be kept

    def changed(self, rollout: Rollout) -> None:
        """Note that a record is no longer what was kept of it."""
        self._changed[rollout.id] = rollout

    @property
    def has_changes(self) -> bool:
        """Whether a record changed since they were last taken."""
        return bool(self._changed)

    def take_changes(self) -> tuple[Rollout, ...]:
        """Copies of the records that changed since this was last called."""
        changed, self._changed = self._changed, {}
        return tuple(replace(rollout, log=rollout.log.copy()) for rollout in changed.values())

    # ---- who is to be told

    def publish(self, kept: Iterable[Rollout]) -> None:
        """Announce the ends among these copies, to callbacks first and then to who waits."""
        loop = asyncio.get_running_loop()
        for copy in kept:
            if not copy.finished or copy.id not in self._open:
                continue
            rollout, ended = self._open.pop(copy.id)
            for callback in self._callbacks:
                loop.call_soon(callback, rollout)
            ended.set()  # last: who waited finds the callbacks' work done

    def release(self) -> None:
        """Let go of who waits, although what they wait for goes on."""
        for _, ended in self._open.values():
            ended.set()

    async def wait(self, rollout_id: str, timeout_s: float) -> Rollout:
        """The rollout once its end was announced.

        Raises:
            NotFound: no such rollout is remembered.
            DeadlineExceeded: that did not happen within `timeout_s`; it goes on.
            Conflict: it goes on after a restart.
        """
        rollout = self.find(rollout_id)
        if rollout_id in self._open:
            try:
                await within(self._open[rollout_id][1].wait(), timeout_s)
            except asyncio.TimeoutError:
                raise errors.DeadlineExceeded(
                    f"rollout {rollout_id} has not ended within {timeout_s:g} s; it goes on",
                    rollout=rollout_id,
                ) from None
        if not rollout.finished:
            raise errors.Conflict(
                f"the server is stopping; rollout {rollout_id} goes on when it is back",
                rollout=rollout_id,
            )
        return rollout

    def on_finished(self, callback: Callable[[Rollout], None]) -> None:
        """Call `callback` on the event loop with each rollout whose end is announced."""
        self._callbacks.append(callback)

    # ---- looking

    def find(self, rollout_id: str) -> Rollout:
        """One of them.

        Raises:
            NotFound: no such rollout is remembered.
        """
        for rollout in self._rollouts:
            if rollout.id == rollout_id:
                return rollout
        raise errors.NotFound(f"no rollout {rollout_id!r} (the last {LENGTH} are remembered)")

    def announced(self, rollout_id: str) -> bool:
        """Whether the end of a rollout was announced: only then may anybody see it."""
        return rollout_id not in self._open

    def all(self) -> list[Rollout]:
        """All of them, newest first."""
        return list(self._rollouts)
