"""A really started `modelcloud up`, driven from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelcloud.platform import Platform
from support.server import DEADLINE_S, Server, wait_for

if TYPE_CHECKING:
    import httpx

PASSWORD = "correct horse battery"


class Up(Server):
    """The node of a platform: its addresses, its processes, and who is signed in."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        super().__init__(process)
        self.data = data
        self.api = ""
        self.admin: Platform = Platform("http://127.0.0.1:0")

    def wait_serving(self) -> None:
        """Until both addresses are printed; then sign in as the administrator."""

        def address(pattern: str) -> str:
            if match := re.search(pattern, self.output):
                return match[1]
            assert self.process.poll() is None, self.output
            return ""

        self.url = wait_for("predictions", lambda: address(r"Predictions at (https?://\S+)"))
        self.api = wait_for("the API", lambda: address(r"Control plane at (http://\S+)"))
        self.admin = self.sign_in("admin")

    def sign_in(self, user: str, password: str = PASSWORD) -> Platform:
        """A connection as this user."""
        platform = Platform(self.api)
        platform.sign_in(user, password)
        return platform

    def user(self, name: str) -> Platform:
        """A new user, signed in."""
        self.admin.create_user(name, PASSWORD)
        return self.sign_in(name)

    def predict(self, address: str, body: Any, **headers: str) -> httpx.Response:
        """POST JSON below `/predict/`."""
        return self.client.post(f"{self.url}/predict/{address}", json=body, headers=headers)

    def pids(self, kind: str) -> list[int]:
        """Process ids of the node's children of a kind: worker, gateway or control."""
        return sorted(
            pid
            for pid, line in self.children().items()
            if f"modelcloud.dataplane.{kind}" in line or f"modelcloud.{kind}.main" in line
        )

    def kill_control(self) -> None:
        """End the control plane as a crash would."""
        (pid,) = self.pids("control")
        os.kill(pid, signal.SIGKILL)


def start_up(data: Path, *arguments: str | Path, **env: str) -> Up:
    """Start `modelcloud up` on free ports; it may end by itself."""
    password = data.parent / f"{data.name}.password"
    password.write_text(PASSWORD + "\n")
    command = [
        sys.executable, "-m", "modelcloud.cli.main", "up", "--data", data,
        "--port", "0", "--control-port", "0", "--admin-password-file", password, *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(
        [*map(str, command)],
        env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Up(process, data)


@contextmanager
def up(data: Path, *arguments: str | Path, **env: str) -> Iterator[Up]:
    """A platform that answers; its end by SIGTERM must give status 0."""
    platform = start_up(data, *arguments, **env)
    try:
        platform.wait_serving()
        yield platform
        assert platform.stop() == 0, platform.output
    finally:
        if platform.process.poll() is None:
            platform.process.kill()
            platform.process.wait(DEADLINE_S)
        platform.client.close()
        platform.admin.close()
