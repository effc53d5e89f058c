"""When a batch is run: pure decisions on how many requests wait and what the last batch was like.

Must never: call the model or read a clock; the executor does both.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from modelcloud.sdk.contract import Batch

#: Share of a batch's own mean time that a worker waits for the rest of a wave of requests.
SHARE = 0.1
#: Bounds of that wait, seconds. Below the least one, a timer costs more than it brings.
LEAST_WAIT_S = 0.0005
MOST_WAIT_S = 0.005


class BatchQueue:
    """Requests of one batching command in one worker. All times are monotonic seconds.

    Clients that were answered together tend to ask again together. So after a batch of n the
    worker waits a little while fewer than n are back, instead of starting on the first few; a
    request that comes when nothing ran just before is part of no wave and never waits.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.waiting: deque[Any] = deque()
        self._first_at = 0.0  # arrival of the oldest one that waits
        self._last_size = 0
        self._last_end = float("-inf")
        self._mean_s = 0.0

    def put(self, item: Any, now: float) -> None:
        """A request came."""
        if not self.waiting:
            self._first_at = now
        self.waiting.append(item)

    def due_in(self, now: float) -> float:
        """Seconds until a batch is to be run; 0 for at once. Something must wait."""
        if len(self.waiting) >= self.batch.max_size:
            return 0.0
        if self.batch.max_wait_ms is not None:
            return max(0.0, self._first_at + self.batch.max_wait_ms / 1000 - now)
        if len(self.waiting) >= self._last_size:
            return 0.0
        wave = min(MOST_WAIT_S, max(LEAST_WAIT_S, SHARE * self._mean_s))
        return max(0.0, self._last_end + wave - now)

    def take(self) -> list[Any]:
        """The next batch, in order of arrival."""
        size = min(len(self.waiting), self.batch.max_size)
        return [self.waiting.popleft() for _ in range(size)]

    def ran(self, size: int, began: float, ended: float) -> None:
        """A batch of `size` was run; what still waits arrived meanwhile."""
        self._last_size = size
        self._last_end = self._first_at = ended
        self._mean_s += (ended - began - self._mean_s) * (0.2 if self._mean_s else 1.0)
