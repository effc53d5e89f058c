"""A real nginx in front of a server, as `modelcloud generate nginx` sets it up."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.programs import program
from support.server import DEADLINE_S, wait_for

#: All that a site needs around it; every path is in the test's own folder.
_MAIN = """
daemon off;
worker_processes 2;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def generate(what: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """What `modelcloud generate` writes."""
    command = [sys.executable, "-m", "modelcloud.cli.main", "generate", what]
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Nginx:
    """An nginx with one site.

    Args:
        site: text of the site.
        folder: of its own; its files lie there.
    """

    def __init__(self, site: str, folder: Path) -> None:
        self._program = program("nginx")
        self._folder = folder
        (folder / "site.conf").write_text(site)
        # Started by root it would serve as a user who may not look into a test's folder.
        user = "user root;" if os.getuid() == 0 else ""
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))

    @property
    def command(self) -> list[str]:
        return [self._program, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]

    def check(self) -> str:
        """What `nginx -t` says of the site, which it must accept."""
        done = subprocess.run(
            [*self.command, "-t"], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr


@contextmanager
def nginx(
    folder: Path, *arguments: str | Path, cwd: Path | None = None
) -> Iterator[tuple[int, Path]]:
    """An nginx in front of a server that is served with `arguments`; its port, and its log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    listen = ("--listen", f"127.0.0.1:{port}")
    front = Nginx(generate("nginx", *arguments, *listen, cwd=cwd), folder)
    warnings = [line for line in front.check().splitlines() if re.search(r"\[\w+\]", line)]
    assert warnings == []
    log = folder / "error.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(front.command, stderr=errors, stdin=subprocess.DEVNULL)
    try:
        wait_for("nginx to listen", lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield port, log
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
