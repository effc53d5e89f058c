"""Remote folders of every kind that needs no cluster, on real servers of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support import ftp_server, sftp_server
from support.ftp_server import ftp_folder
from support.monitored import Folder, Place
from support.s3_server import s3_bucket
from support.served_folders import running
from support.sftp_server import sftp_folder
from support.web_server import web_folder

KINDS = ("local", "general", "ftp", "plain ftp", "general ftp", "sftp", "s3")


class Remote(NamedTuple):
    """A remote folder, from both of its sides: who writes to it, and who watches it."""

    place: Place
    source: list[str]
    env: dict[str, str]


@contextlib.contextmanager
def remote(kind: str, folder: Path) -> Iterator[Remote]:
    """A new one; what is put there goes by the protocol of its kind, where that can write."""
    files = folder / "remote"
    files.mkdir()
    if kind == "local":
        yield Remote(Folder(files), ["--type", "local", "--remote_path", str(files)], {})
    elif kind == "s3":
        with s3_bucket() as bucket:
            yield Remote(bucket, bucket.source, bucket.env)
    elif kind == "general":
        with running(web_folder(files)) as web:
            yield Remote(web, web.source, {})
    elif kind == "sftp":
        with running(sftp_folder(files)) as sftp:
            yield Remote(sftp_server.Uploads(sftp.port), sftp.source, {})
    else:
        with running(ftp_folder(files, plain=kind == "plain ftp")) as ftp:
            source = ftp.source
            if kind == "general ftp":
                host = f"ftp://127.0.0.1:{ftp.port}"
                source = ["--type", "general", "--general_host", host, "--remote_path", "/"]
            env = {"MODELCLOUD_FTP_PASSWORD": ftp_server.PASSWORD}
            uploads = ftp_server.Uploads(ftp.port)
            yield Remote(uploads, source, env if kind != "general ftp" else {})
