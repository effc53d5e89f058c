"""A client's connection: order, limits and endings, whatever comes between."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from typing import Any

import pytest

from modelcloud.dataplane.answers import SMALL_BODY
from modelcloud.dataplane.frames import STREAM_WINDOW, Kind
from modelcloud.dataplane.messages import AdminRequest
from support.gateway_rig import STREAM, Rig, credit_of, get, post, settle
from support.loops import on_a_loop

LARGE = b" " * (SMALL_BODY * 2)
CHUNKED = b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (
    b"10000\r\n%b\r\n" % (b" " * 65536)
)


# ---- order


@on_a_loop
async def test_answers_of_every_kind_leave_in_the_order_of_their_requests() -> None:
    rig = Rig()
    worker = rig.worker(credit=8)
    rig.switch(worker)
    client = rig.client()
    client.send(
        post() + get("/meta") + post("/flow", b"{}", STREAM) + get("/nowhere") + get("/healthz")
        + b"NONSENSE\r\n\r\n"
    )  # fmt: skip
    await settle()
    ask, flow = worker.frames()
    worker.piece(flow.rid, b"data: 1\n\n")
    rig.answer_admin(body=b'{"meta":1}')
    worker.end(flow.rid)
    assert client.got == b""
    worker.answer(ask.rid)
    assert client.statuses == [200, 200, 200, 404, 200, 400]
    assert client.got.index(b"meta") < client.got.index(b"data: 1") < client.got.index(b"nothing")
    assert client.transport.eof


@on_a_loop
async def test_a_stream_that_waited_its_turn_goes_on_when_it_is_first() -> None:
    """What it gave while it waited was taken off its window, and must be given back."""
    rig = Rig()
    worker = rig.worker(credit=8)
    rig.switch(worker)
    client = rig.client()
    client.send(post() + post("/flow", b"{}", STREAM))
    await settle()
    ask, flow = worker.frames()
    worker.piece(flow.rid, b"x" * STREAM_WINDOW)
    await settle()
    assert credit_of(worker.frames()) == 0
    worker.answer(ask.rid)
    await settle()
    assert credit_of(worker.frames()) == STREAM_WINDOW
    worker.end(flow.rid)
    assert client.statuses == [200, 200]
    assert client.got.endswith(b"0\r\n\r\n")


@on_a_loop
async def test_a_stream_that_breaks_before_its_turn_is_an_error_of_its_own() -> None:
    rig = Rig()
    worker, other = rig.worker(1), rig.worker(2)
    rig.switch(worker)
    client = rig.client()
    client.send(post())
    await settle()
    (ask,) = worker.frames()
    rig.switch(worker, other)
    client.send(post("/flow", b"{}", STREAM))
    await settle()
    (flow,) = other.frames()
    other.piece(flow.rid, b"data: 1\n\n")
    other.transport.abort()
    await settle()
    worker.answer(ask.rid)
    assert client.statuses == [200, 502]
    assert b"data: 1" not in client.got
    assert not client.transport.closing


@on_a_loop
async def test_a_stream_that_breaks_halfway_ends_the_connection_after_what_was_sent() -> None:
    rig = Rig()
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(post("/flow", b"{}", STREAM))
    await settle()
    (flow,) = worker.frames()
    client.transport.stalled = True
    worker.piece(flow.rid, b"data: 1\n\n")
    worker.transport.abort()
    await settle()
    assert client.transport.closing
    assert not client.transport.aborted  # what is in the buffer still goes out
    client.transport.take()
    assert client.got.endswith(b"data: 1\n\n\r\n")


@on_a_loop
async def test_head_never_streams() -> None:
    """A body after the answer to HEAD would be read as the next answer."""
    rig = Rig()
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(get("/flow?n=3", STREAM, method="HEAD"))
    await settle()
    (flow,) = worker.frames()
    worker.answer(flow.rid, b'{"i":2}')
    assert flow.codec & 0x80 == 0
    assert client.got.endswith(b"\r\n\r\n")
    assert b"content-length: 7" in client.got


# ---- upgrades, versions


@pytest.mark.parametrize("framing", [b"Content-Length: 7", b"Transfer-Encoding: chunked"])
@on_a_loop
async def test_a_body_behind_an_offer_to_upgrade_is_not_lost(framing: bytes) -> None:
    """Java's client offers HTTP/2 so with its first request."""
    rig = Rig()
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    body = b'{"n":1}' if b"Length" in framing else b'7\r\n{"n":1}\r\n0\r\n\r\n'
    request = (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAEA\r\n" + framing + b"\r\n\r\n" + body
    )
    for byte in request:
        client.send(bytes([byte]))
    client.send(request + post())
    await settle()
    first, second = worker.frames()
    assert first.body == second.body == b'{"n":1}'
    worker.answer(first.rid)
    worker.answer(second.rid)
    await settle()
    (third,) = worker.frames()
    worker.answer(third.rid)
    assert client.statuses == [200, 200, 200]


@on_a_loop
async def test_many_upgrades_in_one_read_are_answered_one_by_one() -> None:
    rig = Rig(pipeline=5000)
    client = rig.client()
    client.send(get("/healthz", b"Connection: upgrade", b"Upgrade: websocket") * 2000)
    assert client.statuses == [200] * 2000


@on_a_loop
async def test_connect_is_refused() -> None:
    client = Rig().client()
    client.send(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n\x16\x03\x01")
    assert client.statuses == [400]
    assert client.transport.eof


@on_a_loop
async def test_what_http_1_0_does_not_know_is_not_done_to_it() -> None:
    rig = Rig()
    client = rig.client()
    client.send(b"POST /ask HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert client.got == b""
    client = rig.client()
    client.send(b"POST /ask HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
    assert client.statuses == [400]


# ---- leaving


@on_a_loop
async def test_what_a_worker_has_is_answered_after_a_half_close_what_waits_is_not() -> None:
    rig = Rig()
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(post() * 3)
    await settle()
    one, two = worker.frames()
    assert client.connection.eof_received() is True
    worker.answer(two.rid)
    worker.answer(one.rid)
    assert client.statuses == [200, 200, 400]
    assert client.transport.closing


@on_a_loop
async def test_waiting_requests_before_one_in_a_worker_do_not_end_the_connection_early() -> None:
    rig = Rig()
    client = rig.client()
    client.send(post())
    rig.pool.available = True
    client.send(get("/meta"))
    assert client.connection.eof_received() is True
    assert not client.transport.closing
    rig.answer_admin()
    assert client.statuses == [400, 200]
    assert client.transport.closing


@on_a_loop
async def test_tls_has_no_half_close() -> None:
    rig = Rig(tls=True)
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.send(post())
    assert client.connection.eof_received() is False


@on_a_loop
async def test_a_client_that_leaves_takes_its_waiting_request_and_the_body_with_it() -> None:
    """Dead entries would fill the queue for the living, and hold their bodies."""
    rig = Rig(queue=1)
    gone = rig.client()
    gone.send(post("/ask", LARGE))
    assert rig.hub.buffered == len(LARGE)
    gone.transport.abort()
    await settle()
    assert (len(rig.pool.queue), rig.hub.buffered) == (0, 0)
    rig.client().send(post())
    assert len(rig.pool.queue) == 1


@on_a_loop
async def test_a_client_that_leaves_cancels_what_a_worker_has_and_is_counted_once() -> None:
    rig = Rig()
    worker = rig.worker()
    rig.switch(worker)
    gone = rig.client()
    gone.send(post() + post("/flow", b"{}", STREAM))
    await settle()
    ask, flow = worker.frames()
    worker.piece(flow.rid, b"data: 1\n\n")
    gone.transport.abort()
    await settle()
    assert [(f.kind, f.rid) for f in worker.frames()] == [
        (Kind.CANCEL, ask.rid),
        (Kind.CANCEL, flow.rid),
    ]
    worker.answer(ask.rid)
    worker.end(flow.rid, 499)
    assert worker.link.inflight == {}
    assert worker.link.free == worker.link.credit
    stats = {command.command: command.by_status for command in rig.hub.stats(1).commands}
    assert stats["ask"] == stats["flow"] == {499: 1}


@on_a_loop
async def test_a_client_that_leaves_an_admin_request_is_not_answered() -> None:
    rig = Rig()
    client = rig.client()
    client.send(get("/meta"))
    client.transport.abort()
    await settle()
    rig.answer_admin()
    assert client.got == b""


@on_a_loop
async def test_an_admin_answer_that_cannot_be_sent_is_an_error_of_its_own() -> None:
    rig = Rig()
    client = rig.client()
    client.send(get("/meta"))
    rig.answer_admin(headers=[("x-name", "a\r\nset-cookie: b")])
    assert client.statuses == [500]
    assert b"set-cookie" not in client.got


# ---- limits


@on_a_loop
async def test_pipelined_requests_beyond_the_limit_wait_unsubmitted() -> None:
    rig = Rig(pipeline=4, queue=100)
    client = rig.client()
    client.send(post() * 50)
    assert len(rig.pool.queue) == 4
    assert client.transport.paused_reading
    worker = rig.worker()
    rig.switch(worker)
    while len(client.statuses) < 50:
        await settle()
        assert len(rig.pool.queue) + len(worker.link.inflight) <= 4
        for frame in worker.frames():
            worker.answer(frame.rid)
    assert client.statuses == [200] * 50
    assert not client.transport.paused_reading


@on_a_loop
async def test_a_client_that_takes_answers_again_is_read_only_when_few_are_owed() -> None:
    rig = Rig(pipeline=4)
    client = rig.client()
    client.send(post() * 4)
    assert client.transport.paused_reading
    client.connection.pause_writing()
    client.connection.resume_writing()
    assert client.transport.paused_reading


@on_a_loop
async def test_clients_too_many_are_told_and_take_no_place() -> None:
    rig = Rig(connections=1)
    first, second = rig.client(), rig.client()
    assert second.statuses == [503]
    assert rig.hub.connections == {first.connection}
    first.transport.close()
    await settle()
    third = rig.client()
    third.send(get("/healthz"))
    assert third.statuses == [200]


@on_a_loop
async def test_a_flood_of_clients_too_many_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelcloud.dataplane.http.MAX_TURNED_AWAY", 3)
    rig = Rig(connections=1)
    clients = [rig.client() for _ in range(10)]
    assert sum(client.transport.aborted for client in clients) == 6
    await settle()
    assert len(rig.hub.connections) + len(rig.hub.turned_away) == 4


@on_a_loop
async def test_trailers_and_chunk_extensions_have_a_limit() -> None:
    for endless in (b"0\r\nX-Trailer: ", b"2;extension="):
        client = Rig(head=1000).client()
        client.send(b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"1\r\n{\r\n" + endless)
        for _ in range(10):
            client.send(b"x" * 500)
        assert client.statuses == [431]


@on_a_loop
async def test_tiny_chunks_take_no_more_memory_than_their_bytes() -> None:
    client = Rig().client()
    client.send(b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = b"2\r\n[]\r\n" * 5_000
    tracemalloc.start()
    try:
        for _ in range(20):
            client.send(chunks)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.connection.size == 200_000
    assert held < 4 * client.connection.size


# ---- slow readers


@on_a_loop
async def test_a_slow_reader_is_kept_as_long_as_it_takes_something() -> None:
    rig = Rig(idle_timeout_s=10)
    worker = rig.worker()
    rig.switch(worker)
    client = rig.client()
    client.transport.stalled = True
    client.send(post())
    await settle()
    worker.answer(worker.frames()[0].rid, b"x" * 1_000_000)
    assert rig.hub.buffered >= 1_000_000
    now = client.connection.since
    for _ in range(30):
        now += 8
        client.transport.take(10_000)
        client.connection.check_time(now)
    assert not client.transport.aborted
    client.connection.check_time(now + 11)
    assert client.transport.lost
    await settle()
    assert rig.hub.buffered == 0


@pytest.mark.parametrize("keep", [b"", b"Connection: close"])
@on_a_loop
async def test_a_client_that_never_takes_the_last_bytes_is_let_go(keep: bytes) -> None:
    """They are too few to pause writing, so nothing else would ever end this connection."""
    rig = Rig(idle_timeout_s=10)
    client = rig.client()
    client.transport.stalled = True
    client.send(get("/healthz", keep) if keep else get("/healthz"))
    now = client.connection.since
    for _ in range(3):
        now += 11
        client.connection.check_time(now)
    await settle()
    assert client.transport.lost
    assert not rig.hub.connections


@on_a_loop
async def test_a_refusal_waits_for_the_answers_before_it_to_be_taken() -> None:
    rig = Rig(idle_timeout_s=10)
    client = rig.client()
    client.transport.stalled = True
    client.send(get("/healthz") + b"NONSENSE\r\n\r\n")
    assert client.transport.eof
    client.connection.check_time(client.connection.since + 5)
    assert not client.transport.aborted
    client.transport.take()
    client.connection.check_time(client.connection.since + 5)
    assert client.transport.aborted


@on_a_loop
async def test_answers_that_nobody_takes_are_limited_over_all_clients() -> None:
    rig = Rig(buffered=3_000_000)
    worker = rig.worker(credit=8)
    rig.switch(worker)
    clients = [rig.client() for _ in range(5)]
    for client in clients:
        client.transport.stalled = True
        client.send(post())
    await settle()
    for frame in worker.frames():
        worker.answer(frame.rid, b"x" * 1_000_000)
    await settle()
    assert [client.transport.aborted for client in clients] == [False, False, True, True, True]
    assert 0 < rig.hub.buffered <= 3_000_000


# ---- what must hold whatever happens


class Chaos:
    """Clients, workers and the clock, doing at random what they may."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rig = Rig(
            tls=self.random.random() < 0.3,
            pipeline=4,
            queue=6,
            buffered=SMALL_BODY * 20,
            body=SMALL_BODY * 8,
            connections=6,
        )
        self.number = 0
        self.workers: list[Any] = []
        self.clients: list[Any] = []
        self.outbox: dict[Any, bytes] = {}
        self.open: dict[Any, set[int]] = {}
        self.admin = 0

    def requests(self) -> bytes:
        choices = [
            post(), post("/once"), post("/flow", b"{}", STREAM), get("/healthz"), get("/meta"),
            get("/nowhere"), get("/flow?n=1", STREAM, method="HEAD"), post("/ask", LARGE),
            post("/ask", b"{}", b"Expect: 100-continue"), get("/ask?a=1"),
            get("/healthz", b"Connection: upgrade", b"Upgrade: x"),
            post("/ask", b"{}", b"Connection: close"), b"JUNK\r\n\r\n",
            CHUNKED,
        ]  # fmt: skip
        weights = [8, 3, 6, 3, 3, 2, 1, 4, 1, 2, 1, 1, 0.3, 2]
        return b"".join(self.random.choices(choices, weights, k=self.random.randint(1, 9)))

    def step(self) -> None:
        pick = self.random
        if len(self.clients) < 9 and pick.random() < 0.3:
            client = self.rig.client()
            client.transport.stalled = pick.random() < 0.5
            self.clients.append(client)
            self.outbox[client] = b""
        for client in list(self.clients):
            self._client(client)
        if pick.random() < 0.1 or not self.workers:
            self.number += 1
            self.workers.append(self.rig.worker(self.number, generation=self.number))
            self.workers = self.workers[-3:]
            alive = [worker for worker in self.workers if not worker.transport.lost]
            self.rig.switch(*pick.sample(alive, pick.randint(0, len(alive))))
        for worker, rids in list(self.open.items()):
            self._answers(worker, rids)
        for worker in self.workers:
            rids = self.open.setdefault(worker, set())
            rids |= {f.rid for f in worker.frames() if f.kind == Kind.REQUEST}
            if pick.random() < 0.02:
                worker.transport.abort()
        asked = [m for m in self.rig.told if isinstance(m, AdminRequest)]
        if len(asked) > self.admin and pick.random() < 0.5:
            self.rig.answer_admin(self.admin, body=b"m" * pick.choice([2, 100_000]))
            self.admin += 1

    def _client(self, client: Any) -> None:
        pick, transport = self.random, client.transport
        if transport.lost:
            self.clients.remove(client)
            return
        if not self.outbox[client] and pick.random() < 0.4:
            self.outbox[client] = self.requests()
        if self.outbox[client] and not transport.paused_reading:
            size = pick.choice([1, 20, 200, 5000, 100_000])
            client.send(self.outbox[client][:size])
            self.outbox[client] = self.outbox[client][size:]
        if transport.buffered and pick.random() < 0.5:
            transport.take(pick.choice([1000, 100_000, None]))
        if pick.random() < 0.02:
            transport.abort()
        elif pick.random() < 0.02 and not transport.closing:
            if not client.connection.eof_received():
                transport.close()
        elif pick.random() < 0.1:
            client.connection.check_time(client.connection.since + pick.choice([1, 3, 80]))

    def _answers(self, worker: Any, rids: set[int]) -> None:
        pick = self.random
        for rid in list(rids):
            if worker.transport.lost:
                rids.clear()
                return
            what = pick.random()
            if what < 0.3:
                worker.answer(rid, b"a" * pick.choice([2, 1000, 150_000]), pick.choice([200, 500]))
                rids.discard(rid)
            elif what < 0.5:
                worker.piece(rid, b"p" * pick.choice([0, 10, 30_000]))
            elif what < 0.6:
                worker.end(rid, pick.choice([200, 499]))
                rids.discard(rid)

    def check(self) -> None:
        hub, connections = self.rig.hub, {c.connection for c in self.clients}
        held = 0
        for connection in connections:
            held += connection.accounted + connection.untaken
            held += sum(exchange.accounted for exchange in connection.pending)
            assert connection.accounted >= 0
            unparked = len(connection.pending) - len(connection.parked)
            assert unparked <= hub.limits.pipeline + 1
        assert hub.buffered == held
        assert len(hub.connections) <= hub.limits.connections
        for exchange in self.rig.pool.queue:
            assert not exchange.finished
            assert exchange.connection is not None
        for worker in self.workers:
            link = worker.link
            assert link.free <= max(0, link.credit - len(link.inflight))


@pytest.mark.parametrize("seed", range(60))
@on_a_loop
async def test_nothing_leaks_and_nothing_is_counted_twice_whatever_happens(seed: int) -> None:
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    chaos = Chaos(seed)
    for _ in range(300):
        chaos.step()
        await asyncio.sleep(0)
        chaos.check()
    for client in chaos.clients:
        client.transport.abort()
    await settle()
    hub = chaos.rig.hub
    assert (hub.buffered, len(hub.connections), len(hub.turned_away)) == (0, 0, 0)
    assert not chaos.rig.pool.queue
    for worker, rids in chaos.open.items():
        rids |= {frame.rid for frame in worker.frames() if frame.kind == Kind.REQUEST}
        for rid in [] if worker.transport.lost else rids:
            worker.end(rid, 499)
        assert not worker.link.inflight
    assert not failures
