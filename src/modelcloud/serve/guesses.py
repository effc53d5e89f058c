"""How often somebody guessed wrongly of late.

Must never: grow without end, or look at what was guessed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from modelcloud.errors import TooManyRequests
from modelcloud.serve.access import GUESS_WINDOW_S, MAX_GUESSES

#: Of these, the ones that guessed longest ago are forgotten.
REMEMBERED = 4096


class Guesses:
    """Wrong guesses by who made them, or by what they were about.

    Args:
        what: in words, such as `wrong passwords`.
        clock: monotonic seconds.
        most: that many within `window_s` seconds are too many.
        window_s: see `most`.
    """

    def __init__(
        self,
        what: str,
        clock: Callable[[], float],
        *,
        most: int = MAX_GUESSES,
        window_s: float = GUESS_WINDOW_S,
    ) -> None:
        self._what = what
        self._clock = clock
        self._most, self._window_s = most, window_s
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, key: str) -> int:
        """How many there were of `key` within the window."""
        now = self._clock()
        return sum(now - when < self._window_s for when in self._times.get(key, ()))

    def check(self, *keys: str) -> None:
        """Return if none of `keys` stands for too many.

        Raises:
            TooManyRequests: one does; `retry_after_s` says when to come back.
        """
        for key in keys:
            if self.count(key) >= self._most:
                wait = int(self._times[key][0] + self._window_s - self._clock()) + 1
                raise TooManyRequests(
                    f"too many {self._what}; try again in {wait} s", retry_after_s=wait
                )

    def add(self, *keys: str) -> None:
        """Count a wrong guess against each of `keys`."""
        for key in keys:
            times = self._times.setdefault(key, deque(maxlen=self._most))
            times.append(self._clock())
            self._times.move_to_end(key)
            if len(self._times) > REMEMBERED:
                self._times.popitem(last=False)

    def forgive(self, *keys: str) -> None:
        """Take the last guess back from each of `keys`: it was right."""
        for key in keys:
            if self._times.get(key):
                self._times[key].pop()
