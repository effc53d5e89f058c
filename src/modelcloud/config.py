"""Settings of a server, as frozen records with their defaults.

Must never: read the environment or a file when imported; the command line fills these records.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelcloud.types import StrategySpec

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway accepts. Sizes in bytes, times in seconds."""

    head: int = 32 * 1024  # request line and headers together: 431
    body: int = 64 * MIB  # after decompression too: 413
    header_timeout_s: float = 10.0  # from the first byte of a request to the end of its head: 408
    body_min_rate: int = 1024  # bytes a second, averaged after 5 s of grace: 408
    idle_timeout_s: float = 75.0  # keep-alive without a request
    connections: int = 8192  # per gateway: 503 and close
    queue: int = 2048  # waiting requests per service and gateway: 503 and Retry-After
    deadline_s: float = 60.0  # from arrival to answer: 504
    pipeline: int = 64  # requests of one connection under way before it is read no further
    buffered: int = 1024 * MIB  # bodies and unsent answers held by one gateway: 503, or closed


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of `modelcloud serve`."""

    target: str
    service: str = ""  # from the target when empty
    host: str = "127.0.0.1"
    port: int = 8080
    uds: str = ""  # path of a unix socket, in place of host and port
    replicas: int = 2
    threads: int = 1
    gateways: int = 1
    strategy: StrategySpec = StrategySpec()
    options: dict[str, Any] = {}
    options_text: dict[str, str] = {}  # from a command line; read by the type of each option
    model_path: str = ""
    upload_dir: str = ""  # requests may name files below it; none when empty
    artifact_root: str = ""  # updates may name artifacts below it; the target's folder when empty
    python: str = ""
    runenv: str = "prod"
    log_dir: str = ""
    access_log: bool = False
    admin_token: str = ""
    #: Names, beside the bound address, that Host may carry on admin routes.
    allowed_hosts: tuple[str, ...] = ()
    cors: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    watch: bool = False
    timestamp_file: str = ""  # followed, if one is named: the model is taken whole when it changes
    keep_warm_s: float = 60.0
    load_timeout_s: float = 600.0
    drain_s: float = 30.0
    health_timeout_s: float = 10.0
    limits: Limits = Limits()


class PlatformConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of `modelcloud up`. Sizes in bytes, times in seconds.

    Attributes:
        data: folder of everything that is kept.
        database: SQLAlchemy URL of the store; empty: SQLite in the data folder.
        host, port: where gateways take predictions.
        control_host, control_port: where the control plane listens.
        allowed_hosts: names, beside the bound address, that Host may carry at the control plane.
        trusted_proxies: addresses or networks of proxies that say for whom they ask.
        roots: folders on this machine from which versions may be registered by path.
        cpus, memory, gpus: what the workers of this node may use together; 0: what is there
            (of `gpus`: what `nvidia-smi` lists), -1: none.
        networks: non-public networks that monitors may reach, as `10.1.0.0/16`.
        hadoop_bin: the program by which monitors read HDFS and AFS; empty: they may not.
        upload_limit: largest uploaded archive, and the most it may unpack to.
        env_timeout_s: longest build of an environment.
        confine: whether workers are kept from the platform's files and from other processes.
        hidden: files and folders, beside the platform's own, that they are kept from.
        engine: where workers run: `local`, or `ray` for a cluster.
        ray_address: of the cluster, as `ray.init` takes it; `auto` finds the one this machine is
            part of.
        ray_http_port: where Ray Serve answers on every node of the cluster, on its loopback, if
            this platform is the first to start it.
        site: module whose `make_site` makes pages for browsers beside the API; empty: none.
        database_variables: of the environment, for the control plane alone.
        workspaces: how many JupyterLabs may run at a time; 0: none, and no port for them.
        workspace_port: where browsers reach them, at `control_host`: an origin of its own.
        workspace_url: what browsers know that address by, where a proxy stands before it.
        workspace_memory: what one may use, with all that is started in it.
        workspace_idle_s: one in which nothing is done for so long is stopped.
    """

    data: str = "modelcloud-data"
    database: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    control_host: str = "127.0.0.1"
    control_port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    hadoop_bin: str = ""
    gateways: int = 1
    tls_cert: str = ""
    tls_key: str = ""
    cors: str = ""
    access_log: bool = False
    cpus: float = 0.0
    memory: int = 0
    gpus: int = 0
    upload_limit: int = 8 * 1024 * MIB
    env_timeout_s: float = 900.0
    confine: bool = True
    hidden: tuple[str, ...] = ()
    engine: str = "local"
    ray_address: str = "auto"
    ray_http_port: int = 8100
    site: str = ""
    database_variables: dict[str, str] = {}
    workspaces: int = 0
    workspace_port: int = 8001
    workspace_url: str = ""
    workspace_memory: int = 4 * 1024 * MIB
    workspace_idle_s: float = 3600.0
    load_timeout_s: float = 600.0
    drain_s: float = 30.0
    health_timeout_s: float = 10.0
    limits: Limits = Limits()
