"""Many requests in one call: when it is made, and what of it belongs to whom.

Must never: read a clock or a socket; the executor says what time it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from modelcloud.errors import ModelError
from modelcloud.sdk.contract import Command
from modelcloud.sdk.data_types.base import describe

#: Share of a batch's own mean time that a worker waits for the rest of a wave of requests.
SHARE = 0.25
#: Bounds of that wait, seconds. Below the least one, a timer costs more than it brings.
LEAST_WAIT_S = 0.0005
MOST_WAIT_S = 0.005


class BatchQueue:
    """Requests of one batching command in one worker. All times are monotonic seconds.

    Clients that were answered together tend to ask again together. So after a batch the worker
    waits a little for as many as were answered, beside those that came during the batch, instead
    of starting on the first few. A request that comes when nothing ran just before is part of no
    wave and never waits.

    Args:
        command: a command with `batch`.
        handler: its function: takes what `Batch` says, returns as many results.
    """

    def __init__(self, command: Command, handler: Callable[[Any], Any]) -> None:
        assert command.batch is not None
        self.batch = command.batch
        self.waiting: deque[Any] = deque()
        self._command = command
        self._handler = handler
        self._first_at = 0.0  # arrival of the oldest one that waits
        self._wave = 0  # requests to expect after the last batch
        self._wave_known = True
        self._last_end = float("-inf")
        self._mean_s = 0.0
        self.calls = self.called = 0  # batches that were run, and the requests in them

    # ---- when

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
        self.look()
        if len(self.waiting) >= self._wave:
            return 0.0
        wave = min(MOST_WAIT_S, max(LEAST_WAIT_S, SHARE * self._mean_s))
        return max(0.0, self._last_end + wave - now)

    def take(self) -> list[Any]:
        """The next batch, in order of arrival."""
        size = min(len(self.waiting), self.batch.max_size)
        return [self.waiting.popleft() for _ in range(size)]

    def ran(self, size: int, began: float, ended: float) -> None:
        """A batch of `size` was run; its answers are about to leave."""
        self.calls += 1
        self.called += size
        self._wave = size
        self._wave_known = False
        self._last_end = self._first_at = ended
        self._mean_s += (ended - began - self._mean_s) * (0.2 if self._mean_s else 1.0)

    def look(self) -> None:
        """What waits at the first look after a batch came during it, and is part of the wave."""
        if not self._wave_known:
            self._wave_known = True
            self._wave += len(self.waiting)

    # ---- what

    def call(self, items: list[dict[str, Any]]) -> list[Any]:
        """Call the function with the inputs of one or more requests.

        When a call of several raises, each is tried alone, so that only those fail that are at
        fault; unless the command is not idempotent, and may have done half of its work.

        Returns:
            As many results; one that is an exception stands for that request's failure.
        """
        try:
            return self._called(items)
        except BaseException as error:  # SystemExit too costs only these requests
            if len(items) == 1 or not self._command.idempotent:
                return [error] * len(items)
        return [self.call([item])[0] for item in items]

    def _called(self, items: list[dict[str, Any]]) -> list[Any]:
        results = self._handler(_stacked(items) if self.batch.stack else items)
        if self.batch.stack:
            results = _rows(results, len(items))
        if hasattr(results, "tolist"):
            results = list(results)  # an array's rows
        if not isinstance(results, (list, tuple)):
            raise ModelError(
                f"the function returned {describe(results)} for a batch of {len(items)}; "
                "accepted: a list of as many results"
            )
        if len(results) != len(items):
            raise ModelError(
                f"the function returned {len(results)} results for a batch of {len(items)}"
            )
        return list(results)


def _stacked(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The values of each input along a new first axis."""
    import numpy as np

    return {name: np.stack([np.asarray(item[name]) for item in items]) for name in items[0]}


def _rows(results: Any, size: int) -> Any:
    """`{"y": array of n rows}` → n dicts; anything else is left as it is."""
    if not isinstance(results, Mapping):
        return results
    lengths = {name: len(values) for name, values in results.items()}
    if set(lengths.values()) != {size}:
        raise ModelError(f"the function returned {lengths} rows for a batch of {size}")
    return [{name: values[row] for name, values in results.items()} for row in range(size)]
