"""Decides at each look whether a remote model is to be taken, and when to look again.

Must never: pull or publish; who watches says what is done with a model.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable

from modelcloud.errors import NotFound, TooLarge, UnsupportedMedia, UpdateFailed, UsageError
from modelcloud.monitors.mark import Seen, changed, is_ahead, is_new
from modelcloud.monitors.pull import Asked, Look, look
from modelcloud.monitors.source import Watched

log = logging.getLogger(__name__)

#: A source that is away is asked again after this, doubled each time, the interval at most: it is
#: then back in use one interval after it came back.
FIRST_RETRY_S = 1.0
#: A model that was refused is pulled again, while it stays the same, after the interval, doubled
#: each time, and this at most; at once when it is another one.
LONGEST_REFUSAL_S = 600.0


class Watch:
    """One remote model, looked at again and again.

    Args:
        source: where it is.
        watched: how it is called there.
        interval: seconds between two looks.
        published: what was there when the model was taken that is in use now; None: none is.
    """

    def __init__(
        self, source: Asked, watched: Watched, interval: float, published: Seen | None
    ) -> None:
        self.published = published
        self._source, self._watched, self._interval = source, watched, interval
        self._before: Seen | None = None
        self._refused: Seen | None = None
        self._refusals = 0
        self._not_before = 0.0

    async def poll(self, take: Callable[[Look], Awaitable[Seen]], *, is_there: bool = True) -> bool:
        """Look; if there is another model, have it taken; returns whether that was so.

        Args:
            take: pulls the model and puts it to use; returns what it pulled.
            is_there: whether the model that was taken last is still in use.

        Raises:
            NotFound: there is no done-file, or no model.
            ModelcloudError: the source could not be asked, or what `take` raises.
            OSError: what `take` raises.
        """
        found = await look(self._source, self._watched, self.published)
        if found is None:
            raise NotFound(
                f"there is no done-file({self._watched.done}) in the remote folder; it comes with "
                "the first model, else check --remote_path and --remote_donefile_name"
            )
        now = found.seen
        before, self._before = self._before, now
        published = self.published if is_there else None
        if not is_new(published, now, before):
            if published is not None and is_ahead(published, now) and before != now:
                log.warning(
                    "remote model(%s) changed after its donefile(%s): waiting for that.",
                    self._watched.model, self._watched.done,
                )  # fmt: skip
            return False
        if self._is_refused(now):
            return False
        log.info("donefile(%s) changed.", self._watched.done)
        try:
            self.published = await take(found)
        except (UsageError, TooLarge, UnsupportedMedia, UpdateFailed):
            self._refuse(now)
            raise
        self._refused, self._refusals = None, 0
        return True

    def _is_refused(self, now: Seen) -> bool:
        """Whether this model was refused, and is not to be pulled again yet."""
        if self._refused is None or changed(self._refused, now):
            self._refusals = 0
            return False
        if time.monotonic() < self._not_before:
            log.debug("the remote model is the one that was refused.")
            return True
        return False

    def _refuse(self, now: Seen) -> None:
        self._refused = now
        self._refusals += 1
        self._not_before = time.monotonic() + refusal_delay(
            self._refusals,
            self._interval,
            random.random(),  # noqa: S311 — no secret
        )


def next_delay(failures: int, interval: float) -> float:
    """Seconds until the next look after so many that failed in a row, of which 0 are none."""
    if not failures:
        return interval
    return retry_delay(failures, interval, random.random())  # noqa: S311 — no secret


def retry_delay(failures: int, interval: float, chance: float) -> float:
    """Seconds until a source that failed so often in a row is asked again.

    Args:
        failures: at least 1.
        interval: the delay is never more.
        chance: from 0 to 1, so that monitors that failed together do not come back together.
    """
    doubled = FIRST_RETRY_S * 2.0 ** min(failures - 1, 30)
    return min(doubled, interval) * (0.5 + chance / 2)


def refusal_delay(refusals: int, interval: float, chance: float) -> float:
    """Seconds until a model that was refused so often, and stays the same, is pulled again."""
    doubled = interval * 2.0 ** min(refusals - 1, 30)
    return max(interval, min(doubled, LONGEST_REFUSAL_S)) * (0.5 + chance / 2)
