"""Admin requests: a bounded number at a time."""

from __future__ import annotations

import asyncio

from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.node.admin import LIMIT, AdminDesk


async def room() -> None:
    """The gateway reads at once."""


def request(number: int) -> AdminRequest:
    return AdminRequest(id=number, method="GET", path="/", query="", headers=[], body=b"")


def test_more_than_the_limit_are_refused_at_once_and_the_rest_answered() -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def slow(request: AdminRequest) -> AdminResponse:
            await go_on.wait()
            return AdminResponse(id=request.id, status=200, body=b"")

        answers: list[AdminResponse] = []
        done = asyncio.Event()

        def send(answer: AdminResponse) -> None:
            answers.append(answer)
            if len(answers) == LIMIT + 2:
                done.set()

        desk = AdminDesk(slow)
        for number in range(LIMIT + 2):
            desk.take(request(number), send, room)
        assert [(a.id, a.status) for a in answers] == [(LIMIT, 503), (LIMIT + 1, 503)]
        go_on.set()
        await done.wait()
        assert {a.status for a in answers[2:]} == {200}

    asyncio.run(scenario())


def test_answers_leave_one_by_one_as_the_gateway_reads() -> None:
    async def scenario() -> None:
        async def quick(request: AdminRequest) -> AdminResponse:
            return AdminResponse(id=request.id, status=200, body=b"")

        read = asyncio.Semaphore(0)
        answers: asyncio.Queue[AdminResponse] = asyncio.Queue()
        desk = AdminDesk(quick)
        for number in range(3):
            desk.take(request(number), answers.put_nowait, read.acquire)
        for number in range(3):
            read.release()
            assert (await answers.get()).id == number
            assert answers.empty()

    asyncio.run(scenario())


def test_closing_cancels_what_is_under_way() -> None:
    async def scenario() -> None:
        async def forever(_: AdminRequest) -> AdminResponse:
            return await asyncio.Future()

        desk = AdminDesk(forever)
        desk.take(request(1), lambda _: None, room)
        await desk.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
