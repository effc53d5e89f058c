"""`modelcloud cluster`: a Ray cluster for `modelcloud up --engine ray`, machine by machine.

Must never: import ray (its own program is run), print the token, or end what it did not start.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from modelcloud.cli import parse, show
from modelcloud.errors import ModelcloudError, UsageError

app = typer.Typer(help="A Ray cluster for `modelcloud up --engine ray`.", no_args_is_help=True)

PORT, DASHBOARD_PORT = 6379, 8265
#: Further ports of a machine: as many beyond its first one; and those of its workers.
_NODE_MANAGER, _OBJECTS, _RUNTIME_ENV, _AGENT_GRPC, _AGENT_HTTP, _METRICS, _CLIENT = range(1, 8)
WORKER_PORTS = "10002-19999"
STATUS_S = 60

Host = Annotated[
    str,
    typer.Option(metavar="ADDRESS", help="This machine's, as the others of the cluster see it."),
]
FirstPort = Annotated[
    int, typer.Option("--port", metavar="N", parser=parse.port, help="The first of eight in a row.")
]
WorkerPorts = Annotated[
    str,
    typer.Option(metavar="FROM-TO", help="For what runs here: connections between machines."),
]
Cpus = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Processors to give; else those there are.")
]
Gpus = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Devices to give; else those there are.")
]
TempDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Ray's own files; else /tmp/ray.")
]
Block = Annotated[
    bool, typer.Option("--block", metavar="", help="Stay in front, as systemd wants it.")
]


@app.command()
def head(
    *,
    host: Host = "",
    port: FirstPort = PORT,
    dashboard_port: Annotated[
        int, typer.Option(metavar="N", parser=parse.port, help="Ray's dashboard, on loopback.")
    ] = DASHBOARD_PORT,
    worker_ports: WorkerPorts = WORKER_PORTS,
    cpus: Cpus = None,
    gpus: Gpus = None,
    temp_dir: TempDir = None,
    block: Block = False,
) -> None:
    """Begin a cluster on this machine, and say how others join it."""
    _need_ray()
    common = _common(port, worker_ports, cpus, gpus, temp_dir, block=block)
    host = host or _own_address()
    token = _token_file()
    print(f"To join from another machine, copy {token} there (mode 0600), and run:")
    print(f"  modelcloud cluster join {host}:{port}")
    print(f"Then, here:\n  modelcloud up --engine ray --ray-address {host}:{port}", flush=True)
    _start(
        "--head", f"--node-ip-address={host}", f"--port={port}",
        f"--dashboard-port={dashboard_port}", "--dashboard-host=127.0.0.1",
        f"--ray-client-server-port={port + _CLIENT}",
        *common,
    )  # fmt: skip


@app.command()
def join(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="The head, as `cluster head` printed it.")
    ],
    *,
    host: Host = "",
    port: FirstPort = PORT,
    worker_ports: WorkerPorts = WORKER_PORTS,
    cpus: Cpus = None,
    gpus: Gpus = None,
    temp_dir: TempDir = None,
    block: Block = False,
) -> None:
    """Give this machine to a cluster."""
    _need_ray()
    _checked(address)
    if _authenticates() and not _token_path().exists():
        raise UsageError(
            f"no token at {_token_path()}; copy it from the head, where `modelcloud cluster head` "
            "names the file"
        )
    _start(
        f"--address={address}", *([f"--node-ip-address={host}"] if host else []),
        *_common(port, worker_ports, cpus, gpus, temp_dir, block=block),
    )  # fmt: skip


@app.command()
def status(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="The head; else the cluster of this machine.")
    ] = "auto",
    as_json: show.Json = False,
) -> None:
    """The machines of a cluster, and the applications of every platform on it."""
    _need_ray()
    if address != "auto":
        _checked(address)
    try:
        done = subprocess.run(  # noqa: S603 — our own module, the address was checked
            [sys.executable, "-m", "modelcloud.engines.ray_status", address],
            env=_environ(),
            capture_output=True,
            text=True,
            timeout=STATUS_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelcloudError(
            f"the cluster at {address!r} did not answer in {STATUS_S} s"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelcloudError(f"the cluster at {address!r} cannot be reached: {last}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if as_json:
        print(json.dumps(found, indent=2))
        return
    show.listed(found["nodes"], ("address", "state", "cpus", "gpus", "memory"))
    show.listed(found["applications"], ("name", "state", "replicas", "running"))


def _common(
    port: int, workers: str, cpus: int | None, gpus: int | None,
    temp_dir: Path | None, *, block: bool,
) -> list[str]:  # fmt: skip
    low, _, high = workers.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 1024 <= int(low) < int(high) < 65536):
        raise typer.BadParameter(
            f"--worker-ports {workers!r}; accepted: FROM-TO, as {WORKER_PORTS}"
        )
    given = [
        f"--node-manager-port={port + _NODE_MANAGER}", f"--object-manager-port={port + _OBJECTS}",
        f"--runtime-env-agent-port={port + _RUNTIME_ENV}",
        f"--dashboard-agent-grpc-port={port + _AGENT_GRPC}",
        f"--dashboard-agent-listen-port={port + _AGENT_HTTP}",
        f"--metrics-export-port={port + _METRICS}",
        f"--min-worker-port={low}", f"--max-worker-port={high}",
        "--disable-usage-stats",
    ]  # fmt: skip
    if cpus is not None:
        given.append(f"--num-cpus={cpus}")
    if gpus is not None:
        given.append(f"--num-gpus={gpus}")
    if temp_dir is not None:
        given.append(f"--temp-dir={temp_dir.absolute()}")
    return [*given, "--block"] if block else given


def _start(*arguments: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
    code = subprocess.run(command, env=_environ(), check=False).returncode  # noqa: S603 — ray's own program
    if code:
        raise ModelcloudError(f"ray start ended with status {code}; its own words are above")


def _environ() -> dict[str, str]:
    """With token authentication, unless someone has decided otherwise."""
    return {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", **os.environ}


def _authenticates() -> bool:
    return _environ()["RAY_AUTH_MODE"] == "token" and not os.environ.get("RAY_AUTH_TOKEN")


def _token_path() -> Path:
    """Where Ray looks for the token of its clusters."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def _token_file() -> Path:
    """The file of the token; made, for this user alone, where there is none."""
    path = _token_path()
    if _authenticates() and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path


def _checked(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{address!r}; accepted: HOST:PORT, as `cluster head` printed it")


def _own_address() -> str:
    """The address by which this machine reaches others; its loopback where it reaches none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _need_ray() -> None:
    if find_spec("ray") is None:
        raise UsageError(
            "`modelcloud cluster` needs ray, not installed here; run: "
            "pip install 'modelcloud[platform,ray]'"
        )
