"""Asks a model as any client does: over HTTP, at the address where gateways take predictions.

Must never: ask on behalf of somebody who may not predict.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import ssl
import time
from typing import Any, NamedTuple

import httpx

from modelcloud.control.api import tokens
from modelcloud.control.api.tokens import NewToken
from modelcloud.dashboard.asks import Asks
from modelcloud.errors import DeadlineExceeded, NotReady

#: For an answer; and the most of it that is shown.
ANSWER_S, MOST_BYTES = 60.0, 256 * 1024
#: A token made for one request; it is revoked after it.
TOKEN_S = 120.0


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


async def ask(asks: Asks, url: str, body: Any, *, group: str, public: bool) -> Answer:
    """Ask an address of a service.

    Args:
        asks: who asks.
        url: of the gateway.
        body: sent as JSON.
        group: of the service.
        public: whether its models answer without a token.

    Raises:
        NotReady: nobody listens there.
        DeadlineExceeded: no answer came in time.
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
        return await _ask(url, json.dumps(body, ensure_ascii=False).encode(), headers, asks)
    finally:
        if token_id is not None:
            await asyncio.shield(asks.call(tokens.revoke_token, token_id=token_id))


async def _ask(url: str, body: bytes, headers: dict[str, str], asks: Asks) -> Answer:
    began = time.perf_counter()
    try:
        async with (
            httpx.AsyncClient(verify=_trust(asks), timeout=ANSWER_S, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
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
