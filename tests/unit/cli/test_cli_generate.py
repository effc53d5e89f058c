"""`generate` reads the command line of `serve` and writes it down absolute and without secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelcloud.cli.parse import TOKEN_VARIABLE
from support.commands import Run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (tmp_path / "model.py").touch()
    (tmp_path / "token").write_text("s3cret")
    return tmp_path


def command_of(out: str) -> str:
    (line,) = [
        line for line in out.replace(" \\\n   ", "").splitlines() if line.startswith("ExecStart=")
    ]
    return line.partition(" serve ")[2]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("model.py", "{here}/model.py"),
        ("model.py:predict", "{here}/model.py:predict"),
        ("package.module:app", "package.module:app"),
        ("model.py --replicas 3 --watch", "{here}/model.py --replicas 3 --watch"),
        ("model.py -o a=1 -o b=x", "{here}/model.py --option a=1 --option b=x"),
        ("model.py --strategy rolling", "{here}/model.py --strategy rolling"),
        ("model.py --max-body 1M", "{here}/model.py --max-body 1048576"),
        ("model.py --keep-warm 0.00001", "{here}/model.py --keep-warm 0.00001"),
        ("model.py --drain 5.0", "{here}/model.py --drain 5"),
        ("model.py --uds http.sock", "{here}/model.py --uds {here}/http.sock"),
        ("model.py --log-dir logs", "{here}/model.py --log-dir {here}/logs"),
        ("model.py --model-path token", "{here}/model.py --model-path {here}/token"),
        ("model.py --model-path hub:x", "{here}/model.py --model-path hub:x"),
        ("model.py --port 8080", "{here}/model.py --port 8080"),
        ("--model model.py --thread 2", "--model {here}/model.py --threads 2"),
        ("model.py --timestamp-file token", "{here}/model.py --timestamp-file token"),
    ],
)
def test_the_command_of_a_unit_is_the_given_one_with_paths_absolute(
    run: Run, here: Path, given: str, written: str
) -> None:
    said = run("generate", "systemd", *given.split(), "--user", "model")
    assert said.status == 0, said.err
    assert command_of(said.out) == written.format(here=here)
    assert f"WorkingDirectory={here}" in said.out


def test_the_admin_token_is_never_written(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("generate", "systemd", "model.py", "--user", "m", "--admin-token-file", "token")
    assert said.status == 0, said.err
    assert f"LoadCredential=admin-token:{here}/token" in said.out
    assert "s3cret" not in said.out
    said = run("generate", "systemd", "model.py", "--user", "m", "--admin-token", "s3cret")
    assert said.status == 2
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    assert run("generate", "systemd", "model.py", "--user", "m").status == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["systemd"],
        ["systemd", "gone.py", "--user", "m"],
        ["systemd", "model.py", "--user", "m", "--bogus"],
        ["systemd", "model.py", "--user", "m", "--port", "0"],
        ["systemd", "model.py", "--user", "m", "--uds", "s", "--port", "80"],
        ["nginx", "model.py", "--listen", "80;"],
        ["nginx", "model.py", "--max-body", "64MB"],
        ["nginx", "model.py", "--output", "gone/site"],
        [],
    ],
)
def test_wrong_usage_is_one_line_and_2_and_writes_nothing(run: Run, arguments: list[str]) -> None:
    said = run("generate", *arguments)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("modelcloud: ")
    assert said.err.count("\n") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="is about root")
def test_root_must_say_whom_the_model_runs_as(run: Run) -> None:
    said = run("generate", "systemd", "model.py")
    assert said.status == 2
    assert "--user" in said.err


def test_output_names_a_file(run: Run, here: Path) -> None:
    said = run("generate", "nginx", "model.py", "--uds", "s", "--output", "site.conf")
    assert (said.status, said.out, said.err) == (0, "", "")
    assert f"server unix:{here}/s;" in (here / "site.conf").read_text()
    assert (
        run("generate", "nginx", "model.py", "--uds", "s").out == (here / "site.conf").read_text()
    )
