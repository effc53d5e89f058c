"""A real FTP server of a folder, with one user. Run as a module, it serves until it is ended."""

from __future__ import annotations

import contextlib
import ftplib
import io
import sys
from pathlib import Path

from support.served_folders import ServedFolder, python_server
from support.server import DEADLINE_S

USER, PASSWORD = "modelcloud", "s3cret-ftp-password"


def ftp_folder(folder: Path, *, plain: bool = False) -> ServedFolder:
    """A folder that is served by FTP; `plain`: by a server that knows no MLST and MLSD."""
    served = python_server(folder, "ftp_server", "plain" if plain else "full")
    served.source = [
        "--type", "ftp", "--ftp_host", "127.0.0.1", "--ftp_port", str(served.port),
        "--ftp_username", USER, "--remote_path", "/",
    ]  # fmt: skip
    return served


class Uploads:
    """That folder, from the side of who uploads to it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def put(self, name: str, data: bytes) -> None:
        """Write a file over what is there, as the protocol does: in place."""
        with ftplib.FTP(timeout=DEADLINE_S) as ftp:
            ftp.connect("127.0.0.1", self._port)
            ftp.login(USER, PASSWORD)
            for folder in [*Path(name).parents][-2::-1]:
                with contextlib.suppress(ftplib.error_perm):  # it is there
                    ftp.mkd(str(folder))
            ftp.storbinary(f"STOR {name}", io.BytesIO(data))


def main(port: str, folder: str, kind: str) -> None:
    """Serve."""
    from pyftpdlib.authorizers import DummyAuthorizer  # type: ignore[import-untyped]
    from pyftpdlib.handlers import FTPHandler  # type: ignore[import-untyped]
    from pyftpdlib.servers import FTPServer  # type: ignore[import-untyped]

    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, folder, perm="elradfmwMT")
    authorizer.add_anonymous(folder)
    known = dict(FTPHandler.proto_cmds)
    if kind == "plain":
        known = {name: what for name, what in known.items() if name not in {"MLST", "MLSD"}}

    class Handler(FTPHandler):  # type: ignore[misc]
        proto_cmds = known

    Handler.authorizer = authorizer
    FTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
