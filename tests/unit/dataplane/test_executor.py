"""A worker's requests: all are answered, whatever the model raises and whoever has left."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from modelcloud.codecs.media import FLAG_GZIP, FLAG_NAN, FLAG_STREAM, FLAG_WRAPPED, Codec
from modelcloud.data_types import any as any_
from modelcloud.data_types import number
from modelcloud.dataplane.commands import BoundCommand
from modelcloud.dataplane.executor import Executor
from modelcloud.dataplane.frames import (
    HEADER_SIZE,
    STREAM_WINDOW,
    Kind,
    pack_header,
    unpack_header,
)
from modelcloud.dataplane.gateway_link import GatewayLink
from modelcloud.dataplane.messages import LENGTH, RequestMeta
from modelcloud.errors import ModelcloudError, UsageError
from modelcloud.sdk.contract import Batch, CallKind, Command
from support.gateway_rig import FakeTransport, Frame, settle, until
from support.loops import on_a_loop

V, C, G, A = CallKind.VALUE, CallKind.COROUTINE, CallKind.GENERATOR, CallKind.ASYNC_GENERATOR


class Rig:
    """An executor of one command `f` (and a plain `quick`), and a gateway on a fake transport."""

    def __init__(
        self, kind: CallKind, function: Callable[[Any], Any], *, threads: int = 1, **command: Any
    ) -> None:
        self.functions = {"f": function, "quick": lambda _: "quick"}
        outputs = {"result": any_()}
        commands = [
            Command(
                name="f", kind=kind, inputs={"n": number(default=0)}, outputs=outputs, **command
            ),
            Command(name="quick", outputs=outputs),
        ]
        bound = [
            BoundCommand(each, self, max_body=1 << 20, runenv="prod")  # type: ignore[arg-type]
            for each in commands
        ]
        self.executor = Executor(bound, threads=threads, max_body=1 << 20)
        self.link = GatewayLink(self.executor)
        self.transport = FakeTransport(self.link)
        self.link.connection_made(self.transport)  # type: ignore[arg-type]
        self._read = 0
        assert self.frames()[0].kind == Kind.HELLO

    def handler(self, command: str) -> Callable[[Any], Any]:
        return self.functions[command]

    def ask(self, rid: int = 1, body: bytes = b"{}", *, stream: bool = False, number: int = 0,
            kind: Kind = Kind.REQUEST, codec: int = Codec.JSON) -> None:  # fmt: skip
        codec |= FLAG_STREAM if stream else 0
        self.link.data_received(pack_header(len(body), rid, kind, codec, number) + body)

    def cancel(self, rid: int = 1) -> None:
        self.link.data_received(pack_header(0, rid, Kind.CANCEL, Codec.BINARY, 0))

    def credit(self, size: int, rid: int = 1) -> None:
        body = LENGTH.pack(size)
        self.link.data_received(pack_header(len(body), rid, Kind.CREDIT, 0, 0) + body)

    def frames(self) -> list[Frame]:
        """What was written since the last look; `number` is the status."""
        out = []
        data = self.transport.sent
        while len(data) - self._read >= HEADER_SIZE:
            length, rid, kind, codec, status = unpack_header(data, self._read)
            start = self._read + HEADER_SIZE
            out.append(Frame(kind, rid, codec, status, bytes(data[start : start + length])))
            self._read = start + length
        return out

    async def answers(self, count: int) -> list[Frame]:
        """So many frames, as soon as they are there."""
        found: list[Frame] = []

        def enough() -> bool:
            found.extend(self.frames())
            return len(found) >= count

        await until(enough)
        return found


class Quiet(BaseException):
    """Not an Exception, as those of some testing and async libraries."""


class Unprintable(Exception):
    """Not even its text can be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Odd(ModelcloudError):
    """A status that is no error's."""

    status = 204


FAILURES = [
    ValueError("x"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    Quiet(),
    Unprintable(),
    Odd("no content"),
]


def raising(kind: CallKind, error: BaseException, *, after: int = 0) -> Callable[[Any], Any]:
    """A function of a kind that raises, a stream after some values."""

    def value(_: Any) -> Any:
        raise error

    async def coroutine(_: Any) -> Any:
        raise error

    def generator(_: Any) -> Iterator[int]:
        yield from range(after)
        raise error

    async def async_generator(_: Any) -> AsyncIterator[int]:
        for i in range(after):
            yield i
        raise error

    return {V: value, C: coroutine, G: generator, A: async_generator}[kind]


# ---- whatever the model raises


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", list(CallKind))
@pytest.mark.parametrize("threads", [1, 3])
@on_a_loop
async def test_whatever_is_raised_is_an_answer_and_the_worker_lives_on(
    kind: CallKind, error: BaseException, threads: int
) -> None:
    rig = Rig(kind, raising(kind, error), threads=threads)
    rig.ask(1)
    (answer,) = await rig.answers(1)
    assert (answer.kind, answer.rid, answer.number) == (Kind.RESPONSE, 1, 500)
    assert json.loads(answer.body)["id"]
    rig.ask(2, number=1)
    (answer,) = await rig.answers(1)
    assert answer.number == 200
    assert rig.executor.busy_since == 0.0
    assert not rig.link.running


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", [G, A])
@pytest.mark.parametrize("after", [0, 2])
@on_a_loop
async def test_a_stream_that_raises_is_an_error_at_first_and_an_event_later(
    kind: CallKind, error: BaseException, after: int
) -> None:
    rig = Rig(kind, raising(kind, error, after=after))
    rig.ask(stream=True)
    frames = await rig.answers(after + 2 if after else 1)
    if after:
        assert [frame.kind for frame in frames] == [Kind.CHUNK] * 3 + [Kind.END]
        assert frames[2].body.startswith(b"event: error\ndata: {")
        assert frames[3].number == 200
    else:
        assert (frames[0].kind, frames[0].number) == (Kind.RESPONSE, 500)
    assert rig.executor.busy_since == 0.0
    assert not rig.link.streams


@pytest.mark.parametrize("stderr", ["closed", "none", "broken"])
@on_a_loop
async def test_a_model_that_spoilt_stderr_costs_no_answer(
    stderr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def write(self, _: str) -> None:
            raise Unprintable

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", {"closed": closed, "none": None, "broken": Broken()}[stderr])
    rig = Rig(V, raising(V, ValueError("x")))
    rig.ask()
    assert rig.frames()[0].number == 500


@pytest.mark.parametrize("field", [object(), {1, 2}, "\udcff", b"\xff", float("nan")])
@on_a_loop
async def test_an_error_that_holds_anything_is_still_told(field: object) -> None:
    rig = Rig(V, raising(V, UsageError("no file \udcff", field=field)))
    rig.ask()
    (answer,) = rig.frames()
    assert answer.number == 400
    assert json.loads(answer.body)["error"].startswith("no file")


@on_a_loop
async def test_an_answer_too_large_to_send_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway would take such a frame for nonsense and have the worker killed."""
    monkeypatch.setattr("modelcloud.dataplane.gateway_link.MAX_ANSWER", 1000)
    rig = Rig(V, lambda _: "x" * 2000)
    rig.ask()
    assert rig.frames()[0].number == 500
    monkeypatch.setattr("modelcloud.dataplane.stream.MAX_EVENT", 1000)
    rig = Rig(G, lambda _: iter(["x" * 2000]))
    rig.ask(stream=True)
    (answer,) = await rig.answers(1)
    assert (answer.kind, answer.number) == (Kind.RESPONSE, 500)


# ---- order


@on_a_loop
async def test_what_is_answered_is_written_before_a_slow_call_begins() -> None:
    seen: list[int] = []
    rig = Rig(V, lambda _: seen.append(len(rig.transport.sent)))
    rig.executor.commands[0].mean_s = 10.0
    before = len(rig.transport.sent)
    quick = pack_header(2, 1, Kind.REQUEST, 0, 1) + b"{}"
    rig.link.data_received(quick + pack_header(2, 2, Kind.REQUEST, 0, 0) + b"{}")
    assert seen == []
    await settle()
    assert seen[0] > before
    assert [frame.rid for frame in rig.frames()] == [1, 2]


# ---- giving up


@pytest.mark.parametrize("threads", [1, 2])
@on_a_loop
async def test_what_has_not_begun_is_given_up_at_once(threads: int) -> None:
    """On threads, what runs cannot be stopped; its late answer is the gateway's to drop."""
    go = threading.Event()
    rig = Rig(V, lambda _: go.wait(30), threads=threads)
    if threads == 1:
        rig.executor.scheduled = True  # as during a call
    for rid in range(1, 5):
        rig.ask(rid)
    rig.cancel(4)
    (over,) = await rig.answers(1)
    assert (over.kind, over.rid, over.number) == (Kind.END, 4, 499)
    go.set()
    if threads == 1:
        rig.executor.run()
    assert {frame.rid for frame in await rig.answers(3)} == {1, 2, 3}


@pytest.mark.parametrize("kind", [C, A])
@on_a_loop
async def test_a_coroutine_that_nobody_waits_for_is_cancelled_once(kind: CallKind) -> None:
    ends: list[str] = []

    async def patient() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)  # its cleaning up is not cancelled again
            ends.append("cleaned")

    async def coroutine(_: Any) -> None:
        await patient()

    async def generator(_: Any) -> AsyncIterator[int]:
        yield 1
        await patient()

    rig = Rig(kind, coroutine if kind is C else generator)
    rig.ask(stream=kind is A)
    await settle()
    rig.cancel()
    frames = await rig.answers(2 if kind is A else 1)
    assert (frames[-1].kind, frames[-1].number) == (Kind.END, 499)
    assert ends == ["cleaned"]
    rig.ask(2, stream=kind is A)
    await settle()
    rig.link.connection_lost(None)
    await until(lambda: len(ends) == 2)
    assert not rig.link.running
    assert not rig.link.streams


@pytest.mark.parametrize("kind", [G, A])
@on_a_loop
async def test_a_stream_waits_for_its_client_and_is_closed_when_that_leaves(kind: CallKind) -> None:
    given: list[int] = []
    piece = "x" * 10_000

    def generator(_: Any) -> Iterator[str]:
        try:
            while True:
                given.append(1)
                yield piece
        finally:
            given.append(-1)
            raise SystemExit  # not even this at its end does harm

    async def async_generator(_: Any) -> AsyncIterator[str]:
        try:
            while True:
                given.append(1)
                yield piece
        finally:
            given.append(-1)

    rig = Rig(kind, generator if kind is G else async_generator)
    rig.ask(stream=True)
    most = STREAM_WINDOW // len(piece) + 1
    for allowed in (most, most + 1, most + 5):
        for _ in range(100):
            await settle()
        assert allowed - 1 <= len(given) <= allowed
        rig.credit((len(piece) + 20) * (4 if allowed == most + 1 else 1))
    rig.frames()
    rig.cancel()
    frames = [frame for frame in await rig.answers(1) if frame.kind == Kind.END]
    assert frames[0].number == 499
    assert given[-1] == -1
    assert not rig.link.streams


@on_a_loop
async def test_a_stream_takes_one_step_per_turn_however_often_it_stalled() -> None:
    steps = 0

    def generator(_: Any) -> Iterator[str]:
        nonlocal steps
        while True:
            steps += 1
            yield "x" * STREAM_WINDOW

    rig = Rig(G, generator)
    rig.ask(stream=True)
    for _ in range(20):
        await settle()
        rig.credit(STREAM_WINDOW + 100)
    rig.credit(STREAM_WINDOW * 1000)
    before = steps
    await asyncio.sleep(0)
    assert steps - before <= 1
    rig.cancel()


@on_a_loop
async def test_a_gateway_that_dies_leaves_nothing_behind() -> None:
    async def forever(_: Any) -> None:
        await asyncio.sleep(3600)

    rig = Rig(C, forever)
    for rid in range(1, 6):
        rig.ask(rid)
    await settle()
    rig.executor.scheduled = True
    rig.ask(6)
    rig.transport.abort()
    await until(lambda: not rig.executor._tasks)
    assert not rig.executor.jobs
    assert not rig.executor.links


# ---- ending


@on_a_loop
async def test_to_finish_is_to_answer_all_that_was_received_and_see_it_taken() -> None:
    go = asyncio.Event()

    async def slow(_: Any) -> str:
        await go.wait()
        return "x" * 100_000

    rig = Rig(C, slow)
    rig.transport.stalled = True
    rig.ask()
    finishing = asyncio.ensure_future(rig.executor.finish())
    await asyncio.sleep(0.05)
    go.set()
    await until(lambda: rig.transport.buffered)
    await asyncio.sleep(0.05)
    assert not finishing.done()
    assert not rig.transport.closing
    rig.transport.take()
    await finishing
    assert rig.transport.lost
    assert rig.frames()[0].number == 200


# ---- frames that should not be


@on_a_loop
async def test_a_command_that_is_not_there_is_404() -> None:
    rig = Rig(V, lambda _: 1)
    rig.ask(1, number=7)
    rig.ask(2, with_meta("", b""), number=7, kind=Kind.REQUEST_WITH_META)
    rig.ask(3)
    frames = await rig.answers(3)
    assert {(frame.rid, frame.number) for frame in frames} == {(1, 404), (2, 404), (3, 200)}


@on_a_loop
async def test_a_frame_larger_than_any_ends_the_link() -> None:
    rig = Rig(V, lambda _: 1)
    rig.link.data_received(b"\xff" * HEADER_SIZE)
    assert rig.transport.aborted


def with_meta(query: str, body: bytes) -> bytes:
    meta = msgspec.msgpack.encode(RequestMeta(method="POST", path="/f", query=query, headers=[]))
    return LENGTH.pack(len(meta)) + meta + body


# ---- a request that waited for a generation whose command is declared otherwise


@on_a_loop
async def test_a_request_with_its_head_suits_a_command_without() -> None:
    rig = Rig(V, lambda inputs: inputs["n"])
    rig.ask(1, with_meta("", b'{"n": 3}'), kind=Kind.REQUEST_WITH_META)
    rig.ask(2, with_meta("n=4", b""), kind=Kind.REQUEST_WITH_META)
    assert [frame.body for frame in await rig.answers(2)] == [b'{"result":3}', b'{"result":4}']


@on_a_loop
async def test_a_plain_request_suits_a_command_that_wants_the_head() -> None:
    async def ask(request: Any) -> Any:
        return [request.method, request.path, await request.json()]

    rig = Rig(C, ask, with_request=True)
    rig.ask(1, b'{"n": 3}')
    (answer,) = await rig.answers(1)
    assert json.loads(answer.body) == ["POST", "/f", {"n": 3}]


@pytest.mark.parametrize("kind", [V, C])
@on_a_loop
async def test_a_wish_for_a_stream_is_answered_at_once_by_a_command_without(kind: CallKind) -> None:
    async def coroutine(_: Any) -> int:
        return 5

    rig = Rig(kind, coroutine if kind is C else lambda _: 5)
    rig.ask(stream=True)
    (answer,) = await rig.answers(1)
    assert (answer.kind, answer.number) == (Kind.RESPONSE, 200)


@on_a_loop
async def test_a_command_that_wants_the_head_can_stream() -> None:
    async def flow(request: Any) -> AsyncIterator[str]:
        yield request.path

    rig = Rig(A, flow, with_request=True)
    body = with_meta("", b"")
    frame = pack_header(len(body), 1, Kind.REQUEST_WITH_META, FLAG_STREAM, 0) + body
    rig.link.data_received(frame)
    first, last = await rig.answers(2)
    assert (first.kind, first.body, last.kind) == (Kind.CHUNK, b'data: "/f"\n\n', Kind.END)


# ---- wrapped answers


def wrapped(frame: Frame) -> tuple[int, Any]:
    """Status and content."""
    assert (frame.kind, frame.codec & ~FLAG_NAN) == (Kind.RESPONSE, Codec.JSON)
    return frame.number, json.loads(frame.body)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", list(CallKind))
@on_a_loop
async def test_an_answer_is_wrapped_whatever_gives_it_and_comes_whole(
    kind: CallKind, threads: int
) -> None:
    async def coroutine(inputs: Any) -> Any:
        return inputs["n"]

    def generator(inputs: Any) -> Iterator[Any]:
        yield from (0, inputs["n"])

    async def async_generator(inputs: Any) -> AsyncIterator[Any]:
        for n in (0, inputs["n"]):
            yield n

    functions = {V: lambda inputs: inputs["n"], C: coroutine, G: generator, A: async_generator}
    rig = Rig(kind, functions[kind], threads=threads)
    rig.ask(1, b'{"n": 3}', codec=FLAG_WRAPPED)
    rig.ask(2, b'{"n": 4}', codec=FLAG_WRAPPED, stream=True)
    rig.ask(3, b"n=5", codec=FLAG_WRAPPED | Codec.QUERY)
    rig.ask(4, gzip.compress(b'{"n": 6}'), codec=FLAG_WRAPPED | FLAG_GZIP)
    rig.ask(5, b'{"n": 7}')
    frames = sorted(await rig.answers(5), key=lambda frame: frame.rid)
    assert [wrapped(frame) for frame in frames[:4]] == [
        (200, {"message": "SUCCESS", "code": 0, "data": {"result": n}}) for n in (3, 4, 5, 6)
    ]
    assert frames[4].body == b'{"result":7}'


@pytest.mark.parametrize("kind", list(CallKind))
@on_a_loop
async def test_what_goes_wrong_is_wrapped_with_its_status_and_what_else_it_tells(
    kind: CallKind, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(kind, raising(kind, RuntimeError("secret")))
    rig.ask(1, b'{"n": "x"}', codec=FLAG_WRAPPED)
    rig.ask(2, codec=FLAG_WRAPPED)
    rig.ask(3, codec=FLAG_WRAPPED, number=9)
    by_rid = {frame.rid: wrapped(frame) for frame in await rig.answers(3)}
    status, refused = by_rid[1]
    assert (status, refused["code"], refused["data"], refused["field"]) == (400, 400, None, "n")
    assert refused["message"].startswith("n: got ")
    status, failed = by_rid[2]
    assert (status, failed["code"], failed["data"]) == (500, 500, None)
    assert failed["id"] in capsys.readouterr().err
    assert "secret" not in str(failed)
    missing = {"message": "this worker has no such command", "code": 404, "data": None}
    assert by_rid[3] == (404, missing)


@on_a_loop
async def test_of_a_batch_each_gets_its_answer_the_way_it_asked_for_it() -> None:
    def function(items: list[dict[str, Any]]) -> list[Any]:
        return [1 / item["n"] for item in items]

    rig = Rig(V, function, batch=Batch(max_size=4, max_wait_ms=1000))
    rig.ask(1, b'{"n": 2}', codec=FLAG_WRAPPED)
    rig.ask(2, b'{"n": 4}')
    rig.ask(3, b'{"n": 0}', codec=FLAG_WRAPPED)
    rig.ask(4, b'{"n": "x"}', codec=FLAG_WRAPPED)
    frames = await rig.answers(4)
    assert wrapped(frames[0]) == (200, {"message": "SUCCESS", "code": 0, "data": {"result": 0.5}})
    assert frames[1].body == b'{"result":0.25}'
    assert [wrapped(frame)[1]["code"] for frame in frames[2:]] == [500, 400]


@on_a_loop
async def test_a_request_with_its_head_is_wrapped_too() -> None:
    rig = Rig(V, lambda request: request.query, with_request=True)
    rig.ask(1, with_meta("n=3", b""), kind=Kind.REQUEST_WITH_META, codec=FLAG_WRAPPED)
    (answer,) = await rig.answers(1)
    assert wrapped(answer) == (200, {"message": "SUCCESS", "code": 0, "data": "n=3"})


@on_a_loop
async def test_a_wrapped_answer_too_large_to_send_is_a_wrapped_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelcloud.dataplane.gateway_link.MAX_ANSWER", 1000)
    rig = Rig(V, lambda _: "x" * 2000)
    rig.ask(codec=FLAG_WRAPPED)
    status, answer = wrapped(rig.frames()[0])
    assert (status, answer["code"], answer["data"]) == (500, 500, None)


# ---- counting


@pytest.mark.parametrize("threads", [1, 2])
@on_a_loop
async def test_calls_of_many_and_the_requests_in_them_are_counted(threads: int) -> None:
    rig = Rig(V, lambda items: [0] * len(items), threads=threads,
              batch=Batch(max_size=3, max_wait_ms=1000))  # fmt: skip
    assert rig.executor.batch_counts == (0, 0)
    for rid in range(1, 7):
        rig.ask(rid)
    await rig.answers(6)
    rig.ask(7, number=1)  # takes one request at a time, and does not count
    await rig.answers(1)
    assert rig.executor.batch_counts == (2, 6)


# ---- held, so that a model may be given other options


class Slow:
    """A function that runs until it is told to end, on a thread or as a coroutine."""

    def __init__(self) -> None:
        self.runs = 0
        self.ends = threading.Event()

    def call(self, _: Any) -> int:
        self.runs += 1
        self.ends.wait(30)
        return self.runs

    async def wait(self, _: Any) -> int:
        self.runs += 1
        await until(self.ends.is_set)
        return self.runs


@pytest.mark.parametrize("kind", [V, C])
@on_a_loop
async def test_while_held_calls_that_run_end_none_begins_and_all_are_answered_after(
    kind: CallKind,
) -> None:
    slow = Slow()
    rig = Rig(kind, slow.call if kind is V else slow.wait, threads=3 if kind is V else 1)
    rig.ask(1)
    await until(lambda: slow.runs)
    holding = asyncio.ensure_future(rig.executor.hold(30))
    await settle()
    rig.ask(2, number=1)
    rig.ask(3)
    await settle()
    assert (holding.done(), slow.runs, rig.frames()) == (False, 1, [])
    slow.ends.set()
    assert await holding
    assert [frame.rid for frame in rig.frames()] == [1]
    rig.ask(4, number=1)
    await settle()
    assert (slow.runs, rig.frames()) == (1, [])
    rig.executor.release()
    assert {frame.rid for frame in await rig.answers(3)} == {2, 3, 4}


@on_a_loop
async def test_a_call_that_does_not_end_in_time_is_not_waited_for_and_nothing_stays_held() -> None:
    slow = Slow()
    rig = Rig(C, slow.wait)
    rig.ask(1)
    await until(lambda: slow.runs)
    assert not await rig.executor.hold(0.01)
    rig.ask(2, number=1)
    assert [frame.rid for frame in await rig.answers(1)] == [2]
    slow.ends.set()
    assert [frame.rid for frame in await rig.answers(1)] == [1]


@on_a_loop
async def test_a_batch_waits_for_the_release_too() -> None:
    rig = Rig(V, lambda items: [len(items)] * len(items), batch=Batch(max_size=4, max_wait_ms=1))
    assert await rig.executor.hold(30)
    for rid in (1, 2, 3):
        rig.ask(rid)
    await asyncio.sleep(0.01)
    assert rig.frames() == []
    rig.executor.release()
    assert {json.loads(frame.body)["result"] for frame in await rig.answers(3)} == {3}
