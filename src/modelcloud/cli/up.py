"""`modelcloud up`: prepares the data folder, shows the first password once, becomes the node.

Must never: import the control plane or a database for any other sub-command, or let the password
go anywhere but to this terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from msgspec.structs import replace

from modelcloud.cli import account, parse, session
from modelcloud.config import Limits, PlatformConfig
from modelcloud.errors import UsageError
from modelcloud.workspaces import WORKSPACE_LIBRARIES

#: Variables of the command line's own that hold a secret.
SECRETS = (
    parse.DATABASE_VARIABLE, parse.TOKEN_VARIABLE, session.TOKEN_VARIABLE,
    account.PASSWORD_VARIABLE,
)  # fmt: skip
#: What the extra `platform` brings.
LIBRARIES = (
    "alembic", "argon2", "cryptography", "fastapi", "sqlalchemy", "sse_starlette", "uv", "uvicorn",
)  # fmt: skip
#: The module of the pages, and what the extra `dashboard` brings.
DASHBOARD, DASHBOARD_LIBRARIES = "modelcloud.dashboard.site", ("nicegui", "websockets")
DEFAULT = PlatformConfig()
LIMITS = Limits()

_place = partial(typer.Option, rich_help_panel="Places and addresses")
_node = partial(typer.Option, rich_help_panel="What this machine gives")
_access = partial(typer.Option, rich_help_panel="Access")
_limit = partial(typer.Option, rich_help_panel="Limits")
_workspace = partial(typer.Option, rich_help_panel="Workspaces")
_limit_wait = partial(_limit, metavar="SECONDS", parser=parse.wait)
_size = partial(_limit, metavar="BYTES", parser=parse.size)


Database = Annotated[
    str,
    _place(
        metavar="URL",
        envvar=parse.DATABASE_VARIABLE,
        help="postgresql://…, in place of SQLite in --data. Others on this machine can read "
        f"it here; prefer {parse.DATABASE_VARIABLE} in the environment.",
    ),
]


def up(
    *,
    data: Annotated[
        Path, _place(metavar="DIR", help="Folder of everything that is kept; made if missing.")
    ] = Path(DEFAULT.data),
    database: Database = DEFAULT.database,
    host: Annotated[str, _place(metavar="ADDRESS", help="Where predictions are taken.")] = (
        DEFAULT.host
    ),
    port: Annotated[
        int, _place("--port", "-p", metavar="N", parser=parse.port, help="0 takes a free one.")
    ] = DEFAULT.port,
    control_host: Annotated[
        str, _place(metavar="ADDRESS", help="Where the control plane listens.")
    ] = DEFAULT.control_host,
    control_port: Annotated[
        int, _place(metavar="N", parser=parse.port, help="0 takes a free one.")
    ] = DEFAULT.control_port,
    gateways: Annotated[
        int, _place(metavar="N", parser=parse.count, help="Processes that share --port.")
    ] = DEFAULT.gateways,
    access_log: Annotated[
        bool, _place("--access-log", metavar="", help="Each request as a line in DIR/logs.")
    ] = DEFAULT.access_log,
    dashboard: Annotated[
        bool | None,
        _place(
            "--dashboard/--no-dashboard",
            metavar="",
            help="Pages in a browser, beside the API. By default: if they are installed.",
        ),
    ] = None,
    root: Annotated[
        list[Path] | None,
        _access(metavar="DIR", help="Versions may be registered from below it; repeat it."),
    ] = None,
    allow_network: Annotated[
        list[str] | None,
        _access(
            metavar="CIDR",
            parser=parse.network,
            help="A non-public network that monitors may reach, as 10.1.0.0/16; repeat it.",
        ),
    ] = None,
    hadoop_bin: Annotated[
        Path | None,
        _access(
            metavar="PATH",
            help="The program hadoop, for monitors of HDFS and AFS; no rule for networks holds it.",
        ),
    ] = None,
    admin_password_file: Annotated[
        Path | None,
        _access(metavar="PATH", help="Its first line is the first admin's password."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        _access(metavar="NAME", help="A further Host name of the control plane; repeat it."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        _access(
            metavar="ADDRESS",
            parser=parse.proxy,
            help="A proxy whose X-Forwarded-For says who asks; repeat it.",
        ),
    ] = None,
    cors: Annotated[str, _access(metavar="ORIGIN", help="Origin whose pages may predict.")] = (
        DEFAULT.cors
    ),
    tls_cert: Annotated[str, _access(metavar="PATH", help="Certificate chain, PEM.")] = (
        DEFAULT.tls_cert
    ),
    tls_key: Annotated[str, _access(metavar="PATH", help="Private key, PEM.")] = DEFAULT.tls_key,
    confine: Annotated[
        bool,
        _access(
            "--confine/--no-confine",
            metavar="",
            help="Keep models from the platform's files and from other processes.",
        ),
    ] = DEFAULT.confine,
    engine: Annotated[
        str,
        _node(
            metavar="local|ray",
            parser=parse.engine,
            help="Where workers run: on this machine, or in a Ray cluster.",
        ),
    ] = DEFAULT.engine,
    ray_address: Annotated[
        str,
        _node(
            metavar="ADDRESS",
            help="With --engine ray: HOST:PORT of the cluster's head; auto: this machine's own.",
        ),
    ] = DEFAULT.ray_address,
    ray_http_port: Annotated[
        int,
        _node(
            metavar="N",
            parser=parse.port,
            help="Where Ray Serve itself answers, on the loopback of every machine of the cluster.",
        ),
    ] = DEFAULT.ray_http_port,
    cpus: Annotated[
        float, _node(metavar="N", parser=parse.amount, help="For all workers; 0: those there are.")
    ] = DEFAULT.cpus,
    memory: Annotated[
        int, _node(metavar="BYTES", parser=parse.memory, help="For all workers; 0: what there is.")
    ] = DEFAULT.memory,
    gpus: Annotated[
        int, _node(metavar="N", min=-1, help="Devices; 0: those nvidia-smi lists, -1: none.")
    ] = DEFAULT.gpus,
    workspaces: Annotated[
        int,
        _workspace(metavar="N", min=0, max=1000, help="JupyterLabs at a time; 0: none."),
    ] = DEFAULT.workspaces,
    workspace_port: Annotated[
        int,
        _workspace(metavar="N", parser=parse.port, help="Where they are reached; 0: a free one."),
    ] = DEFAULT.workspace_port,
    workspace_url: Annotated[
        str,
        _workspace(metavar="URL", help="What browsers know that address by, behind a proxy."),
    ] = DEFAULT.workspace_url,
    workspace_memory: Annotated[
        int,
        _workspace(
            metavar="BYTES", parser=parse.memory, help="Of one, with all it starts; 0: any."
        ),
    ] = DEFAULT.workspace_memory,
    workspace_idle: Annotated[
        float,
        _workspace(metavar="SECONDS", parser=parse.wait, help="One unused for so long is stopped."),
    ] = DEFAULT.workspace_idle_s,
    upload_limit: Annotated[int, _size(help="Largest archive, and what it may unpack to.")] = (
        DEFAULT.upload_limit
    ),
    env_timeout: Annotated[float, _limit_wait(help="To build an environment.")] = (
        DEFAULT.env_timeout_s
    ),
    load_timeout: Annotated[
        float, _limit_wait(help="From a worker's start to its readiness.")
    ] = DEFAULT.load_timeout_s,
    drain: Annotated[
        float,
        _limit(metavar="SECONDS", parser=parse.span, help="For running requests at the end."),
    ] = DEFAULT.drain_s,
    health_timeout: Annotated[
        float, _limit_wait(help="Silence after which a worker is replaced.")
    ] = DEFAULT.health_timeout_s,
    max_body: Annotated[int, _size(help="Body of a prediction: 413.")] = LIMITS.body,
    max_queue: Annotated[
        int, _limit(metavar="N", parser=parse.count, help="Waiting requests of a version: 503.")
    ] = LIMITS.queue,
    deadline: Annotated[
        float, _limit_wait(help="From a request's arrival to its answer: 504.")
    ] = LIMITS.deadline_s,
) -> None:  # fmt: skip
    """Run the platform: groups, versions, permissions, rollouts."""
    if bool(tls_cert) != bool(tls_key):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    config = PlatformConfig(
        data=str(data.absolute()),
        database=database,
        host=host,
        port=port,
        control_host=control_host,
        control_port=control_port,
        allowed_hosts=tuple(allowed_host or ()),
        trusted_proxies=tuple(trusted_proxy or ()),
        roots=tuple(map(_folder, root or ())),
        networks=tuple(allow_network or ()),
        hadoop_bin=_program(hadoop_bin),
        gateways=gateways,
        site=_site(dashboard),
        tls_cert=tls_cert,
        tls_key=tls_key,
        cors=cors,
        access_log=access_log,
        engine=_engine(engine, ray_address),
        ray_address=ray_address,
        ray_http_port=ray_http_port,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        upload_limit=upload_limit,
        env_timeout_s=env_timeout,
        load_timeout_s=load_timeout,
        drain_s=drain,
        health_timeout_s=health_timeout,
        limits=Limits(body=max_body, queue=max_queue, deadline_s=deadline),
        confine=confine,
        workspaces=workspaces,
        workspace_port=workspace_port,
        workspace_url=_origin(workspace_url),
        workspace_memory=workspace_memory,
        workspace_idle_s=workspace_idle,
        hidden=_secret_files(tls_key, admin_password_file),
    )
    _need_libraries("up")
    _need_workspace_libraries(workspaces)
    from modelcloud.control import bootstrap
    from modelcloud.node import handover

    first = bootstrap.prepare(config, admin_password_file)
    if first is None and admin_password_file is not None:
        print(
            "--admin-password-file was not used: this is not the first start. `modelcloud passwd` "
            "changes a password, `modelcloud reset-admin` sets one that is lost.",
            file=sys.stderr,
        )
    if first is not None and first.password:
        print(f"First start. Sign in as: {first.user}   password: {first.password}")
        print("It is shown this once; change it with `modelcloud passwd`.", flush=True)
    handover.become("modelcloud.node.__main__", replace(config, database_variables=_take(config)))


def reset_admin(
    *,
    data: Annotated[Path, _place(metavar="DIR", help="The platform's folder.")] = Path(
        DEFAULT.data
    ),
    database: Database = DEFAULT.database,
    user: Annotated[
        str, typer.Option("--user", "-u", metavar="NAME", help="Which administrator.")
    ] = "admin",
) -> None:
    """Set an administrator's lost password anew, while the platform does not run.

    It is random and shown this once; the user's sessions end.
    """
    _need_libraries("reset-admin")
    from modelcloud.control import bootstrap

    config = PlatformConfig(data=str(data.absolute()), database=database)
    password = bootstrap.reset(config, user)
    print(f"Sign in as: {user}   password: {password}")
    print("It is shown this once; change it with `modelcloud passwd`.")


def _need_libraries(command: str) -> None:
    missing = [library for library in LIBRARIES if find_spec(library) is None]
    if missing:
        raise UsageError(
            f"`modelcloud {command}` needs {', '.join(missing)}, not installed here; run: "
            "pip install 'modelcloud[platform]'"
        )


def _engine(engine: str, ray_address: str) -> str:
    if engine == "ray":
        if find_spec("ray") is None:
            raise UsageError(
                "--engine ray needs ray, not installed here; run: pip install 'modelcloud[ray]'"
            )
    elif ray_address != DEFAULT.ray_address:
        raise typer.BadParameter("--ray-address goes with --engine ray")
    return engine


def _need_workspace_libraries(wanted: int) -> None:
    missing = [library for library in WORKSPACE_LIBRARIES if find_spec(library) is None]
    if wanted and missing:
        raise UsageError(
            f"--workspaces needs {', '.join(missing)}, not installed here; run: "
            "pip install 'modelcloud[platform,workspace]'"
        )


def _origin(url: str) -> str:
    """The address by which browsers know the workspaces, without a path."""
    try:
        split = urlsplit(url)
        fits = bool(split.hostname) and split.scheme in {"http", "https"} and split.port != 0
    except ValueError:
        fits = False
    if url and not (
        fits and split.username is None
        and not (split.path.strip("/") or split.query or split.fragment)
    ):  # fmt: skip
        raise typer.BadParameter(
            f"--workspace-url {url}: accepted: http://NAME or https://NAME, with a port if need be"
        )
    return url.rstrip("/")


def _folder(root: Path) -> str:
    if not root.is_dir():
        raise typer.BadParameter(f"--root {root}: there is no such folder")
    return str(root.absolute())


def _program(path: Path | None) -> str:
    if path is None:
        return ""
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise typer.BadParameter(f"--hadoop-bin {path}: no program is there that may be run")
    return str(path.absolute())


def _site(wanted: bool | None) -> str:
    """The module of the pages; none where they are not wanted, or neither asked for nor there."""
    missing = [library for library in DASHBOARD_LIBRARIES if find_spec(library) is None]
    if wanted and missing:
        raise UsageError(
            f"--dashboard needs {', '.join(missing)}, not installed here; run: "
            "pip install 'modelcloud[platform,dashboard]'"
        )
    return "" if missing or wanted is False else DASHBOARD


def _secret_files(*given: str | Path | None) -> tuple[str, ...]:
    """What models must not read, beside the data folder.

    Those, where `modelcloud login` keeps a token, and where PostgreSQL's client has passwords.
    """
    found = [*given, os.environ.get("PGPASSFILE")]
    with contextlib.suppress(RuntimeError):  # a user without a home
        found += [session.file().parent, Path.home() / ".pgpass"]
    return tuple(str(Path(path).absolute()) for path in found if path)


def _take(config: PlatformConfig) -> dict[str, str]:
    """Take out of the environment, which workers inherit, what they have no business with.

    Returns:
        What of it the control plane needs: the variables of PostgreSQL's own client, which may
        hold a password, where they are the platform's.
    """
    for name in SECRETS:
        os.environ.pop(name, None)
    names = [name for name in os.environ if config.database and name.startswith("PG")]
    return {name: os.environ.pop(name) for name in names}
