"""What a monitor is made of: its settings as they are asked for, and what follows of them.

Its words are those of `modelcloud monitor`, so that one may be written as the other.

Must never: ask the store, or let through an option by which a source could read this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import Field

from modelcloud.config import PlatformConfig
from modelcloud.control.common.names import check_name
from modelcloud.control.common.records import Body
from modelcloud.control.deployments.deployment_forms import DeploySettings, Named, strategy_of
from modelcloud.control.services.version_forms import Requirements, Text, check_python, source_below
from modelcloud.errors import InvalidInput, UsageError
from modelcloud.monitors.address import Addresses
from modelcloud.monitors.settings import check_source, check_watched
from modelcloud.monitors.source import (
    AFS,
    FTP,
    FTP_PORT,
    GENERAL,
    HDFS,
    LOCAL,
    S3,
    SFTP,
    WEBHDFS,
    SourceSpec,
    Watched,
    hide_password,
    join,
)
from modelcloud.types import StrategySpec

#: Fields that are kept apart, encrypted, and never shown.
SECRETS = ("fs_ugi", "ftp_password", "secret_options")
#: Type → the storage options that it takes, and those that are secret. Others of fsspec's could
#: name files of this machine, its own credentials among them.
OPTIONS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    S3: (
        frozenset({"endpoint_url", "region_name", "use_ssl", "requester_pays"}),
        frozenset({"key", "secret", "token"}),
    ),
    SFTP: (frozenset({"username", "port"}), frozenset({"password"})),
    WEBHDFS: (frozenset({"user", "use_https"}), frozenset({"password", "token"})),
}
#: File with the keys of SFTP hosts, in the folder of a monitor's source process.
KNOWN_HOSTS = "known_hosts"
MAX_GOLDEN = 1000

Word = Annotated[str, Field(max_length=1_000)]


class GoldenBody(Body):
    """A golden request, as a line of `golden.jsonl` has it."""

    inputs: Any
    expected: Any
    command: Word = ""
    tolerance: Annotated[float, Field(ge=0)] = 0.0


class MonitorChanges(Body):
    """What a monitor may be changed in; what is left out stays, credentials too.

    Attributes:
        type: `general`, `hdfs`, `afs`, `ftp`, `s3`, `sftp`, `webhdfs`, `local` or `url`.
        remote_path: the folder there; of `sftp`, `webhdfs` and `url` a URL, of `s3`
            `BUCKET/FOLDER`, of `local` a path below one of the server's roots.
        remote_model_name, remote_donefile_name: names in it.
        general_host: of `general`: the URL that `remote_path` is below.
        fs_name, fs_ugi: of `hdfs` and `afs`: the file system, and `user,password`.
        ftp_host, ftp_port, ftp_username, ftp_password: of `ftp`.
        storage_options: of `s3` endpoint_url, region_name, use_ssl, requester_pays; of `sftp`
            username, port; of `webhdfs` user, use_https.
        secret_options: likewise: of `s3` key, secret, token; of `sftp` password; of `webhdfs`
            password, token.
        known_hosts: of `sftp`: the host's key, as a line of OpenSSH's file of that name.
        interval: seconds between two looks.
        main, options, description, requirements, python: of each version, as when one is
            registered by hand.
        golden: requests with their answers, which each version is held to before it serves.
        replaces: the online version whose place the next one takes, and each later one of that;
            null: the next one goes online as a new deployment.
        deploy: how that new deployment is made; later versions take its place as it then is.
        strategy: of each later rollout; null: the deployment's own.
        keep: of the versions that it brought, the newest so many stay, and those that are online.
        trust: its `place`, to accept what runs code when it is loaded: Python code, pickles.
    """

    type: Word = ""
    remote_path: Word = ""
    remote_model_name: Word = ""
    remote_donefile_name: Word = ""
    general_host: Word = ""
    fs_name: Word = ""
    fs_ugi: Word = ""
    ftp_host: Word = ""
    ftp_port: Annotated[int, Field(ge=1, le=65_535)] = FTP_PORT
    ftp_username: Word = ""
    ftp_password: Word = ""
    storage_options: Annotated[dict[str, Any], Field(default_factory=dict)]
    secret_options: Annotated[dict[str, str], Field(default_factory=dict)]
    known_hosts: Annotated[str, Field(max_length=10_000)] = ""
    interval: Annotated[float, Field(ge=1, le=86_400)] = 10.0
    main: Word = ""
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    description: Text = ""
    requirements: Requirements | None = None
    python: Word = ""
    golden: Annotated[list[GoldenBody], Field(default_factory=list, max_length=MAX_GOLDEN)]
    replaces: int | None = None
    deploy: Annotated[DeploySettings, Field(default_factory=DeploySettings)]
    strategy: Named | None = None
    keep: Annotated[int, Field(ge=2, le=1_000)] = 10
    trust: Word = ""


class MonitorBody(MonitorChanges):
    """A monitor to make. `paused`: it does not begin before it is resumed."""

    name: str
    type: Word
    remote_path: Word
    remote_model_name: Word
    remote_donefile_name: Word
    paused: bool = False


def split(asked: MonitorChanges) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given, and of it what is secret."""
    given = asked.model_dump(exclude_unset=True)
    secret = {name: given.pop(name) for name in SECRETS if name in given}
    return given, secret


def check(settings: MonitorBody, secrets: Mapping[str, Any], config: PlatformConfig) -> None:
    """Return if there can be such a monitor.

    Raises:
        UsageError: the settings do not fit each other; the message names the field.
    """
    check_name(settings.name)
    check_source(source_spec(settings, secrets, config))
    check_watched(watched_of(settings))
    check_python(settings.python)
    strategy_of(settings.strategy, StrategySpec())
    place = place_of(settings)
    if settings.trust not in {"", place}:
        raise InvalidInput("trust", repr(settings.trust[:200]), f"{place!r}, the place itself")


def watched_of(settings: MonitorChanges) -> Watched:
    """The names that are watched."""
    return Watched(model=settings.remote_model_name, done=settings.remote_donefile_name)


def place_of(settings: MonitorChanges) -> str:
    """The remote folder in one line, as people are shown it and trust it by."""
    kind, path = settings.type, hide_password(settings.remote_path)
    if kind == GENERAL:
        host = settings.general_host
        base = host if "://" in host else f"http://{host}"
        return join(base.rstrip("/"), path.lstrip("/"))
    if kind == FTP:
        port = "" if settings.ftp_port == FTP_PORT else f":{settings.ftp_port}"
        return f"ftp://{settings.ftp_host}{port}/{path.lstrip('/')}"
    if kind in {HDFS, AFS}:
        return f"{(settings.fs_name or f'{kind}:').rstrip('/')}/{path.lstrip('/')}"
    if kind == S3:
        place = path if "://" in path else f"s3://{path.lstrip('/')}"
        endpoint = settings.storage_options.get("endpoint_url", "")
        return f"{place} at {hide_password(str(endpoint))}" if endpoint else place
    return path


def golden_of(settings: MonitorChanges) -> str:
    """The golden requests as lines of `golden.jsonl`; "" without any."""
    lines = [msgspec.json.encode(proof.model_dump()).decode() for proof in settings.golden]
    return "".join(f"{line}\n" for line in lines)


def source_spec(
    settings: MonitorChanges, secrets: Mapping[str, Any], config: PlatformConfig
) -> SourceSpec:
    """Where it looks, and what it may reach.

    Raises:
        UsageError: the type is not to be had here, or an option is not accepted.
    """
    path, kind = settings.remote_path, settings.type
    if hide_password(path) != path:
        raise InvalidInput(
            "remote_path", "a URL with a password", "one without; passwords go by themselves"
        )
    for field, value, of in (
        ("general_host", settings.general_host, GENERAL),
        ("ftp_host", settings.ftp_host, FTP),
    ):
        if value and kind != of:
            raise InvalidInput(
                field, repr(value[:200]), f"none with type {kind}; it goes with type {of}"
            )
    addresses = Addresses(networks=config.networks)
    roots: tuple[str, ...] = ()
    if kind in {HDFS, AFS}:
        if not config.hadoop_bin:
            raise UsageError(
                f"type {kind} needs the program hadoop, which the administrator names with "
                "`modelcloud up --hadoop-bin`; type webhdfs needs none"
            )
        addresses = Addresses(anything=True)
    elif kind == LOCAL:
        real, _ = source_below(path, config.roots, config.data)
        path, roots = str(real), config.roots
    return SourceSpec(
        type=kind,
        path=path,
        host=settings.ftp_host if kind == FTP else settings.general_host,
        port=settings.ftp_port,
        username=settings.ftp_username,
        password=secrets.get("ftp_password", ""),
        hadoop_bin=config.hadoop_bin if kind in {HDFS, AFS} else "",
        fs_name=settings.fs_name,
        fs_ugi=secrets.get("fs_ugi", ""),
        options=_storage_options(settings, secrets.get("secret_options", {})),
        addresses=addresses,
        roots=roots,
    )


def at(spec: SourceSpec, settings: MonitorChanges, folder: Path) -> SourceSpec:
    """The source for a process whose own folder this is; its SFTP host key is written there."""
    if settings.type != SFTP:
        return spec
    file = folder / KNOWN_HOSTS
    file.write_text(settings.known_hosts.rstrip("\n") + "\n", "utf-8")
    return msgspec.structs.replace(spec, options={**spec.options, "known_hosts": str(file)})


def _storage_options(settings: MonitorChanges, secret: Mapping[str, str]) -> dict[str, Any]:
    """In fsspec's words."""
    plain, hidden = OPTIONS.get(settings.type, (frozenset(), frozenset()))
    _check_options("storage_options", settings.storage_options, plain, settings.type)
    _check_options("secret_options", secret, hidden, settings.type)
    found = {**settings.storage_options, **secret}
    if settings.type == S3:
        if "region_name" in found:
            found["client_kwargs"] = {"region_name": found.pop("region_name")}
        if "key" not in found:
            found["anon"] = True  # else the libraries look for credentials of this machine
    return found


def _check_options(
    field: str, given: Mapping[str, Any], accepted: frozenset[str], kind: str
) -> None:
    for name, value in given.items():
        if name not in accepted:
            words = ", ".join(sorted(accepted)) or "none"
            raise InvalidInput(f"{field}.{name}", "it", f"with type {kind}: {words}")
        if not isinstance(value, str | int | bool):
            raise InvalidInput(f"{field}.{name}", type(value).__name__, "a text, number or bool")
