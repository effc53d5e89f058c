"""`monitors`: what brings a service's versions from remote places by itself.

Must never: take a credential on a command line, where others on the machine can read it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from modelcloud.cli import parse, session, show
from modelcloud.cli.monitor import PASSWORD_VARIABLE, UGI_VARIABLE
from modelcloud.cli.services import Service
from modelcloud.errors import ModelcloudError
from modelcloud.monitors.source import FTP_PORT, TYPES

monitors = typer.Typer(
    help="Monitors: bring new versions from remote places.", no_args_is_help=True
)

COLUMNS = (
    "name", "type", "place", "interval", "activity", "version", "deployment", "changed_at",
    "looked_at", "error",
)  # fmt: skip
EVENT_COLUMNS = (
    "at", "outcome", "version", "rollout", "rollout_state", "duration_s", "times", "detail",
)  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the monitor.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the API, its value as JSON or text; repeat it.",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--ftp_password_file",
        metavar="PATH",
        help=f"File whose first line is the password; or {PASSWORD_VARIABLE}.",
    ),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret_options_file",
        metavar="PATH",
        help="JSON object of secret storage options: key, secret, token, password.",
    ),
]


@monitors.command("list")
def list_monitors(
    service: Annotated[str | None, typer.Argument(metavar="[SERVICE]")] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """The monitors of a service, or without one of all services that you may read."""
    with session.connect(url) as platform:
        records = platform.monitors(service)
    rows = [{**record, "interval": record["settings"]["interval"]} for record in records]
    columns = COLUMNS if service else ("service", *COLUMNS)
    show.listed(records if as_json else rows, columns, as_json=as_json)


@monitors.command("show")
def show_monitor(
    service: Service, name: Name, url: session.Url = None, as_json: show.Json = False
) -> None:
    """One monitor, with all its settings but for credentials."""
    with session.connect(url) as platform:
        show.one(platform.monitor(service, name), as_json=as_json)


@monitors.command("create")
def create_monitor(
    service: Service,
    name: Name,
    *,
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help=f"{', '.join(TYPES)}.")],
    remote_path: Annotated[
        str, typer.Option("--remote_path", metavar="PATH", help="Folder there; or a URL.")
    ],
    remote_model_name: Annotated[
        str, typer.Option("--remote_model_name", metavar="NAME", help="The model in it.")
    ],
    remote_donefile_name: Annotated[
        str,
        typer.Option("--remote_donefile_name", metavar="NAME", help="File written after it."),
    ],
    general_host: Annotated[
        str | None, typer.Option("--general_host", metavar="URL", help="Of type general.")
    ] = None,
    fs_name: Annotated[
        str | None, typer.Option("--fs_name", metavar="URL", help="Of types hdfs and afs.")
    ] = None,
    ftp_host: Annotated[
        str | None, typer.Option("--ftp_host", metavar="HOST", help="Of type ftp.")
    ] = None,
    ftp_port: Annotated[
        int, typer.Option("--ftp_port", metavar="N", parser=parse.port, help="Of type ftp.")
    ] = FTP_PORT,
    ftp_username: Annotated[
        str | None, typer.Option("--ftp_username", metavar="NAME", help="Of type ftp.")
    ] = None,
    ftp_password_file: PasswordFile = None,
    storage_option: Annotated[
        list[str] | None,
        typer.Option(
            "--storage_option",
            metavar="NAME=VALUE",
            help="Of types s3, sftp and webhdfs: one that is not secret; repeat it.",
        ),
    ] = None,
    secret_options_file: SecretFile = None,
    known_hosts: Annotated[
        Path | None,
        typer.Option("--known_hosts", metavar="PATH", help="Of type sftp: file of host keys."),
    ] = None,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", parser=parse.wait, help="Between two looks.")
    ] = 10.0,
    replaces: Annotated[
        int | None,
        typer.Option(
            metavar="VERSION",
            parser=parse.count,
            help="Versions take the place of this one, which is online; else a new deployment.",
        ),
    ] = None,
    instance_type: Annotated[
        str, typer.Option(metavar="NAME", help="Of the new deployment.")
    ] = "small",
    replicas: Annotated[
        int, typer.Option("--replicas", "-n", metavar="N", parser=parse.count, help="Likewise.")
    ] = 1,
    golden: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A golden.jsonl that each version is held to."),
    ] = None,
    keep: Annotated[
        int, typer.Option(metavar="N", parser=parse.count, help="Versions of it that stay.")
    ] = 10,
    trust: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Accept what runs code when loaded from this place."),
    ] = None,
    paused: Annotated[
        bool, typer.Option("--paused", metavar="", help="Do not begin before it is resumed.")
    ] = False,
    set_: Set = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Watch a remote place; each model that appears there becomes a version and goes online."""
    fields: dict[str, Any] = {
        "general_host": general_host,
        "fs_name": fs_name,
        "ftp_host": ftp_host,
        "ftp_username": ftp_username,
        "interval": interval,
        "keep": keep,
        "replaces": replaces,
        "trust": trust,
        "golden": None if golden is None else _lines(golden),
        "known_hosts": None if known_hosts is None else _read(known_hosts, "--known_hosts"),
        "paused": paused or None,
        "deploy": {"instance_type": instance_type, "replicas": replicas},
        **_credentials(ftp_password_file, secret_options_file),
        **_fields(set_),
    }
    if ftp_port != FTP_PORT:
        fields["ftp_port"] = ftp_port
    if storage_option:
        texts = parse.pairs(storage_option, "--storage_option")
        fields["storage_options"] = {key: parse.value(text) for key, text in texts.items()}
    with session.connect(url) as platform:
        record = session.once(
            lambda key: platform.create_monitor(
                service, name, type=type_, remote_path=remote_path,
                remote_model_name=remote_model_name, remote_donefile_name=remote_donefile_name,
                idempotency_key=key, **fields,
            )
        )  # fmt: skip
    show.said(f"monitor {name} of {service} watches {record['place']}", record, as_json=as_json)


@monitors.command("edit")
def edit_monitor(
    service: Service,
    name: Name,
    set_: Set = None,
    ftp_password_file: PasswordFile = None,
    secret_options_file: SecretFile = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Change settings; it acts in your name from then on."""
    changes = {**_credentials(ftp_password_file, secret_options_file), **_fields(set_)}
    if not changes:
        raise typer.BadParameter("nothing to change; name --set FIELD=VALUE or a credential")
    with session.connect(url) as platform:
        record = platform.edit_monitor(service, name, **changes)
    show.said(f"monitor {name} of {service} changed", record, as_json=as_json)


@monitors.command("pause")
def pause_monitor(
    service: Service, name: Name, url: session.Url = None, as_json: show.Json = False
) -> None:
    """Have a monitor rest."""
    with session.connect(url) as platform:
        record = platform.pause_monitor(service, name)
    show.said(f"monitor {name} of {service} rests", record, as_json=as_json)


@monitors.command("resume")
def resume_monitor(
    service: Service, name: Name, url: session.Url = None, as_json: show.Json = False
) -> None:
    """Have a monitor go on."""
    with session.connect(url) as platform:
        record = platform.resume_monitor(service, name)
    show.said(f"monitor {name} of {service} goes on", record, as_json=as_json)


@monitors.command("run")
def run_monitor(
    service: Service, name: Name, url: session.Url = None, as_json: show.Json = False
) -> None:
    """Have a monitor look now."""
    with session.connect(url) as platform:
        record = platform.run_monitor(service, name)
    show.said(f"monitor {name} of {service} looks now", record, as_json=as_json)


@monitors.command("test")
def try_monitor(
    service: Service, name: Name, url: session.Url = None, as_json: show.Json = False
) -> None:
    """Look once, and say what came of it; nothing is pulled."""
    with session.connect(url) as platform:
        record = platform.test_monitor(service, name)
    if not record["ok"] and not as_json:
        raise ModelcloudError(record["error"])
    show.one(record, as_json=as_json)


@monitors.command("history")
def history(
    service: Service,
    name: Name,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", parser=parse.count, help="The newest ones.")
    ] = 20,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """What a monitor did: versions it brought, what failed."""
    with session.connect(url) as platform:
        show.listed(platform.monitor_events(service, name, limit), EVENT_COLUMNS, as_json=as_json)


@monitors.command("delete")
def delete_monitor(
    service: Service, name: Name, yes: session.Yes = False, url: session.Url = None
) -> None:
    """Watch no more; the versions that it brought stay."""
    session.confirm(f"monitor {name} of {service}", yes=yes)
    with session.connect(url) as platform:
        platform.delete_monitor(service, name)
    print(show.plain(f"monitor {name} of {service} deleted"))


def _credentials(password: Path | None, secrets: Path | None) -> dict[str, Any]:
    """Those that were given, by files or the environment."""
    found: dict[str, Any] = {}
    inherited = os.environ.pop(PASSWORD_VARIABLE, "")
    if password is not None:
        found["ftp_password"] = _read(password, "--ftp_password_file").partition("\n")[0].strip()
    elif inherited:
        found["ftp_password"] = inherited
    if ugi := os.environ.pop(UGI_VARIABLE, ""):
        found["fs_ugi"] = ugi
    if secrets is not None:
        try:
            found["secret_options"] = json.loads(_read(secrets, "--secret_options_file"))
        except ValueError:
            raise typer.BadParameter(f"--secret_options_file {secrets} holds no JSON") from None
    return found


def _fields(texts: list[str] | None) -> dict[str, Any]:
    return {name: parse.value(text) for name, text in parse.pairs(texts or (), "--set").items()}


def _lines(file: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in _read(file, "--golden").splitlines() if line.strip()]
    except ValueError:
        raise typer.BadParameter(f"--golden {file}: accepted: a JSON object in each line") from None


def _read(file: Path, flag: str) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise typer.BadParameter(f"{flag} {file}: {reason}") from None
