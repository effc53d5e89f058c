"""`modelcloud monitor`: fills `MonitorSettings` and runs it.

Must never: print or log a password, or leave one in the environment of what it starts.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from modelcloud.cli import parse
from modelcloud.monitors import source
from modelcloud.monitors.address import Addresses
from modelcloud.monitors.settings import TIMESTAMP_FILE, TMP_PATH, MonitorSettings

PASSWORD_VARIABLE = "MODELCLOUD_FTP_PASSWORD"  # noqa: S105 — the variable's name
UGI_VARIABLE = "MODELCLOUD_FS_UGI"
LIMITS = source.Patience()

_remote = partial(typer.Option, rich_help_panel="Remote")
_local = partial(typer.Option, rich_help_panel="Local")
_general = partial(typer.Option, rich_help_panel="Type general")
_hadoop = partial(typer.Option, rich_help_panel="Types hdfs and afs")
_ftp = partial(typer.Option, rich_help_panel="Type ftp")
_fsspec = partial(typer.Option, rich_help_panel="Types s3, sftp, webhdfs and url")
_limit = partial(typer.Option, rich_help_panel="Limits")


def monitor(
    type_: Annotated[
        str, _remote("--type", metavar="TYPE", help=f"One of {', '.join(source.TYPES)}.")
    ],
    remote_path: Annotated[
        str, _remote("--remote_path", metavar="PATH", help="Folder there; a URL for some types.")
    ],
    remote_model_name: Annotated[
        str, _remote("--remote_model_name", metavar="NAME", help="The model in it.")
    ],
    remote_donefile_name: Annotated[
        str,
        _remote("--remote_donefile_name", metavar="NAME", help="File that is written after it."),
    ],
    local_path: Annotated[str, _local("--local_path", metavar="DIR", help="Folder to work in.")],
    local_model_name: Annotated[
        str, _local("--local_model_name", metavar="NAME", help="The model's folder in it.")
    ],
    *,
    local_timestamp_file: Annotated[
        str, _local("--local_timestamp_file", metavar="NAME", help="File in it that is touched.")
    ] = TIMESTAMP_FILE,
    local_tmp_path: Annotated[
        str, _local("--local_tmp_path", metavar="DIR", help="Where models are pulled to.")
    ] = TMP_PATH,
    interval: Annotated[
        float,
        _local("--interval", metavar="SECONDS", parser=parse.wait, help="Between two looks."),
    ] = 10.0,
    unpacked_filename: Annotated[
        str | None,
        _local("--unpacked_filename", metavar="NAME", help="Folder in a packed model; . for all."),
    ] = None,
    debug: Annotated[bool, _local("--debug", metavar="", help="Log every command.")] = False,
    once: Annotated[bool, _local("--once", metavar="", help="Look once, then end.")] = False,
    general_host: Annotated[
        str, _general("--general_host", metavar="URL", help="What --remote_path is below.")
    ] = "",
    hadoop_bin: Annotated[
        str, _hadoop("--hadoop_bin", metavar="PATH", help="The program hadoop.")
    ] = "",
    fs_name: Annotated[
        str, _hadoop("--fs_name", metavar="URL", help="File system, as hdfs://HOST:PORT.")
    ] = "",
    fs_ugi: Annotated[
        str, _hadoop("--fs_ugi", metavar="USER,PASSWORD", help=f"Who is asking; or {UGI_VARIABLE}.")
    ] = "",
    ftp_host: Annotated[str, _ftp("--ftp_host", metavar="HOST", help="The server.")] = "",
    ftp_port: Annotated[
        int, _ftp("--ftp_port", metavar="N", parser=parse.count, help="Its port.")
    ] = source.FTP_PORT,
    ftp_username: Annotated[
        str, _ftp("--ftp_username", metavar="NAME", help="Anonymous without one.")
    ] = "",
    ftp_password: Annotated[
        str,
        _ftp(
            "--ftp_password",
            metavar="TEXT",
            help="Others on this machine can read it; prefer a file, or "
            f"{PASSWORD_VARIABLE} in the environment.",
        ),
    ] = "",
    ftp_password_file: Annotated[
        Path | None,
        _ftp("--ftp_password_file", metavar="PATH", help="File whose first line it is."),
    ] = None,
    storage_option: Annotated[
        list[str] | None,
        _fsspec(
            "--storage_option",
            metavar="NAME=VALUE",
            help="A storage option of fsspec, as JSON or text; repeat it.",
        ),
    ] = None,
    storage_options_file: Annotated[
        Path | None,
        _fsspec("--storage_options_file", metavar="PATH", help="JSON file with more of them."),
    ] = None,
    max_size: Annotated[
        int,
        _limit("--max_size", metavar="BYTES", parser=parse.size, help="Of a model, and unpacked."),
    ] = LIMITS.size,
    stall_timeout: Annotated[
        float,
        _limit("--stall_timeout", metavar="SECONDS", parser=parse.wait, help="Without a byte."),
    ] = LIMITS.stall_s,
    pull_timeout: Annotated[
        float, _limit("--pull_timeout", metavar="SECONDS", parser=parse.wait, help="Of one pull.")
    ] = LIMITS.whole_s,
) -> int:
    """Bring each new model from a remote place into a local folder."""
    if ftp_host and type_ != source.FTP:
        raise typer.BadParameter(f"--ftp_host goes with --type ftp, not {type_}")
    if general_host and type_ == source.FTP:
        raise typer.BadParameter("--general_host goes with --type general, not ftp")
    inherited_ugi = os.environ.pop(UGI_VARIABLE, "")
    settings = MonitorSettings(
        source=source.SourceSpec(
            type=type_,
            path=remote_path,
            host=ftp_host if type_ == source.FTP else general_host,
            port=ftp_port,
            username=ftp_username,
            password=_password(ftp_password, ftp_password_file, type_),
            hadoop_bin=hadoop_bin,
            fs_name=fs_name,
            fs_ugi=fs_ugi or (inherited_ugi if type_ in {source.HDFS, source.AFS} else ""),
            options=_options(storage_option or [], storage_options_file),
            addresses=Addresses(anything=True),
        ),
        remote_model_name=remote_model_name,
        remote_donefile_name=remote_donefile_name,
        local_path=local_path,
        local_model_name=local_model_name,
        local_timestamp_file=local_timestamp_file,
        local_tmp_path=local_tmp_path,
        interval=interval,
        unpacked_filename=unpacked_filename or "",
        patience=source.Patience(stall_s=stall_timeout, whole_s=pull_timeout, size=max_size),
        once=once,
    )
    from modelcloud.monitors.run import start

    return start(settings, debug=debug)


def _password(text: str, file: Path | None, type_: str) -> str:
    """From its option, its file or the environment, from which it is taken out."""
    inherited = os.environ.pop(PASSWORD_VARIABLE, "")
    if text and file is not None:
        raise typer.BadParameter("give --ftp_password or --ftp_password_file, not both")
    if file is not None:
        text = _read(file, "--ftp_password_file").partition("\n")[0].strip()
        if not text:
            raise typer.BadParameter(f"--ftp_password_file {file} holds no password")
    return text or (inherited if type_ == source.FTP else "")


def _options(texts: list[str], file: Path | None) -> dict[str, Any]:
    """Storage options; those of the command line count before those of the file."""
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(_read(file, "--storage_options_file"))
        except ValueError:
            found = {"": ""}
        if not isinstance(found, dict) or "" in found:
            raise typer.BadParameter(f"--storage_options_file {file} holds no JSON object")
    given = parse.pairs(texts, "--storage_option")
    return found | {name: _json_or_text(text) for name, text in given.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(file: Path, option: str) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise typer.BadParameter(f"{option} {file}: {reason}") from None
