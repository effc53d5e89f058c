"""What the node and its children tell each other over their inherited control socket.

Must never: carry predictions. One message is a u32 little-endian length and a msgpack'd, tagged
record of this file.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import msgspec

from modelcloud.config import Limits
from modelcloud.types import GenerationSpec, State

LENGTH = struct.Struct("<I")
MAX_MESSAGE = 80 * 1024 * 1024


class Message(msgspec.Struct, kw_only=True, tag=True):
    """Base of all messages; the class name is the tag."""


# ---- node → worker


class Load(Message):
    """First message to a worker: become a replica of this generation, listening at `socket`.

    Temporary files that hold what requests sent belong into the folder `files`, which the node
    removes when the worker is gone.
    """

    spec: GenerationSpec
    worker_id: int
    socket: str
    files: str


class Ping(Message):
    """Answer with a Pong at once, from a thread that no model call can hold up."""

    seq: int


class Stop(Message):
    """Finish what was received, then exit with status 0."""


# ---- worker → node


class Progress(Message):
    """The worker entered `state`: loading, warming, checking."""

    state: State
    detail: str = ""


class Ready(Message):
    """Loaded, warmed and checked; the socket listens."""

    signature: dict[str, Any]
    load_s: float
    warnings: list[str] = []


class LoadFailed(Message):
    """This worker cannot serve. `message` is for the user, `detail` (traceback) for the log."""

    state: State
    message: str
    detail: str = ""
    file: str = ""
    line: int = 0


class Pong(Message):
    """Answer to Ping; `busy_s` is how long the running call has lasted (0 when idle)."""

    seq: int
    busy_s: float = 0.0


# ---- the route table, node → gateway


class WorkerAddress(msgspec.Struct, frozen=True, array_like=True):
    """Where a worker listens and which generation it is of."""

    id: int
    socket: str
    generation: int
    version: int


class CommandRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Paths that reach one command of a service.

    Attributes:
        paths: exact paths, percent-decoded.
        command: name of the command as the worker knows it.
        methods: methods that call it; a GET without a query string answers `about` if it is set.
        about: JSON description of the command.
        idempotent: whether a request may be tried again when its worker died.
        streams: whether it can answer as an event stream.
        with_meta: whether the worker wants method, headers and query too.
        whole_site: a web application: it answers every path that is nobody else's, by any method.
    """

    service: str
    paths: tuple[str, ...]
    command: str
    methods: tuple[str, ...] = ("GET", "POST")
    about: bytes = b""
    idempotent: bool = True
    streams: bool = False
    with_meta: bool = False
    whole_site: bool = False


class AdminRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A path that the node answers; one that ends in `/*` takes one further segment."""

    path: str
    methods: tuple[str, ...]
    yields: bool = False  # to a web application, which has such pages of its own


class ServiceRoutes(msgspec.Struct, frozen=True, kw_only=True):
    """One service: its commands and the workers that answer them now."""

    name: str
    commands: tuple[CommandRoute, ...]
    workers: tuple[WorkerAddress, ...]
    available: bool = True  # False: no worker and none to come soon, 503 instead of queueing
    queue: int = 2048
    deadline_s: float = 60.0


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """All that a gateway routes by. Replaced as a whole, acknowledged by `snapshot`."""

    snapshot: int
    services: tuple[ServiceRoutes, ...] = ()
    admin: tuple[AdminRoute, ...] = ()


# ---- node → gateway


class StartGateway(Message):
    """First message to a gateway. The listening socket is inherited as `listen_fd`."""

    gateway_id: int
    listen_fd: int
    limits: Limits
    cors: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    access_log: str = ""  # a file; empty for none
    runenv: str = "prod"


class Publish(Message):
    """Take this table. Answered by Published once new requests follow it."""

    table: RouteTable


class StatsRequest(Message):
    """Answer with Stats."""

    seq: int


class DrainGateway(Message):
    """Accept no more, answer what is under way, exit 0; after `deadline_s` exit all the same."""

    deadline_s: float


class AdminResponse(Message):
    """The node's answer to an AdminRequest."""

    id: int
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = []


# ---- gateway → node


class Listening(Message):
    """The gateway accepts connections."""


class Published(Message):
    """New requests follow table `snapshot`; `unreachable` lists workers that took no connection."""

    snapshot: int
    unreachable: list[int] = []


class Idle(Message):
    """No answer is awaited any more from these workers, which the table no longer names."""

    workers: list[int]


class WorkerOverdue(Message):
    """A request inside this worker passed its deadline `overdue_s` ago and is not answered."""

    worker_id: int
    overdue_s: float


class CommandStats(msgspec.Struct, kw_only=True):
    """Counters of one (service, command, generation) since the gateway started. Times in seconds.

    `buckets[i]` counts latencies up to `metrics.BUCKETS[i]` and over the bound before it; the
    last counts the rest.
    """

    service: str
    command: str
    version: int
    generation: int
    by_status: dict[int, int] = {}
    buckets: list[int] = []
    latency_sum_s: float = 0.0
    nan_outputs: int = 0
    last_call_s: float = -1.0  # seconds since the last call


class Stats(Message):
    """A gateway's counters."""

    seq: int
    gateway_id: int
    connections: int
    connections_total: int
    in_flight: int
    queued: dict[str, int]
    rejected: dict[str, int]  # reason → count: queue_full, bad_request, too_large, deadline …
    retried: int
    commands: list[CommandStats]


class AdminRequest(Message):
    """A request for a path the node answers. `path` is the route's own, after normalising."""

    id: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: str = ""  # its address
    uid: int | None = None  # on a unix socket: the user that the client runs as


class RequestMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to a worker beside the body when its command asks for it."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    scheme: str = "http"
    peer: str = ""


ToWorker: TypeAlias = Load | Ping | Stop
FromWorker: TypeAlias = Progress | Ready | LoadFailed | Pong
ToGateway: TypeAlias = StartGateway | Publish | StatsRequest | DrainGateway | AdminResponse
FromGateway: TypeAlias = Listening | Published | Idle | WorkerOverdue | Stats | AdminRequest

_encode = msgspec.msgpack.Encoder().encode


def encode(message: Message) -> bytes:
    """Frame one message."""
    body = _encode(message)
    return LENGTH.pack(len(body)) + body


class MessageReader:
    """Cuts a byte stream into messages of one of the unions above.

    Raises:
        ValueError: an announced length is over `MAX_MESSAGE`.
        msgspec.ValidationError: a body is none of the union.
    """

    def __init__(self, union: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(union)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Add bytes; return the messages that are now whole."""
        buffer = self._buffer
        buffer += data
        out: list[Any] = []
        offset = 0
        while len(buffer) - offset >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, offset)
            if length > MAX_MESSAGE:
                raise ValueError(f"a control message of {length} bytes")
            end = offset + LENGTH.size + length
            if len(buffer) < end:
                break
            out.append(self._decoder.decode(bytes(buffer[offset + LENGTH.size : end])))
            offset = end
        del buffer[:offset]
        return out
