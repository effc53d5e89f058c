"""The control plane as a process of its own, with the test in the place of the node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcloud.config import PlatformConfig
from modelcloud.control import bootstrap
from modelcloud.dataplane.messages import MessageReader, encode
from modelcloud.node.orders import Answering, CountersRequest, Standing, ToNode
from modelcloud.node.processes import command
from support.control import GIB
from support.server import wait_for

DEADLINE_S = 30.0
PASSWORD = "correct horse battery"


class Plane:
    """The process, and the node's end of its socket."""

    def __init__(self, config: PlatformConfig) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.node, theirs = socket.socketpair()
        self.node.settimeout(DEADLINE_S)
        self._reader = MessageReader(ToNode)
        self._messages: list[Any] = []
        self.process = subprocess.Popen(
            [*command(sys.executable, "modelcloud.control.main"), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), self.listener.fileno()),
        )
        theirs.close()
        standing = Standing(
            config=config,
            port=8080,
            listen_fd=self.listener.fileno(),
            control_port=self.listener.getsockname()[1],
            cpus=2.0,
            memory=GIB,
            gpus=0,
            deployments=0,
        )
        self.node.sendall(encode(standing))

    def wait_for(self, kind: type[Any]) -> Any:
        """The next message of this kind; those before it are dropped."""
        while True:
            while self._messages:
                message = self._messages.pop(0)
                if isinstance(message, kind):
                    return message
            data = self.node.recv(65536)
            assert data, "it hung up"
            self._messages += self._reader.feed(data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.node.close()
        self.listener.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    bootstrap.prepare(PlatformConfig(data=str(tmp_path / "data")), file)
    return tmp_path / "data"


@pytest.fixture
def plane(data: Path) -> Iterator[Plane]:
    made = Plane(PlatformConfig(data=str(data)))
    yield made
    made.close()


def test_it_says_when_it_answers_and_then_people_sign_in(plane: Plane) -> None:
    plane.wait_for(Answering)
    with httpx.Client(base_url=plane.url) as client:
        assert client.get("/readyz").json() == {"status": "ok"}
        answer = client.post("/api/v1/session", json={"user": "admin", "password": PASSWORD})
        assert answer.status_code == 201
        headers = {"authorization": f"Bearer {answer.json()['token']}"}
        node = client.get("/api/v1/node", headers=headers).json()
        assert node["capacity"] == {"cpu": 2.0, "memory": GIB, "gpu": 0.0}
        assert "server" not in answer.headers


def test_it_ends_cleanly_when_asked_to_and_when_the_node_hangs_up(data: Path) -> None:
    for how in ("SIGTERM", "EOF"):
        plane = Plane(PlatformConfig(data=str(data)))
        try:
            plane.wait_for(Answering)
            if how == "EOF":
                plane.node.close()
            else:
                plane.process.send_signal(signal.SIGTERM)
            assert plane.process.wait(DEADLINE_S) == 0, how
        finally:
            plane.close()


def test_who_follows_a_log_does_not_hold_up_its_end(
    plane: Plane, capfd: pytest.CaptureFixture[str]
) -> None:
    plane.wait_for(Answering)
    with httpx.Client(base_url=f"{plane.url}/api/v1", timeout=DEADLINE_S) as client:
        body = {"user": "admin", "password": PASSWORD}
        token = client.post("/session", json=body).json()["token"]
        client.headers["authorization"] = f"Bearer {token}"
        assert client.post("/services", json={"name": "m", "group": "admin"}).status_code == 201
        with client.stream("GET", "/services/m/logs?follow=true") as stream:
            assert stream.status_code == 200
            plane.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):  # so that who follows comes again
                stream.read()
    assert plane.process.wait(DEADLINE_S) == 0
    assert "timeout graceful shutdown exceeded" not in capfd.readouterr().err


def test_without_its_store_it_answers_503_and_goes_on_when_the_store_is_back(
    data: Path,
) -> None:
    database, aside = data / "modelcloud.db", data / "aside"
    database.rename(aside)
    plane = Plane(PlatformConfig(data=str(data)))
    try:
        plane.wait_for(Answering)
        with httpx.Client(base_url=plane.url) as client:
            body = {"user": "admin", "password": PASSWORD}
            answer = client.post("/api/v1/session", json=body)
            assert answer.status_code == 503
            assert str(data) not in answer.text
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
            assert not database.exists(), "an empty store would be a lie"
            aside.rename(database)
            plane.wait_for(CountersRequest)  # its parts begin to work
            wait_for("readiness", lambda: client.get("/readyz").status_code == 200)
            assert client.post("/api/v1/session", json=body).status_code == 201
    finally:
        plane.close()


def test_it_stays_below_its_memory(plane: Plane) -> None:
    plane.wait_for(Answering)
    with httpx.Client(base_url=plane.url) as client:
        client.get("/api/v1/openapi.json")
        body = {"user": "admin", "password": PASSWORD}
        token = client.post("/api/v1/session", json=body).json()["token"]
        client.get("/api/v1/services", headers={"authorization": f"Bearer {token}"})
    pages = int(Path(f"/proc/{plane.process.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 150 * 1024 * 1024
