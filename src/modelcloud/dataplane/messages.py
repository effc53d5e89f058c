"""What the node and its children tell each other over their inherited control socket.

Must never: carry predictions. One message is a u32 little-endian length and a msgpack'd, tagged
record of this file.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import msgspec

from modelcloud.config import Limits
from modelcloud.dataplane.confinement import Confinement
from modelcloud.types import Dispatch, GenerationSpec, State, Sticky

LENGTH = struct.Struct("<I")
MAX_MESSAGE = 80 * 1024 * 1024


class Message(msgspec.Struct, kw_only=True, tag=True):
    """Base of all messages; the class name is the tag."""


# ---- node → worker


class Load(Message):
    """First message to a worker: become a replica of this generation, listening at `socket`.

    That is a path, or `tcp://host:0` on a cluster, where who calls must hold `secret` and `Ready`
    says which port it became.

    Temporary files that hold what requests sent belong into the folder `files`, which the node
    removes when the worker is gone. With a confinement it is the current folder too.
    """

    spec: GenerationSpec
    worker_id: int
    socket: str
    files: str
    confinement: Confinement | None = None
    secret: str = ""


class Ping(Message):
    """Answer with a Pong at once, from a thread that no model call can hold up."""

    seq: int


class Reconfigure(Message):
    """Take the options of `spec`, which differs in nothing else, between two requests."""

    spec: GenerationSpec


class Stop(Message):
    """Finish what was received, then exit with status 0."""


# ---- worker → node


class Progress(Message):
    """The worker entered `state`: loading, warming, checking."""

    state: State
    detail: str = ""


class Ready(Message):
    """Loaded, warmed and checked; the socket listens, on a cluster at `endpoint`."""

    signature: dict[str, Any]
    load_s: float
    warnings: list[str] = []
    endpoint: str = ""


class LoadFailed(Message):
    """This worker cannot serve. `message` is for the user, `detail` (traceback) for the log."""

    state: State
    message: str
    detail: str = ""
    file: str = ""
    line: int = 0


class Reconfigured(Message):
    """Answer to Reconfigure: these options hold; with an `error`, those before it do.

    Attributes:
        revision: of the options that were to be taken.
        options: all that hold now, in JSON form, defaults among them.
        error: why they were not taken; for the user.
        restored: False: the options before could not be put back either. The worker answers
            nothing more, and is to be ended.
    """

    revision: int
    options: dict[str, Any] = {}
    error: str = ""
    restored: bool = True


class Pong(Message):
    """Answer to Ping.

    Attributes:
        busy_s: how long the running call has lasted; 0 when idle.
        batches: calls of batching commands since the start, and the requests they took together.
    """

    seq: int
    busy_s: float = 0.0
    batches: int = 0
    batched: int = 0


# ---- the route table, node → gateway


class WorkerAddress(msgspec.Struct, frozen=True, array_like=True):
    """Where a worker listens and which generation it is of.

    `socket` is a path, or `tcp://host:port` on a cluster; there the caller proves that it holds
    `secret`.
    """

    id: int
    socket: str
    generation: int
    version: int
    secret: str = ""


class Share(msgspec.Struct, frozen=True, array_like=True):
    """A pool, and its weight beside the other pools of a route (of a shadow: 0 to 1)."""

    pool: str
    weight: float = 1.0


class CommandRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Paths that reach one command.

    Attributes:
        paths: exact paths, percent-decoded.
        command: name of the command as the workers know it.
        shares: the pools its requests go to; one alone gets them all.
        sticky: keeps a client at one of several pools.
        shadows: pools that get a copy of a share of the requests, unless one went there anyway.
        methods: methods that call it; a GET without a query string answers `about` if it is set.
        about: JSON description of the command.
        idempotent: whether a request may be tried again when its worker died.
        streams: whether it can answer as an event stream.
        with_meta: whether the worker wants method, headers and query too.
        whole_site: a web application: it answers every path that is nobody else's, by any method.
        wrapped: answers are `{"message": …, "code": …, "data": …}`, errors among them.
        tokens: name of the token set (`RouteTable.token_sets`) a request must present one of; ""
            for a public route.
    """

    paths: tuple[str, ...]
    command: str
    shares: tuple[Share, ...]
    sticky: Sticky | None = None
    shadows: tuple[Share, ...] = ()
    methods: tuple[str, ...] = ("GET", "POST")
    about: bytes = b""
    idempotent: bool = True
    streams: bool = False
    with_meta: bool = False
    whole_site: bool = False
    wrapped: bool = False
    tokens: str = ""


class AdminRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A path that the node answers; one that ends in `/*` takes one further segment."""

    path: str
    methods: tuple[str, ...]
    yields: bool = False  # to a web application, which has such pages of its own


class PoolRoutes(msgspec.Struct, frozen=True, kw_only=True):
    """One pool: the workers that requests for a deployment, or a part of them, go to.

    Attributes:
        name: unique in the table: the deployment's key, with `@GENERATION` behind it for a
            generation that gets a percentage of its own.
        service: what its counters are labelled with.
        heir: the pool that takes over its waiting requests when it is gone from a later table.
        available: False: no worker and none to come soon, 503 instead of queueing.
    """

    name: str
    service: str
    workers: tuple[WorkerAddress, ...]
    available: bool = True
    heir: str = ""
    dispatch: Dispatch = Dispatch()
    queue: int = 2048
    deadline_s: float = 60.0


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at one listening address: the gateway's own (`port` 0), or a service's port."""

    port: int = 0
    commands: tuple[CommandRoute, ...] = ()
    admin: tuple[AdminRoute, ...] = ()


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """All that a gateway routes by. Replaced as a whole, acknowledged by `snapshot`.

    Attributes:
        sites: the first is that of the gateway's own address.
        token_sets: name → sha256 of each token, in hexadecimal.
        starting: nobody has said yet what is to be reached, so that what is not there may come.
    """

    snapshot: int
    pools: tuple[PoolRoutes, ...] = ()
    sites: tuple[Site, ...] = (Site(),)
    token_sets: dict[str, tuple[str, ...]] = {}
    starting: bool = False


# ---- node → gateway


class StartGateway(Message):
    """First message to a gateway. The listening socket is inherited as `listen_fd`.

    Attributes:
        ports_fd: a unix socket on which the node hands over the listening sockets of ports that
            services have for themselves, each with the port as a message of four bytes (u32,
            little-endian, SCM_RIGHTS); -1: there will be none.
    """

    gateway_id: int
    listen_fd: int
    limits: Limits
    ports_fd: int = -1
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
    last counts the rest. What begins with `shadow` counts copies of requests to other versions, of
    which nothing else here holds anything.

    Attributes:
        queue_sum_s: waiting in the gateway for a worker, of the requests that one was sent.
        shadowed: copies that were answered, or failed once a worker had them.
        shadow_errors: of them, those with a status of 500 or more.
        shadow_same: copies answered with the status and body that the client got, byte for byte.
        shadow_different: those answered otherwise. Neither counts what failed on either side, or
            an answer over 1 MiB.
        last_call_s: since the last call; -1: there was none.
    """

    service: str
    command: str
    version: int
    generation: int
    by_status: dict[int, int] = {}
    buckets: list[int] = []
    shadowed: int = 0
    shadow_errors: int = 0
    shadow_same: int = 0
    shadow_different: int = 0
    shadow_latency_sum_s: float = 0.0
    latency_sum_s: float = 0.0
    queue_sum_s: float = 0.0
    nan_outputs: int = 0
    last_call_s: float = -1.0


class Stats(Message):
    """A gateway's counters.

    Attributes:
        tokens: of those in the table that were presented, by their digests: seconds since the
            last time.
    """

    seq: int
    gateway_id: int
    connections: int
    connections_total: int
    in_flight: int
    queued: dict[str, int]
    rejected: dict[str, int]  # reason → count: queue_full, bad_request, too_large, deadline …
    retried: int
    commands: list[CommandStats]
    tokens: dict[str, float] = {}


class AdminRequest(Message):
    """A request for a path the node answers. `path` is the route's own, after normalising."""

    id: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: str = ""  # its address
    port: int = 0  # the site it came to
    uid: int | None = None  # on a unix socket: the user that the client runs as


class RequestMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to a worker beside the body when its command asks for it."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    scheme: str = "http"
    peer: str = ""


ToWorker: TypeAlias = Load | Ping | Reconfigure | Stop
FromWorker: TypeAlias = Progress | Ready | LoadFailed | Reconfigured | Pong
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
