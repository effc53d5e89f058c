"""Who waits with a deadline gets the answer, the deadline or the cancellation, and loses none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from modelcloud.waiting import within

LONG_S, SHORT_S = 60.0, 0.01


def test_an_answer_in_time_is_handed_on_and_so_is_an_error() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 7

    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError("no")

    assert asyncio.run(within(answer(), LONG_S)) == 7
    with pytest.raises(ValueError, match="no"):
        asyncio.run(within(fail(), LONG_S))


def test_what_takes_too_long_is_cancelled_and_has_ended() -> None:
    ended = []

    async def hang() -> None:
        try:
            await asyncio.sleep(LONG_S)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(hang(), SHORT_S))
    assert ended == [True]


def test_who_is_cancelled_ends_what_it_waits_for() -> None:
    async def main() -> bool:
        inner = asyncio.ensure_future(asyncio.sleep(LONG_S))
        waiting = asyncio.ensure_future(within(inner, LONG_S))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return inner.cancelled()

    assert asyncio.run(main())


@pytest.mark.parametrize(
    "happen",
    [
        lambda answer, waiting: (answer.set_result(1), waiting.cancel()),
        lambda answer, waiting: (waiting.cancel(), answer.set_result(1)),
        lambda answer, waiting: (answer.set_exception(ValueError("no")), waiting.cancel()),
    ],
    ids=["answer first", "cancellation first", "error first"],
)
def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost(
    happen: Callable[[asyncio.Future[int], asyncio.Future[int]], Any],
) -> None:
    async def main() -> None:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(within(answer, LONG_S))
        await asyncio.sleep(0)
        happen(answer, waiting)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
