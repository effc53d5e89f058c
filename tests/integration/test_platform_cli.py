"""`modelcloud up` and the commands for it, as a user starts them: real processes, a real model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from modelcloud.cli.pack import packed
from support.markdown import ROOT
from support.server import wait_for
from support.up import PASSWORD, Up, up

DEADLINE_S = 60.0
#: As `python -m modelcloud.cli.main`, where a module cannot be imported.
WITHOUT = (
    "import sys; sys.modules[{!r}] = None; from modelcloud.cli.main import main; sys.exit(main())"
)


class Said(NamedTuple):
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


def command(*arguments: str | Path, stdin: str = "", without: str = "", **env: str) -> Said:
    """Run the real command to its end."""
    program = ["-c", WITHOUT.format(without)] if without else ["-m", "modelcloud.cli.main"]
    done = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80", **env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


# ---- starting


def up_fails(*arguments: str | Path, without: str = "") -> Said:
    """Start a platform that does not come up."""
    return command("up", *arguments, "--port", "0", "--control-port", "0", without=without)


def test_the_first_start_shows_a_password_once_and_keeps_no_copy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        first, again = (
            command("up", "--data", tmp_path / "d", "--port", port, "--control-port", "0")
            for _ in range(2)
        )
    assert first.out.startswith("First start. Sign in as: admin   password: ")
    password = first.out.split()[7]
    assert len(password) >= 16
    assert again.out == ""
    for path in (tmp_path / "d").rglob("*"):
        assert path.is_dir() or password.encode() not in path.read_bytes(), path
    for said in (first, again):
        assert said.status == 1
        assert said.err.splitlines()[-1].startswith("modelcloud: ")
        assert "in use" in said.err


def test_a_second_start_on_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data) as first:
        said = up_fails("--data", data)
        assert said.status == 1
        assert said.err == (
            f"modelcloud: the data folder {str(data)!r} is in use by another `modelcloud up` "
            f"(process {first.process.pid})\n"
        )
        assert first.admin.whoami()["user"] == "admin"


def test_where_nothing_can_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "odd" / "lock").mkdir(parents=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "modelcloud.db").write_bytes(b"no database" * 100)
    refused: list[tuple[list[str | Path], int, str]] = [
        (["--data", tmp_path / "file" / "d"], 2, "Not a directory"),
        (["--data", tmp_path / "file"], 2, "File exists"),
        (["--data", tmp_path / "odd"], 2, "Is a directory"),
        (["--data", tmp_path / "damaged"], 1, "damaged"),
        (["--data", tmp_path / "d", "--database", "mysql://x"], 2, "postgresql"),
        (["--data", tmp_path / "d", "--admin-password-file", tmp_path / "no"], 2, "No such file"),
        (["--data", tmp_path / "d", "--tls-key", "k"], 2, "go together"),
    ]
    for arguments, status, words in refused:
        said = up_fails(*arguments)
        assert said.status == status, said
        assert said.out == ""
        assert said.err.startswith("modelcloud: ")
        assert said.err.count("\n") == 1, said.err
        assert words in said.err


@pytest.mark.parametrize("missing", ["sqlalchemy", "fastapi", "argon2", "uvicorn"])
def test_what_is_not_installed_is_named_with_how_to_get_it(tmp_path: Path, missing: str) -> None:
    said = up_fails("--data", tmp_path / "d", without=missing)
    assert said.status == 2
    assert f"needs {missing}" in said.err
    assert "pip install 'modelcloud[platform]'" in said.err
    assert command("--version", without=missing).status == 0
    assert "not signed in" in command(
        "services", without=missing, MODELCLOUD_CONFIG=str(tmp_path / "none")
    ).err  # fmt: skip


# ---- working


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("up") / "data") as platform:
        yield platform


def test_a_model_goes_online_is_updated_and_goes_back(platform: Up, tmp_path: Path) -> None:
    config = str(tmp_path / "credentials.json")

    def line(*arguments: str | Path, stdin: str = "") -> str:
        said = command(*arguments, stdin=stdin, MODELCLOUD_CONFIG=config)
        assert said.status == 0, said.err
        return said.out

    line("login", platform.api, "--user", "admin", stdin=f"{PASSWORD}\n")
    said = line("register", ROOT / "examples" / "fib", "-s", "fib", "-o", "model=big",
                "-o", "version=0.0.1")  # fmt: skip
    assert said == "registered fib version 1 (decorated: fib)\n"
    said = line("deploy", "fib", "1", "--replicas", "2")
    assert said.splitlines()[-1] == "fib: version 1, generation 1 serves"
    assert platform.client.post(f"{platform.url}/fib/fib", json={"n": 10}).status_code == 200
    said = line("update", "fib", "1", "-o", "version=0.0.2")
    assert said.splitlines()[-1] == "fib: version 1, generation 2 serves"
    assert "generation 1 serves" in line("rollback", "fib", "1")
    answer = platform.client.post(f"{platform.url}/predict/fib/1", json={"n": 10})
    assert answer.headers["x-model-generation"] == "1"
    assert "switching" in line("logs", "fib")
    points = wait_for("a point with requests", lambda: line("metrics", "fib", "1").splitlines()[1:])
    assert "M" in points[-1], "memory of its workers"
    line("stop", "fib", "1")
    wait_for("its end", lambda: "Offline" in line("deployments", "fib"))


def test_a_log_is_followed_until_who_reads_has_enough(platform: Up, tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "model.py").write_text("print('one')\nprint('two')\ndef hello(): return 1\n")
    admin = platform.admin
    with packed(model) as (archive, _):
        admin.register("talks", upload=admin.upload(archive)["upload"], main="model.py:hello")
    rollout = admin.wait(admin.deploy("talks", 1)["rollout"]["id"])
    assert rollout["state"] == "succeeded", rollout["reason"]
    wait_for("its output", lambda: admin.logs("talks", 1)["lines"])
    signed_in = {"MODELCLOUD_TOKEN": admin.token or "", "MODELCLOUD_URL": platform.api}
    following = [sys.executable, "-m", "modelcloud.cli.main", "logs", "talks", "1", "-f"]
    with subprocess.Popen(
        following,
        env={**os.environ, **signed_in},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith("| one\n")
        process.stdout.close()
        admin.redeploy("talks", 1)  # which prints again
        assert process.wait(DEADLINE_S) == 1
        assert process.stderr.read() == ""
