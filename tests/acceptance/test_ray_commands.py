"""`modelcloud cluster` begins a cluster that only holders of its token may join or look at."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.online import online
from support.ray_cluster import RayNode, free_range
from support.server import wait_for

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: make test-ray"),
]

COMES_S = 120.0


class Machine:
    """A user's home on a machine of the cluster, who types `modelcloud cluster …`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.token = folder / ".ray" / "auth_token"
        self.env = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
        self.env.update(HOME=str(folder), NO_COLOR="1", PYTHONUNBUFFERED="1")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "modelcloud.cli.main", "cluster", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.env, capture_output=True, text=True, timeout=COMES_S, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def stays(self, *arguments: str) -> Iterator[RayNode]:
        """A command that stays in front, and has begun; all that it started ends with the block."""
        log = self.folder / f"{arguments[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(*arguments, "--block"),
                env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        node = RayNode(process, log)

        def started() -> bool:
            assert process.poll() is None, node.output
            return "Ray runtime started" in node.output

        try:
            wait_for("the cluster", started, COMES_S)
            yield node
        finally:
            node.kill()


def test_a_cluster_is_begun_joined_looked_at_and_served_from(tmp_path: Path) -> None:
    base = free_range()
    short = Path(tempfile.mkdtemp(prefix="mc-ray-", dir="/tmp"))  # Ray keeps sockets there
    head, other = Machine(tmp_path / "head"), Machine(tmp_path / "other")
    address = f"127.0.0.1:{base}"
    first = (
        "--host", "127.0.0.1", "--port", str(base), "--dashboard-port", str(base + 9),
        "--worker-ports", f"{base + 10}-{base + 100}", "--cpus", "3",
        "--temp-dir", str(short / "1"),
    )  # fmt: skip
    second = (
        "--host", "127.0.0.1", "--port", str(base + 110),
        "--worker-ports", f"{base + 130}-{base + 210}", "--cpus", "2",
        "--temp-dir", str(short / "2"),
    )  # fmt: skip
    try:
        with head.stays("head", *first) as begun:
            assert f"modelcloud cluster join {address}" in begun.output
            assert str(head.token) in begun.output
            assert head.token.stat().st_mode & 0o777 == 0o600
            assert head.token.read_text() not in begun.output

            said = other.run("join", address, *second)
            assert said.returncode == 2
            assert f"no token at {other.token}" in said.stderr
            other.token.parent.mkdir()
            other.token.write_text("0" * 64)
            assert other.run("join", address, *second, "--block").returncode == 1
            shutil.copy(head.token, other.token)
            with other.stays("join", address, *second):
                nodes = json.loads(head.run("status", address, "--json").stdout)["nodes"]
                assert sorted(node["cpus"] for node in nodes) == [2, 3]
            env = {"HOME": str(head.folder), "RAY_AUTH_MODE": "token"}
            arguments = ("--engine", "ray", "--ray-address", address, "--ray-http-port",
                         str(base + 8))  # fmt: skip
            with online(tmp_path, *arguments, **env) as site:
                site.deploy(site.register())
                shown = json.loads(head.run("status", address, "--json").stdout)
                (application,) = shown["applications"]
                assert (application["state"], application["running"]) == ("running", 1)
            shown = json.loads(head.run("status", address, "--json").stdout)
            assert shown["applications"] == [], "a platform that ends leaves nothing behind"
        said = head.run("status", address)
        assert said.returncode == 1
        assert f"the cluster at '{address}' cannot be reached" in said.stderr
    finally:
        shutil.rmtree(short, ignore_errors=True)
