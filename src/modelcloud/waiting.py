"""Waiting with a deadline, for who may be told meanwhile to stop.

Must never: lose a cancellation, or leave running what nobody waits for any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float | None) -> T:
    """What this gives, if it does so in time (None: however long it takes); else it is cancelled.

    `asyncio.wait_for` of Python 3.10 and 3.11 drops a cancellation that comes together with the
    answer, so that what should end goes on.

    Raises:
        asyncio.TimeoutError: it did not.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # asked for, else it would be told as forgotten
    raise asyncio.TimeoutError
