"""Asks a model as any client does: over HTTP, at the address where gateways take predictions.

Must never: ask on behalf of somebody who may not predict.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import shlex
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from modelcloud.control.api import tokens
from modelcloud.control.api.tokens import NewToken
from modelcloud.dashboard.asks import Asks
from modelcloud.errors import DeadlineExceeded, InvalidInput, NotReady

#: For an answer; and the most of it that is shown.
ANSWER_S, MOST_BYTES = 60.0, 256 * 1024
#: A token made for one request; it is revoked after it.
TOKEN_S = 120.0


#: Read at a time of a file, in threes, so that base64 of the pieces is that of the whole.
_PIECE = 3 * 256 * 1024


class Sent(NamedTuple):
    """A file that the browser has sent, and what it is."""

    path: Path
    media_type: str


class Answer(NamedTuple):
    """What a model answered.

    Attributes:
        version, generation: which answered, by its headers; empty where nothing says so.
        took_ms: until the answer was here.
        cut: whether only the beginning is here.
    """

    status: int
    version: str
    generation: str
    took_ms: float
    content_type: str
    body: str
    cut: bool


async def ask(
    asks: Asks, url: str, body: Any, sent: Mapping[str, Sent], *, group: str, public: bool
) -> Answer:
    """Ask an address of a service.

    Args:
        asks: who asks.
        url: of the gateway.
        body: sent as JSON.
        sent: the files of some of its fields, which take the place of what is there.
        group: of the service.
        public: whether its models answer without a token.

    Raises:
        NotReady: nobody listens there.
        DeadlineExceeded: no answer came in time.
        InvalidInput: it is larger than the gateway takes.
        ModelcloudError: who asks may not.
    """
    headers = {"content-type": "application/json"}
    token_id: int | None = None
    if not public:
        wanted = NewToken(
            name="tried out in a browser",
            level="predict",
            group=group,
            expires_in_s=TOKEN_S,
        )
        made = await asks.call(tokens.create_token, body=wanted)
        token_id = made.id
        headers["authorization"] = f"Bearer {made.token}"
    try:
        pieces = request_body(body, sent)
        size = sum(map(_size, pieces))
        if size > (limit := asks.state.config.limits.body):
            field = next(iter(sent), "body")
            raise InvalidInput(field, f"a request of {size} bytes", f"up to {limit} bytes")
        headers["content-length"] = str(size)
        return await _ask(url, pieces, headers, asks)
    finally:
        if token_id is not None:
            await asyncio.shield(asks.call(tokens.revoke_token, token_id=token_id))


def request_body(body: Any, sent: Mapping[str, Sent]) -> list[bytes | Path]:
    """The body as JSON, in pieces of which the files are still to be encoded."""
    marks = {secrets.token_hex(16): one for one in sent.values()}
    named = {
        name: f"data:{one.media_type or 'application/octet-stream'};base64,{mark}"
        for (name, one), mark in zip(sent.items(), marks, strict=True)
    }
    text = json.dumps({**body, **named} if named else body, ensure_ascii=False)
    pieces: list[bytes | Path] = []
    for mark, one in sorted(marks.items(), key=lambda pair: text.index(pair[0])):
        before, _, text = text.partition(mark)
        pieces += [before.encode(), one.path]
    return [*pieces, text.encode()]


def _size(piece: bytes | Path) -> int:
    """Of a piece, as it is sent."""
    return len(piece) if isinstance(piece, bytes) else -(-piece.stat().st_size // 3) * 4


async def _stream(pieces: Sequence[bytes | Path]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        with piece.open("rb") as file:
            while data := await asyncio.to_thread(file.read, _PIECE):
                yield base64.b64encode(data)


async def _ask(
    url: str, body: Sequence[bytes | Path], headers: dict[str, str], asks: Asks
) -> Answer:
    began = time.perf_counter()
    try:
        async with (
            httpx.AsyncClient(verify=_trust(asks), timeout=ANSWER_S, trust_env=False) as client,
            client.stream("POST", url, content=_stream(body), headers=headers) as response,
        ):
            found = bytearray()
            async for chunk in response.aiter_bytes():
                found += chunk
                if len(found) > MOST_BYTES:
                    break
    except httpx.TimeoutException:
        raise DeadlineExceeded(f"no answer came within {ANSWER_S:g} s") from None
    except httpx.TransportError as error:
        raise NotReady(f"the prediction address cannot be reached: {error}") from None
    return Answer(
        status=response.status_code,
        version=response.headers.get("x-model-version", ""),
        generation=response.headers.get("x-model-generation", ""),
        took_ms=(time.perf_counter() - began) * 1000,
        content_type=response.headers.get("content-type", ""),
        body=bytes(found[:MOST_BYTES]).decode("utf-8", "replace"),
        cut=len(found) > MOST_BYTES,
    )


def _trust(asks: Asks) -> ssl.SSLContext | bool:
    """The platform's own certificate, under whatever name it is known."""
    certificate = asks.state.config.tls_cert
    if not certificate:
        return False  # plain HTTP, to an address of this machine
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    return context


def curl(url: str, body: Any, *, public: bool) -> str:
    """The same request, for a shell."""
    token = "" if public else ' -H "Authorization: Bearer $TOKEN"'
    return f"curl{token} {shlex.quote(url)} -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"


def python(url: str, body: Any, *, public: bool) -> str:
    """The same request, in Python."""
    headers = "" if public else ', headers={"Authorization": f"Bearer {token}"}'
    call = f"httpx.post({url!r}, json={body!r}{headers})"
    return f"import httpx\n\nanswer = {call}\nprint(answer.json())"
