"""What the control plane and its node tell each other, over the control plane's inherited socket.

Must never: carry a prediction. The framing is that of `dataplane.messages`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from modelcloud.config import PlatformConfig
from modelcloud.dataplane.messages import AdminRequest, AdminResponse, Message, Stats
from modelcloud.types import Desired, Observed, Routing

#: Seconds between two signs of life of a control plane.
ALIVE_S = 5.0

# ---- control plane → node


class Want(Message):
    """Make this so for one deployment."""

    desired: Desired


class Route(Message):
    """Reach the services like this; answered with Routed."""

    seq: int
    routing: Routing


class CountersRequest(Message):
    """Answer with Counters."""

    seq: int


class Answering(Message):
    """The API answers."""


class Alive(Message):
    """Sent every `ALIVE_S`, whatever there is to say: the control plane has not come to a stop."""


# ---- node → control plane


class Standing(Message):
    """First message to a control plane: what the node is. `Seen` of each deployment follows.

    Attributes:
        config: the settings of the whole; they travel here and not in argv, for the database's
            address may hold a password.
        port: where its gateways listen, which matters when the settings say 0.
        listen_fd: the inherited socket of the control plane's own address. The node keeps it, so
            that who connects while a control plane is being replaced waits instead of failing.
        control_port: its port.
        cpus: processors this process may use.
        memory: bytes of the machine, or of the limit this process runs under.
        gpus: devices.
        deployments: how many `Seen` follow; then all is known.
        run_dir: the node's private folder for sockets.
        workspace_fd, workspace_port: likewise of the address of workspaces; -1 without them.
    """

    config: PlatformConfig
    port: int
    listen_fd: int
    control_port: int
    cpus: float
    memory: int
    gpus: int
    deployments: int
    run_dir: str = ""
    workspace_fd: int = -1
    workspace_port: int = 0


class Seen(Message):
    """What is there of a deployment, after anything of it changed."""

    deployment: str
    observed: Observed


class WorkerLine(Message):
    """A line of a worker's output, or of the preparation of a generation (`worker` is 0)."""

    deployment: str
    generation: int
    worker: int
    text: str


class WorkerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker uses, with the processes it started.

    Attributes:
        memory: resident bytes.
        cpu_s: processor seconds since it was started.
        batches, batched: calls of batching commands, and the requests they took together.
    """

    worker: int
    deployment: str
    generation: int
    version: int
    memory: int
    cpu_s: float
    batches: int
    batched: int


class Counters(Message):
    """The counters of the gateways that answered in time, and what the workers use."""

    seq: int
    gateways: list[Stats]
    workers: list[WorkerUsage]


class Routed(Message):
    """Every living gateway follows the Route of this number by now, or a later one."""

    seq: int


class Ports(Message):
    """Why a port that a service wants for itself is not listened at; those missing are."""

    refused: dict[int, str]


ToNode: TypeAlias = Want | Route | CountersRequest | AdminResponse | Answering | Alive
ToControl: TypeAlias = Standing | Seen | WorkerLine | Counters | Routed | Ports | AdminRequest
