"""Where the time of one request goes, stage by stage, in one process and without system calls.

`python -m bench.path` runs each stage of the request path many times on the real classes, with
transports that drop what is written. What the whole path takes beyond the sum of these is the
kernel's and the event loop's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.apps import work
from modelcloud.codecs.media import Codec
from modelcloud.config import Limits
from modelcloud.dataplane import messages
from modelcloud.dataplane.commands import bind
from modelcloud.dataplane.executor import Executor
from modelcloud.dataplane.frames import Kind, pack_header
from modelcloud.dataplane.gateway_link import GatewayLink
from modelcloud.dataplane.http import HttpConnection
from modelcloud.dataplane.hub import Gateway
from modelcloud.dataplane.pool import Pool
from modelcloud.dataplane.targets import lookup_of
from modelcloud.sdk.function import FunctionBackend

BODY = b'{"a": 25.0}'
ANSWER = b'{"result":8.86226925452758}'
MODEL_HEAD = b"x-model-version: 1\r\nx-model-generation: 1\r\n"
REQUEST = (
    b"POST /pisqrt HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 11\r\n"
    b"Content-Type: application/json\r\n\r\n" + BODY
)
ROUNDS = 100_000
PIPELINED = 32  # frames that come in one read under load


class Nowhere:
    """A transport that drops what is written."""

    def write(self, data: bytes) -> None:
        """Drop it."""

    def get_extra_info(self, name: str) -> None:
        """Nothing is known."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """It stays open."""
        return False


class Answering(Pool):
    """A pool that answers at once."""

    def submit(self, exchange: Any) -> None:
        """Answer."""
        exchange.reply(MODEL_HEAD, 200, Codec.JSON, ANSWER)


class Told:
    """The way to a node that is not there."""

    def send(self, message: messages.Message) -> None:
        """Drop it."""


def pisqrt(a: float) -> float:
    """The model."""
    return work.pisqrt(a)


def us(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Microseconds of one call; the best of three runs."""
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(rounds):
            action()
        best = min(best, time.perf_counter() - begin)
    return best / rounds * 1e6


def connection(*, learns: bool) -> HttpConnection:
    """A client's connection in front of a pool that answers at once."""
    hub = Gateway(messages.StartGateway(gateway_id=0, listen_fd=-1, limits=Limits()), Told())
    route = messages.CommandRoute(
        paths=("/pisqrt",), command="pisqrt", shares=(messages.Share("s"),)
    )
    pools = {"s": Answering(hub, "s")}
    hub.site(0).switch(lookup_of(messages.Site(commands=(route,)), pools, {}))
    client = HttpConnection(hub, hub.site(0))
    client.connection_made(Nowhere())  # type: ignore[arg-type]
    if not learns:
        client.lessons = 0
    return client


async def stages() -> dict[str, float]:
    """Stage → microseconds."""
    backend = FunctionBackend(pisqrt, "pisqrt")
    (command,) = bind(backend, max_body=1 << 20, runenv="prod")
    executor = Executor([command], threads=1, max_body=1 << 20)
    link = GatewayLink(executor)
    link.connection_made(Nowhere())  # type: ignore[arg-type]
    frames = (pack_header(len(BODY), 7, Kind.REQUEST, Codec.JSON, 0) + BODY) * PIPELINED

    def work_off() -> None:
        link.data_received(frames)
        while executor.jobs:
            executor.run()

    parsing, repeating = connection(learns=False), connection(learns=True)
    inputs = command.codec.decode(Codec.JSON, BODY)
    return {
        "gateway: parse, route, answer": us(lambda: parsing.data_received(REQUEST)),
        "gateway: the same, head repeated": us(lambda: repeating.data_received(REQUEST)),
        "worker: all of it": us(work_off, ROUNDS // PIPELINED) / PIPELINED,
        "worker: of that, decode and validate": us(lambda: command.codec.decode(0, BODY)),
        "worker: of that, the model": us(lambda: command.handler(inputs)),
        "worker: of that, encode": us(lambda: command.codec.encode({"result": 8.86226925452758})),
    }


def main() -> int:
    """Measure and print."""
    print("| stage | µs |", "|---|---:|", sep="\n")
    for stage, taken in asyncio.run(stages()).items():
        print(f"| {stage} | {taken:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
