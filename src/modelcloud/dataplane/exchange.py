"""One request and its answer: what travels between a client's connection and the pool.

Must never: parse or route. It is created per request, so it holds only slots and plain methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelcloud.codecs import predict
from modelcloud.codecs.media import FLAG_WRAPPED, Codec
from modelcloud.dataplane import responses
from modelcloud.dataplane.frames import Kind

if TYPE_CHECKING:
    from modelcloud.dataplane.answers import OrderedAnswers
    from modelcloud.dataplane.dispatch import Waiting
    from modelcloud.dataplane.link import WorkerLink
    from modelcloud.dataplane.metrics import Counters
    from modelcloud.dataplane.router import RequestHead
    from modelcloud.dataplane.shadow import Comparison


_REQUEST = int(Kind.REQUEST)  # once: an enumeration's attributes are slow
_SITE = int(Codec.SITE)


class Exchange:
    """A request from its last byte until its answer is written, or nobody waits for it.

    Attributes:
        connection: where the answer goes; None once the client is gone.
        arrived: monotonic seconds when the request was complete.
        deadline: monotonic seconds until which an answer, or the next piece of it, must have come.
        head: header lines for its answer that depend on the request (CORS, `connection`).
        finished: an answer was given, or the client left; whatever comes later is dropped.
        out: pieces of the answer that wait for answers before it on the connection (pipelining).
        ended: `out` is the rest of the answer.
        unsent: bytes of a streamed answer that the client has not taken yet.
        asked: the request's head; only where what chooses its pool or its worker looks into it.
        key: what `consistent_hash` chooses the worker by; empty without one.
        queue: the one it waits in, or waited in last; `queued` is since when, monotonic seconds.
        link: the worker that has it, under the number `rid`.
        tries: workers it was given to.
        accounted: bytes counted against the gateway's limit for bytes held.
        log: method and path for the access log; None without one.
        comparison: wants to know the answer, because a copy of the request went elsewhere.
    """

    #: Whether it is such a copy, with no client behind it.
    is_copy = False

    rid: int
    queued: float
    asked: RequestHead

    __slots__ = (
        "accounted",
        "arrived",
        "asked",
        "body",
        "codec",
        "command",
        "comparison",
        "connection",
        "counters",
        "deadline",
        "ended",
        "finished",
        "head",
        "head_only",
        "idempotent",
        "key",
        "kind",
        "link",
        "log",
        "out",
        "queue",
        "queued",
        "request_id",
        "rid",
        "streaming",
        "tries",
        "unsent",
    )

    def __init__(
        self,
        connection: OrderedAnswers | None,
        body: bytes,
        arrived: float,
        request_id: bytes,
        head: bytes,
    ) -> None:
        self.connection = connection
        self.body = body
        self.arrived = arrived
        self.request_id = request_id
        self.head = head
        self.command = ""
        self.deadline = 0.0
        self.idempotent = True
        self.codec = 0
        self.kind = _REQUEST
        self.head_only = False
        self.finished = False
        self.ended = False
        self.streaming = False
        self.out: list[bytes] | None = None
        self.unsent = 0
        self.key = b""
        self.queue: Waiting | None = None
        self.link: WorkerLink | None = None
        self.tries = 0
        self.accounted = 0
        self.counters: Counters | None = None
        self.log: tuple[str, str] | None = None
        self.comparison: Comparison | None = None

    def reply(self, model_head: bytes, status: int, codec: int, body: bytes) -> None:
        """Answer with a worker's whole response."""
        connection = self.connection
        if connection is not None and not self.finished:
            if codec == _SITE:
                connection.write_site(self, status, body, model_head)
            else:
                connection.write_answer(self, status, codec, body, model_head)
            if self.comparison is not None:  # only now: the client does not wait for it
                self.comparison.asked(status, body)

    def fail(self, status: int, message: str, *, extra: bytes = b"", **fields: object) -> None:
        """Answer with an error of the gateway's own, or break off an answer already begun."""
        connection = self.connection
        if connection is None or self.finished:
            return
        if self.streaming and not connection.take_back(self):
            connection.break_off(self)
        else:
            if self.codec & FLAG_WRAPPED:
                body = predict.failure(status, {"error": message, **fields})
            else:
                body = responses.error_body(message, **fields)
            connection.write_answer(self, status, Codec.JSON, body, extra)

    def piece(self, model_head: bytes, status: int, codec: int, data: bytes) -> None:
        """Pass on a piece of a streamed answer; the first one starts the response."""
        connection = self.connection
        if connection is None or self.finished:
            return
        if not self.streaming:
            self.streaming = True
            connection.begin_stream(self, status, codec, model_head)
        if data:
            connection.write_piece(self, data)

    def end(self) -> None:
        """The streamed answer is complete."""
        connection = self.connection
        if connection is not None and not self.finished:
            connection.end_stream(self)

    def sent(self, size: int) -> None:
        """So many bytes of the streamed answer are on the way to the client."""
        if self.link is not None:
            self.link.sent(self, size)

    def release(self) -> None:
        """Leave the queue, or have the worker give the request up: nobody waits for its answer."""
        self.body = b""  # a worker that is late with it may hold the exchange for long
        if self.link is not None:
            self.link.release(self)
        elif self.queue is not None:
            self.queue.remove(self)
