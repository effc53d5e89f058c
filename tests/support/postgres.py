"""A real PostgreSQL server for tests: on a unix socket in a folder of its own, gone with them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.programs import program
from support.server import wait_for

#: The server refuses to run as root; the package that brings it brings this user.
_USER = "postgres"
_DEADLINE_S = 60.0

#: Ends the server when standard input closes, so that a killed test run leaves none behind.
_HELD = '"$@" & server=$!; read -r _; kill -QUIT $server; wait $server; rm -rf "$PWD"'


class Postgres:
    """A running server.

    Args:
        folder: where its socket is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def create(self, template: str = "template0") -> str:
        """Make a database, a copy of `template`, and return its name."""
        self._made += 1
        name = f"test_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def execute(self, statement: str) -> None:
        """Run one statement, outside of any transaction, in a database that tests do not use."""
        import psycopg

        address = f"host={self._folder} user={_USER} dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())

    def url(self, name: str) -> str:
        """Where the database `name` is reached."""
        return f"postgresql://{_USER}@/{name}?host={self._folder}"

    def answers(self) -> bool:
        """Whether it takes connections yet."""
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Start a server. Where PostgreSQL is not installed, skips; in CI fails."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    binary = Path(program("postgres", *map(str, installed)))
    # Not below pytest's folder, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="modelcloud-pg-", dir="/tmp"))
    how: dict[str, Any] = {"cwd": folder, "stderr": subprocess.STDOUT}
    if os.geteuid() == 0:
        account = pwd.getpwnam(_USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
        how |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    try:
        with (folder / "log").open("wb") as log:
            how["stdout"] = log
            subprocess.run(
                [binary.with_name("initdb"), "-D", "data", "-U", _USER, "-A", "trust",
                 "-E", "UTF8", "--locale=C", "--no-sync"],
                check=True, **how,
            )  # fmt: skip
            held = subprocess.Popen(
                ["/bin/sh", "-c", _HELD, "sh", binary, "-D", "data", "-k", folder,
                 "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"],
                stdin=subprocess.PIPE, **how,
            )  # fmt: skip
        try:
            server = Postgres(folder)
            wait_for("PostgreSQL takes connections", server.answers, _DEADLINE_S)
            yield server
        finally:
            held.communicate(timeout=_DEADLINE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
