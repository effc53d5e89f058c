"""When a child that died may be replaced: a pure account of its deaths.

Must never: read a clock or start anything; it is told the time and asked.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0
#: So many deaths within `WINDOW_S` are a crash loop.
LIMIT = 5
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 5.0
BRAKED_STEP_S = 10.0
BRAKED_LONGEST_S = 30.0


class Brake:
    """Backoff and crash-loop brake of one set of equal children. Times are monotonic seconds.

    As many deaths as there are children are answered at once, so that losing all of them to one
    event costs no time; each further one doubles the wait. From `LIMIT` deaths within `WINDOW_S`
    on the brake is on: one start after 10, 20 and then every 30 s, until a whole window has
    passed without a death.
    """

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=1000)
        self._not_before = 0.0
        self._delay = 0.0
        self.on = False

    def died(self, now: float, children: int) -> None:
        """Count a death among `children` wanted ones."""
        self.relax(now)
        self._deaths.append(now)
        recent = len(self._deaths)
        if self.on or recent >= max(LIMIT, children + 1):
            self._delay = BRAKED_STEP_S if not self.on else self._delay + BRAKED_STEP_S
            self._delay = min(self._delay, BRAKED_LONGEST_S)
            self.on = True
        elif recent > children:
            self._delay = min(FIRST_DELAY_S * 2 ** (recent - children - 1), LONGEST_DELAY_S)
        else:
            self._delay = 0.0
        self._not_before = now + self._delay

    def started(self, now: float) -> None:
        """Count a start; while the brake is on, the next one waits as long again."""
        if self.on:
            self._not_before = now + self._delay

    def relax(self, now: float) -> None:
        """Forget what is older than the window; this is what takes the brake off."""
        if self.on and now - self._deaths[-1] < WINDOW_S:
            return
        self.on = False
        while self._deaths and now - self._deaths[0] >= WINDOW_S:
            self._deaths.popleft()

    def starts(self, now: float, missing: int) -> int:
        """How many of the `missing` children may be started now."""
        if now < self._not_before:
            return 0
        return min(missing, 1) if self.on else missing
