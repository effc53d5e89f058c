"""Tells whoever follows that something has changed.

Must never: say what; who is told looks for itself, so that many changes may be one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Changes:
    """Many may follow, each at its own pace."""

    def __init__(self) -> None:
        self._followers: set[asyncio.Event] = set()

    @property
    def followers(self) -> int:
        """How many follow."""
        return len(self._followers)

    def tell(self) -> None:
        """Something has changed."""
        for event in self._followers:
            event.set()

    @contextmanager
    def followed(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Follow from now on: each await of the result ends with a change since the last one."""
        event = asyncio.Event()

        async def changed() -> None:
            await event.wait()
            event.clear()

        self._followers.add(event)
        try:
            yield changed
        finally:
            self._followers.discard(event)
