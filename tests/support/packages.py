"""A folder of packages and its conf.ini, applied by the real command to a running platform."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from support.server import wait_for
from support.up import Up

DEADLINE_S = 180.0

#: Says what it was given and what it finds around it. `{package}` is what it needs of others.
TELLS = """
import os

class Teller:
    def __init__(self, model_path):
        folder, *names = model_path.split(",")
        self.scale = 1
        self._model_init([os.path.join(folder, name) for name in names])

    def _model_init(self, model_path_lst):
        self.models = [open(path).read() for path in model_path_lst]

    def _model_inference(self, param_dict):
        import importlib.metadata, sys
        return {
            "six": importlib.metadata.version("six"),
            "python": list(sys.version_info[:2]),
            "scaled": param_dict["x"] * self.scale,
            "models": self.models,
            "pid": os.getpid(),
        }

    def reconfigure(self, config):
        self.scale = config["scale"]
"""


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


class Folder:
    """`algopkg/`, `Model_ZOO/` and `conf.ini` of a test, and who is signed in.

    Attributes:
        root: where they are.
        port: of the routes.
    """

    def __init__(self, root: Path, running: Up, port: int) -> None:
        self.root = root
        self.port = port
        self.up = running
        self._env = {
            **os.environ,
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "MODELCLOUD_URL": running.api,
            "MODELCLOUD_TOKEN": running.admin.token or "",
        }

    @property
    def conf(self) -> str:
        return (self.root / "conf.ini").read_text()

    @conf.setter
    def conf(self, text: str) -> None:
        stage = self.root / "conf.ini.new"
        stage.write_text(text)
        stage.rename(self.root / "conf.ini")

    def edit(self, old: str, new: str) -> None:
        """Put `new` in place of what stands once in conf.ini."""
        assert self.conf.count(old) == 1, self.conf
        self.conf = self.conf.replace(old, new)

    def package(self, name: str, requirements: str, code: str = TELLS) -> None:
        """Make a package with the real command, and write it."""
        self.done("new", "algopkg", name)
        place = self.root / "algopkg" / name
        (place / "requirements.txt").write_text(requirements)
        (place / "backend.py").write_text(code)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command in the folder; its output is one pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "modelcloud.cli.main", *arguments],
            cwd=self.root,
            env={**self._env, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> Ended:
        """Run a command in the folder to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "modelcloud.cli.main", *arguments],
            cwd=self.root,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def done(self, *arguments: str) -> str:
        """The output of a command that has to succeed."""
        ended = self.run(*arguments)
        assert ended.status == 0, f"{ended.out}\n{ended.err}\n{self.up.output[-4000:]}"
        return ended.out

    def ask(self, route: str, x: int = 1) -> dict[str, Any]:
        """The result at a route, asked by GET with JSON in the body."""
        answer = httpx.request(
            "GET", f"http://127.0.0.1:{self.port}/{route}", json={"x": x}, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == 1, answer.text
        found: dict[str, Any] = answer.json()["result"]
        return found

    def pids(self, route: str, count: int) -> set[int]:
        """Ids of the worker processes at a route, once just so many have answered."""
        found: set[int] = set()

        def all_answered() -> bool:
            found.update(self.ask(route)["pid"] for _ in range(10))
            return len(found) >= count

        wait_for(f"answers of {count} workers", all_answered)
        assert len(found) == count
        return found

    def status(self, route: str) -> int:
        """Of the answer to a GET of a route."""
        url = f"http://127.0.0.1:{self.port}/{route}"
        return httpx.request("GET", url, json={"x": 1}, trust_env=False).status_code
