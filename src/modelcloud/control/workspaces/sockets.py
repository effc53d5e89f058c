"""A websocket of a browser joined to one of its lab.

Must never: hold more than one message each way, or outlive either side.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from modelcloud.waiting import within
from modelcloud.workspaces.enter import MAX_MESSAGE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

#: For a lab to accept; for one message to be taken, on either side.
OPEN_S, TAKE_S = 15.0, 60.0


async def pump(
    socket: str,
    path: str,
    token: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    refused: asyncio.Task[None],
) -> None:
    """Join them until one side ends it, or `refused` is done.

    Args:
        socket: of the lab.
        path: with the query.
        token: the lab's.
        scope: of the browser's websocket.
        receive: from it.
        send: to it.
        refused: ends when the browser may not go on.
    """
    from websockets.asyncio.client import unix_connect
    from websockets.exceptions import WebSocketException
    from websockets.typing import Subprotocol

    assert (await receive())["type"] == "websocket.connect"
    connecting = unix_connect(
        socket,
        f"ws://localhost{path}",
        additional_headers={"authorization": f"token {token}"},
        subprotocols=[Subprotocol(name) for name in scope["subprotocols"]] or None,
        compression=None,
        max_size=MAX_MESSAGE,
        max_queue=1,
        open_timeout=OPEN_S,
        close_timeout=1.0,
        user_agent_header=None,
    )
    async with contextlib.AsyncExitStack() as open_lab:
        try:
            lab = await open_lab.enter_async_context(connecting)
        except (OSError, WebSocketException, asyncio.TimeoutError):
            await send({"type": "websocket.close", "code": 1011})
            return
        await send({"type": "websocket.accept", "subprotocol": lab.subprotocol})
        ways = {
            asyncio.ensure_future(_to_lab(receive, lab)),
            asyncio.ensure_future(_to_browser(lab, send)),
        }
        try:
            await asyncio.wait({*ways, refused}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        code = 1008 if refused.done() else 1001
        with contextlib.suppress(RuntimeError, OSError):  # the browser may have ended it
            await send({"type": "websocket.close", "code": code})


async def _to_lab(receive: Receive, lab: Any) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        await within(lab.send(message["bytes"] if text is None else text), TAKE_S)


async def _to_browser(lab: Any, send: Send) -> None:
    async for message in lab:
        kind = "text" if isinstance(message, str) else "bytes"
        await within(send({"type": "websocket.send", kind: message}), TAKE_S)
