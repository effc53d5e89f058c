"""What the node, the bridge to a cluster and the replicas there tell each other about workers.

Must never: carry a prediction. The framing is that of `dataplane.messages`; a worker's own
messages travel as they are, inside `Tell` and `Told`.
"""

from __future__ import annotations

from typing import TypeAlias

from modelcloud.dataplane.messages import Message
from modelcloud.types import GenerationSpec

# ---- node → bridge


class StartBridge(Message):
    """First message to a bridge.

    Attributes:
        address: of the cluster, as `ray.init` takes it.
        http_port: for the cluster's own HTTP addresses, if they are not there yet.
        secret: the platform's; that of each application follows from it.
        state: a file that keeps the port at which replicas find the bridge, from one to the next.
    """

    address: str
    http_port: int
    secret: str
    state: str


class Finish(Message):
    """The platform ends: leave no application behind, then exit with status 0."""


# ---- node → bridge → replica


class Begin(Message):
    """Have a replica of the application become this worker; repeated to a bridge that is new.

    Attributes:
        app: name of the application, which has the replicas of one generation.
        variables: for the worker's environment.
        confine: whether it is kept from the platform's files and from other processes.
        env_timeout_s: for building its environment.
    """

    worker: int
    app: str
    spec: GenerationSpec
    variables: dict[str, str]
    confine: bool = False
    env_timeout_s: float = 900.0


class Tell(Message):
    """Pass a message (`dataplane.messages.ToWorker`, framed) on to the worker."""

    worker: int
    body: bytes


class Signal(Message):
    """Send the worker a signal; SIGKILL goes to all that it started too."""

    worker: int
    number: int


# ---- replica → bridge → node


class Told(Message):
    """The worker said this (`dataplane.messages.FromWorker`, framed)."""

    worker: int
    body: bytes


class Output(Message):
    """The worker, or what prepares for it, wrote this."""

    worker: int
    data: bytes


class Used(Message):
    """What the worker uses, with what it started: resident bytes, processor seconds."""

    worker: int
    memory: int
    cpu_s: float


class Leaving(Message):
    """Its replica is to leave this place of the cluster: another one is needed, then it may end."""

    worker: int


class Ended(Message):
    """The worker is gone, and how; nothing more comes from it."""

    worker: int
    how: str


# ---- bridge → node


class ClusterState(Message):
    """Whether the cluster can be reached now; `error` says why not."""

    error: str = ""


# ---- replica ↔ bridge


class Arrived(Message):
    """First message of a replica: what it is, and which worker it already is (0: none)."""

    app: str
    replica: str
    worker: int = 0


class Fetch(Message):
    """Send the artifact that the worker needs."""

    worker: int


class Piece(Message):
    """Bytes that follow those before of a file of the artifact."""

    path: str
    data: bytes


class Whole(Message):
    """All of the artifact was sent, or `error` says why not."""

    error: str = ""


ToBridge: TypeAlias = StartBridge | Begin | Tell | Signal | Finish
FromBridge: TypeAlias = Told | Output | Used | Leaving | Ended | ClusterState
ToReplica: TypeAlias = Begin | Tell | Signal | Piece | Whole
FromReplica: TypeAlias = Arrived | Fetch | Told | Output | Used | Leaving | Ended
