"""Reasons for a node to stop: signals, and the end of the process it serves for; and how it does.

Must never: do more in a handler than to put a reason into the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

#: What running requests get once a second reason asked for haste.
HURRIED_DRAIN_S = 0.5
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def reasons_to_stop(stack: contextlib.ExitStack, lifeline: int | None = None) -> asyncio.Queue[str]:
    """A queue that each reason to stop is put into, until `stack` is closed.

    Args:
        stack: takes the handlers off again.
        lifeline: a descriptor whose end of file means that the process this one serves for is
            gone.
    """
    loop = asyncio.get_running_loop()
    reasons: asyncio.Queue[str] = asyncio.Queue()
    for number in STOPPING:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup
        loop.add_signal_handler(number, reasons.put_nowait, number.name)
        stack.callback(loop.remove_signal_handler, number)
    if lifeline is not None:

        def ended() -> None:
            if not os.read(lifeline, 1):
                loop.remove_reader(lifeline)
                reasons.put_nowait("the process it served for has ended")

        loop.add_reader(lifeline, ended)
        stack.callback(loop.remove_reader, lifeline)
    return reasons


async def stop_unless_hurried(
    stop: Callable[[float], Awaitable[None]], drain_s: float, reasons: asyncio.Queue[str]
) -> None:
    """Return once `stop(drain_s)` has; another reason to stop has it called again, in haste."""
    stopping = asyncio.ensure_future(stop(drain_s))
    hurry = asyncio.create_task(reasons.get())
    await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        log.info("Stopping at once")
        await stop(HURRIED_DRAIN_S)
    hurry.cancel()
    await stopping
