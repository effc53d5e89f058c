"""A loaded model's commands, each ready to be run on the bytes of a request.

Must never: know sockets. What the model raises becomes an answer here, and the worker lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modelcloud.codecs import predict
from modelcloud.codecs.media import FLAG_NAN, FLAG_WRAPPED, Codec
from modelcloud.codecs.native import CommandCodec
from modelcloud.dataplane.batching import BatchQueue
from modelcloud.dataplane.messages import LENGTH
from modelcloud.dataplane.request_view import view_of
from modelcloud.errors import ModelcloudError
from modelcloud.sdk.contract import Backend, CallKind, Command, Response

#: From this mean time a call on, what is already answered is written before the next one runs.
SLOW_S = 0.0005

JSON_WITH_NAN = Codec.JSON | FLAG_NAN

Answer = tuple[int, int, bytes]  # status, codec, body


class BoundCommand:
    """One command of a loaded backend.

    Attributes:
        mean_s: running mean of the time a call took, seconds; kept by the executor.
        batches: the requests that wait for a call of many; None for a command that takes one.
    """

    def __init__(self, command: Command, backend: Backend, *, max_body: int, runenv: str) -> None:
        self.command = command
        self.kind = command.kind
        self.codec = CommandCodec(command, max_body)
        self.handler: Callable[[Any], Any] = backend.handler(command.name)
        self.batches = BatchQueue(command, self.handler) if command.batch is not None else None
        self.mean_s = 0.0
        self._dev = runenv == "dev"
        self._max_body = max_body

    @property
    def slow(self) -> bool:
        """Whether a call takes long enough that others should not wait behind it unwritten."""
        return self.mean_s > SLOW_S

    def call(self, codec: int, body: Any) -> Any:
        """Call the function with what a request holds; what it returns is as `kind` says.

        Raises:
            UsageError: the request does not fit.
        """
        if self.batches is not None:
            (result,) = self.batches.call([self.codec.decode(codec, body)])
            if isinstance(result, BaseException):
                raise result
            return result
        if not self.command.with_request:
            return self.handler(self.codec.decode(codec, body))
        if isinstance(body, bytes):  # it waited for a generation that has more of the request
            body = view_of(self.command.name, codec, body, self._max_body)
        return self.handler(body)

    def run(self, codec: int, body: Any) -> Answer:
        """Decode, call, encode: the whole of a plain command. `body` may be a `RequestView`.

        With `FLAG_WRAPPED` in the codec, the answer is as `codecs.predict` says.
        """
        try:
            result = self.call(codec, body)
            if self.kind is CallKind.GENERATOR:
                result = last_of(result)
            elif self.command.whole_site:
                return site_answer(result)
            encoded, nan = self.codec.encode(result)
            if codec & FLAG_WRAPPED:
                encoded = predict.success(encoded)
        except BaseException as error:  # SystemExit too costs only this request
            return self.failure(error, codec)
        return 200, JSON_WITH_NAN if nan else Codec.JSON, encoded

    def run_batch(self, requests: Sequence[tuple[int, bytes]]) -> list[Answer]:
        """As `run`, for many requests (codec and body of each) in one call.

        One that does not fit fails alone. For commands that have `batches` only.
        """
        assert self.batches is not None
        answers: dict[int, Answer] = {}
        inputs: dict[int, Any] = {}
        for number, (codec, body) in enumerate(requests):
            try:
                inputs[number] = self.codec.decode(codec, body)
            except Exception as error:  # noqa: PERF203 — each fails alone
                answers[number] = self.failure(error, codec)
        results = self.batches.call(list(inputs.values())) if inputs else []
        for number, result in zip(inputs, results, strict=True):
            codec, _ = requests[number]
            if isinstance(result, BaseException):
                answers[number] = self.failure(result, codec)
            else:
                answers[number] = self._encoded(result, codec)
        return [answers[number] for number in range(len(requests))]

    def _encoded(self, result: Any, codec: int) -> Answer:
        try:
            if isinstance(result, Response):
                return site_answer(result)
            encoded, nan = self.codec.encode(result)
            if codec & FLAG_WRAPPED:
                encoded = predict.success(encoded)
        except Exception as error:
            return self.failure(error, codec)
        return 200, JSON_WITH_NAN if nan else Codec.JSON, encoded

    async def run_async(self, codec: int, body: Any) -> Answer:
        """As `run`, for a coroutine or an asynchronous generator's last value."""
        try:
            if self.kind is CallKind.ASYNC_GENERATOR:
                result = None
                async for result in self.call(codec, body):  # noqa: B007 — the last one counts
                    pass
            else:
                result = await self.call(codec, body)
        except asyncio.CancelledError:  # the caller knows whether it was meant
            raise
        except BaseException as error:  # SystemExit too costs only this request
            return self.failure(error, codec)
        return self._encoded(result, codec)

    def failure(self, error: BaseException, codec: int = Codec.JSON) -> Answer:
        """What the client gets for an exception; the log gets all of it under an id.

        Never raises, though all of it may be the model's own: the exception, what it holds, stderr.
        """
        with contextlib.suppress(Exception):
            if isinstance(error, ModelcloudError) and 400 <= error.status < 500:
                return _failed(error.status, error.to_dict(), codec)
        error_id = uuid.uuid4().hex[:12]
        text = f"{type(error).__name__}, which cannot be shown\n"
        with contextlib.suppress(Exception):
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        with contextlib.suppress(Exception):
            print(  # noqa: T201 — the node captures it
                f"error {error_id} in command {self.command.name!r}\n{text}",
                file=sys.stderr, end="", flush=True,
            )  # fmt: skip
        body: dict[str, Any] = {
            "error": "the model raised an exception; the log has it under this id",
            "id": error_id,
        }
        if self._dev:
            body["error"] = text.rstrip().rpartition("\n")[2]
            body["traceback"] = text
        return _failed(500, body, codec)


def _failed(status: int, body: dict[str, Any], codec: int) -> Answer:
    if codec & FLAG_WRAPPED:
        return status, Codec.JSON, predict.failure(status, body)
    return status, Codec.JSON, predict.any_json(body)


def site_answer(response: Response) -> Answer:
    """A web application's own response, with its status and headers."""
    headers = msgspec.msgpack.encode(list(response.headers))
    return response.status, Codec.SITE, LENGTH.pack(len(headers)) + headers + response.body


def last_of(values: Any) -> Any:
    """The last value of a generator, for a client that wants one answer."""
    last = None
    for last in values:  # noqa: B007 — the last one counts
        pass
    return last


def bind(backend: Backend, *, max_body: int, runenv: str) -> list[BoundCommand]:
    """All commands of a loaded backend, in the order of its signature."""
    return [
        BoundCommand(command, backend, max_body=max_body, runenv=runenv)
        for command in backend.signature.commands
    ]
