"""`cluster` runs Ray's own program with defaults that are safe, and says what does not fit."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelcloud.cli import cluster, up
from support.commands import Run


class RaySeen:
    """In place of Ray's program: keeps how it was run."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.env: dict[str, str] = {}
        self.status = 0

    def run(self, command: list[str], *, env: dict[str, str], **_: Any) -> SimpleNamespace:
        self.command, self.env = command, env
        return SimpleNamespace(returncode=self.status, stdout="", stderr="")

    def flag(self, name: str) -> str:
        (found,) = [word for word in self.command if word.startswith(f"{name}=")]
        return found.partition("=")[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cluster, "find_spec", lambda _: True)
    return tmp_path


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> RaySeen:
    seen = RaySeen()
    monkeypatch.setattr(subprocess, "run", seen.run)
    return seen


def test_a_head_has_a_token_and_every_port_a_name(run: Run, ray: RaySeen, home: Path) -> None:
    said = run("cluster", "head", "--host", "10.0.0.1")
    assert said.status == 0, said.err
    assert "modelcloud cluster join 10.0.0.1:6379" in said.out
    assert "--head" in ray.command
    assert ray.env["RAY_AUTH_MODE"] == "token"
    token = home / ".ray" / "auth_token"
    assert len(token.read_text()) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    assert ray.flag("--dashboard-host") == "127.0.0.1"
    ports = [int(word.partition("=")[2]) for word in ray.command if "port=" in word]
    assert len(ports) == len(set(ports)) == 11


def test_a_token_that_is_there_stays(run: Run, ray: RaySeen, home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("mine")
    assert run("cluster", "head", "--host", "10.0.0.1").status == 0
    assert token.read_text() == "mine"


def test_authentication_is_only_off_where_someone_said_so(
    run: Run, ray: RaySeen, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert run("cluster", "join", "10.0.0.1:6379").status == 0
    assert ray.env["RAY_AUTH_MODE"] == "disabled"


def test_without_a_token_nobody_joins(run: Run, ray: RaySeen, home: Path) -> None:
    said = run("cluster", "join", "10.0.0.1:6379")
    assert said.status == 2
    assert f"no token at {home / '.ray' / 'auth_token'}" in said.err
    assert not ray.command


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:", ":6379", "10.0.0.1:99999", "a:b"])
@pytest.mark.parametrize("command", ["join", "status"])
def test_an_address_that_is_none_is_refused(
    run: Run, ray: RaySeen, command: str, address: str
) -> None:
    said = run("cluster", command, address)
    assert said.status == 2
    assert "accepted: HOST:PORT" in " ".join(said.err.split())


def test_a_ray_that_fails_is_a_failure(run: Run, ray: RaySeen) -> None:
    ray.status = 1
    said = run("cluster", "head", "--host", "10.0.0.1")
    assert said.status == 1
    assert "ray start ended with status 1" in said.err


@pytest.mark.parametrize("command", [("cluster", "head"), ("cluster", "status")])
def test_without_ray_it_says_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    said = run(*command)
    assert said.status == 2
    assert "pip install 'modelcloud[platform,ray]'" in said.err


def test_a_platform_on_ray_without_ray_says_how_to_get_it(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "find_spec", lambda name: None if name == "ray" else True)
    said = run("up", "--data", str(home / "data"), "--engine", "ray")
    assert said.status == 2
    assert "pip install 'modelcloud[ray]'" in said.err
    assert not (home / "data").exists()


def test_an_unknown_engine_is_refused(run: Run) -> None:
    said = run("up", "--engine", "k8s")
    assert said.status == 2
    assert "accepted: local, ray" in " ".join(said.err.split())


def test_a_cluster_is_only_named_where_there_is_one(run: Run) -> None:
    said = run("up", "--ray-address", "10.0.0.1:6379")
    assert said.status == 2
    assert "goes with --engine ray" in " ".join(said.err.split())


@pytest.mark.parametrize("ports", ["10002", "200-300", "20000-10000", "a-b", "10002-70000"])
def test_ports_that_are_none_are_refused_before_anything_begins(
    run: Run, ray: RaySeen, ports: str
) -> None:
    said = run("cluster", "head", "--host", "10.0.0.1", "--worker-ports", ports)
    assert said.status == 2
    assert "accepted: FROM-TO" in " ".join(said.err.split())
    assert not ray.command
