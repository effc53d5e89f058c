"""Attacks on a really started platform: what listens, what others may read, where secrets show.

Rows 1, 2, 10, 28 and 39 of the table of attacks.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from modelcloud.errors import ModelcloudError
from modelcloud.platform import Platform
from support.attack import ECHO, ask, bearer, put_online
from support.processes import family, links, sockets
from support.raw import get, post
from support.server import wait_for
from support.up import PASSWORD, Up, up

if TYPE_CHECKING:
    from support.postgres import Postgres

pytestmark = pytest.mark.xdist_group("platform-attacks")

LOOPBACK = "0100007F"  # 127.0.0.1 as /proc/net writes it

#: Each is given to the platform in its own way, and must be nowhere after that.
CANARIES = {
    "MODELCLOUD_TOKEN": "canary-token-5b1c",
    "MODELCLOUD_PASSWORD": "canary-password-9f2e",
    "MODELCLOUD_ADMIN_TOKEN": "canary-admin-77d0",
    "PGPASSWORD": "canary-libpq-31aa",
}
DATABASE_PASSWORD = "canary-database-c40f"

SPY = """
import os
import modelcloud
from modelcloud.data_types import any

@modelcloud.command("predict", inputs={"x": any(default=0)}, outputs={"seen": any})
def predict(model, inputs):
    seen = {"fds": [], "environ": dict(os.environ)}
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            seen["fds"].append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            pass
    with open("/proc/self/cmdline", "rb") as line:
        seen["cmdline"] = line.read().decode("latin-1")
    return {"seen": seen}
"""


class Place(NamedTuple):
    """A running platform with a model of the group `team` online, and all secrets it was given."""

    up: Up
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("platform")
    # As an operator might have made it; the platform makes its own for its user alone.
    (folder / "data").mkdir(mode=0o755)
    (folder / "models").mkdir()
    with up(folder / "data", "--root", folder / "models", **CANARIES) as running:
        running.admin.create_group("team")
        put_online(running, "spy", SPY, folder / "models", group="team", replicas=2)
        yield Place(running, used(running))


def used(platform: Up) -> dict[str, str]:
    """Secrets that came into being, each of them used in every way there is."""
    secrets = {"the administrator's password": PASSWORD, "wrong password": "canary-wrong-password"}
    secrets["changed password"] = "canary-changed-password"
    with platform.user("ann") as ann:
        ann.change_password(PASSWORD, secrets["changed password"])
        secrets["session"] = ann.token or ""
        with pytest.raises(ModelcloudError):
            ann.sign_in("ann", secrets["wrong password"])
        # 400, with the password in a field that is not known.
        body = {"user": "ann", "pass": secrets["wrong password"]}
        assert platform.client.post(f"{platform.api}/api/v1/session", json=body).status_code == 400
    made = platform.admin.create_token("ci", group="team", level="modify")
    secrets["token"] = made["token"]
    for port, path in ((platform.port, "/spy/predict"), (api_port(platform), "/api/v1/services")):
        for token in (made["token"], "canary-unknown-token"):
            for request in (get(path, bearer(token)), post(path, b"{", bearer(token)),
                            get(f"{path}/nowhere", bearer(token)),
                            get(path, bearer(token), method="DELETE")):  # fmt: skip
                assert token.encode() not in ask(port, request).body
    secrets["unknown token"] = "canary-unknown-token"
    platform.admin.update("spy", 1, {})
    return secrets


def api_port(platform: Up) -> int:
    return httpx.URL(platform.api).port or 0


# ---- rows 1 and 2: what listens


def test_only_the_two_addresses_listen_and_only_on_this_machine(place: Place) -> None:
    running = place.up
    found = sockets(family(running.process.pid))
    assert set(found.tcp) == {(LOOPBACK, running.port), (LOOPBACK, api_port(running))}
    assert found.udp == {}
    workers = set(running.pids("worker"))
    assert len(workers) == 2
    assert workers.isdisjoint(set().union(*found.tcp.values())), "a worker holds a client's door"
    assert set(running.pids("gateway")).isdisjoint(found.tcp[LOOPBACK, api_port(running)])
    assert set(running.pids("control")).isdisjoint(found.tcp[LOOPBACK, running.port])


def test_the_sockets_of_workers_are_their_users_alone(place: Place) -> None:
    names = sockets(family(place.up.process.pid)).unix
    assert len(names) == 2, "each worker listens on its own: else this test sees nothing"
    for name in names:
        assert not name.startswith("@"), f"anybody can connect to the abstract socket {name}"
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
        for folder in (Path(name).parent, Path(name).parent.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert folder.stat().st_uid == os.getuid()


# ---- rows 28 and 39: what others can read, and what a worker is given


def test_nothing_in_the_data_folder_can_be_read_or_entered_by_others(place: Place) -> None:
    data = place.up.data
    assert stat.S_IMODE(data.stat().st_mode) == 0o755, "the folder guards nothing in this test"
    entries = [*data.iterdir()]
    assert {entry.name for entry in entries} >= {
        "artifacts", "envs", "lock", "logs", "modelcloud.db", "staging",
    }  # fmt: skip
    for entry in entries:
        assert stat.S_IMODE(entry.stat().st_mode) & 0o077 == 0, entry
    for entry in data.rglob("*"):
        assert stat.S_IMODE(entry.lstat().st_mode) & 0o022 == 0, f"others may write to {entry}"


def test_a_worker_is_given_no_descriptor_and_no_secret_of_the_node(place: Place) -> None:
    answer = place.up.client.post(f"{place.up.url}/spy/predict", json={})
    seen = answer.json()["seen"]
    assert not [link for link in seen["fds"] if link.startswith(str(place.up.data))]
    assert not [link for link in seen["fds"] if "memfd" in link or "modelcloud" in link]
    assert "modelcloud.dataplane.worker" in seen["cmdline"]
    assert "TMPDIR" in seen["environ"], "else this is nobody's environment"
    # PGPASSWORD is a model's own affair where the platform uses no PostgreSQL.
    given = set(CANARIES.values()) & set(seen["environ"].values())
    assert given == {CANARIES["PGPASSWORD"]}
    for pid in place.up.pids("worker"):
        held = sockets([pid])
        assert held.tcp == {}
        assert len([link for link in links(pid) if link.startswith("socket:")]) < 10


def test_no_secret_shows_in_a_file_a_log_or_the_list_of_processes(place: Place) -> None:
    secrets = {**CANARIES, **place.secrets}
    del secrets["PGPASSWORD"]
    check_absent(place.up, secrets)


def check_absent(running: Up, secrets: dict[str, str]) -> None:
    for name, secret in secrets.items():
        assert len(secret) > 10, name
        for where, content in places(running):
            assert secret.encode() not in content, f"{name} shows in {where}"


def places(running: Up) -> Iterator[tuple[str, bytes]]:
    """All that others or a later attacker could read, with where it is."""
    yield "the terminal", running.output.encode()
    pids = family(running.process.pid)
    assert len(pids) >= 3
    for pid in pids:
        for name in ("cmdline", "environ"):
            yield f"{name} of process {pid}", Path(f"/proc/{pid}/{name}").read_bytes()
    files = [path for path in running.data.rglob("*") if path.is_file()]
    assert [path for path in files if path.name.endswith(".log")]
    for path in files:
        yield str(path), path.read_bytes()


def test_a_databases_password_is_known_to_the_control_plane_alone(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = postgres.url(postgres.create()).replace("@/", f":{DATABASE_PASSWORD}@/")
    variables = {**CANARIES, "MODELCLOUD_DATABASE": url}
    (tmp_path / "models").mkdir()
    arguments = ("--root", tmp_path / "models")
    with up(tmp_path / "data", *arguments, **variables) as running:
        put_online(running, "echo", ECHO, tmp_path / "models", group="admin")
        check_absent(running, {**CANARIES, "database": DATABASE_PASSWORD, "url": url})
    # Also where it came in the command line, which is another process's by then.
    with up(tmp_path / "data", *arguments, "--database", url) as running:
        assert running.admin.deployment("echo", 1)["status"] in {"Deploying", "Serving"}
        check_absent(running, {"database": DATABASE_PASSWORD, "url": url})


# ---- row 10: the first password


@contextmanager
def first_start(data: Path) -> Iterator[Up]:
    """A platform that makes up its first password."""
    command = [sys.executable, "-m", "modelcloud.cli.main", "up", "--data", str(data),
               "--port", "0", "--control-port", "0"]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    running = Up(process, data)
    try:
        found = wait_for("an address", lambda: re.findall(r"plane at (\S+)", running.output))
        running.api = found[0]
        yield running
        assert running.stop() == 0, running.output
    finally:
        if process.poll() is None:
            process.kill()
            running.wait()
        running.client.close()


def test_two_installs_differ_in_the_first_password_which_is_told_once(tmp_path: Path) -> None:
    passwords = []
    for name in ("one", "two"):
        with first_start(tmp_path / name) as running:
            told = re.search(r"password: (\S+)", running.output)
            assert told is not None
            passwords.append(told[1])
            assert running.output.count(told[1]) == 1
            with Platform(running.api) as visitor:
                for guess in ("admin", "password", "modelcloud", "", passwords[0][::-1]):
                    with pytest.raises(ModelcloudError):
                        visitor.sign_in("admin", guess)
                visitor.sign_in("admin", told[1])
            running.lines = [line for line in running.lines if told[1] not in line]
            check_absent(running, {"first password": told[1]})
    with first_start(tmp_path / "one") as again:
        assert "password" not in again.output
    assert len(set(passwords)) == 2
    assert all(len(password) >= 20 for password in passwords)
