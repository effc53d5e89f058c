"""Answers the admin requests that gateways pass on, a bounded number at a time.

Must never: let an exception out to the client, or into the gateway's connection.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.errors import ModelcloudError, Overloaded

log = logging.getLogger(__name__)

#: Requests of one gateway under way at a time.
LIMIT = 64

AdminHandler = Callable[[AdminRequest], Awaitable[AdminResponse]]


class AdminDesk:
    """The admin requests of one gateway."""

    def __init__(self, handler: AdminHandler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def take(
        self,
        request: AdminRequest,
        send: Callable[[AdminResponse], None],
        room: Callable[[], Awaitable[object]],
    ) -> None:
        """Answer `request` through `send`, later.

        Args:
            request: as the gateway passed it on.
            send: takes the answer.
            room: awaited before each answer, one after the other, so that large ones do not pile
                up faster than the gateway reads.
        """
        if len(self._tasks) >= LIMIT:
            send(_refusal(request, Overloaded("too many requests to the node; try again")))
            return
        task = asyncio.get_running_loop().create_task(self._answer(request, send, room))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(
        self,
        request: AdminRequest,
        send: Callable[[AdminResponse], None],
        room: Callable[[], Awaitable[object]],
    ) -> None:
        try:
            response = await self._handler(request)
        except ModelcloudError as error:
            response = _refusal(request, error)
        except Exception:
            error_id = secrets.token_hex(6)
            log.exception("error %s: %s %s failed", error_id, request.method, request.path)
            message = "the node could not answer; the error_id is in its log"
            response = _refusal(request, ModelcloudError(message, error_id=error_id))
        async with self._turn:
            await room()
            send(response)


def _refusal(request: AdminRequest, error: ModelcloudError) -> AdminResponse:
    body: dict[str, Any] = error.to_dict()
    headers = [("retry-after", "1")] if isinstance(error, Overloaded) else []
    return AdminResponse(
        id=request.id, status=error.status, body=msgspec.json.encode(body), headers=headers
    )
