"""The node's process from start to end: what it says, how it ends, what it leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from modelcloud.client import Client
from modelcloud.config import ServeConfig
from modelcloud.serve.launch import spawn_node

MODEL = """
import modelcloud
from modelcloud.data_types import number, text

@modelcloud.setup(options={"word": text(default="one"), "port": text(default="${port}")})
def setup(options):
    return options

@modelcloud.command("ask", inputs={"n": number(default=1)}, outputs={"word": text, "port": text})
def ask(model, inputs):
    return {"word": model["word"], "port": model["port"]}
"""
START_S = 30.0


class Node:
    """A node beside this process; its output in a file."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.model = folder / "model.py"
        if not self.model.exists():
            self.model.write_text(MODEL)
        self.run = folder / "run"
        self.run.mkdir(exist_ok=True)
        self.output = folder / "output.txt"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        config = ServeConfig(**{"target": str(self.model), "port": self.port, **settings})
        self.port = config.port
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.run)}
        with self.output.open("wb") as output:
            self.process = spawn_node(
                config, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        self.client = Client(f"http://127.0.0.1:{self.port}", token="canary")

    def ready(self) -> Node:
        """Wait until it serves."""

        def came() -> bool:
            assert self.process.poll() is None, self.said()
            return self.client.ready()

        _until(came)
        return self

    def said(self) -> str:
        return self.output.read_text("utf-8")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        return self.process.wait(START_S)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Nodes that are killed if the test leaves them."""
    started: list[Node] = []
    yield started
    for node in started:
        node.client.close()
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_says_its_steps_serves_and_ends_with_0_and_nothing_left(
    tmp_path: Path, nodes: list[Node], number: signal.Signals
) -> None:
    node = Node(tmp_path, options_text={"word": "two"})
    nodes.append(node)
    node.ready()
    assert node.client.predict("ask") == {"word": "two", "port": str(node.port)}
    assert node.client.update({"word": "three"})["success"] is True
    assert node.client.predict("ask")["word"] == "three"
    assert node.end(number) == 0
    lines = node.said().splitlines()
    steps = [
        "Initializing model…", "Model initialized (", f"Serving at http://127.0.0.1:{node.port}",
        f"  predict  curl http://127.0.0.1:{node.port}/ask", "Update 2: ", "Stopping: ", "Stopped",
    ]  # fmt: skip
    at = [next(i for i, line in enumerate(lines) if line.startswith(step)) for step in steps]
    assert at == sorted(at), node.said()
    assert list(node.run.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import modelcloud\ndef broken(:\n", "model.py:2"),
        (MODEL.replace("return options", "raise RuntimeError('no weights')"), "no weights"),
        (MODEL.replace('"ask"', '"metrics"'), "accepted: any command name but"),
    ],
)
def test_a_model_that_cannot_be_served_is_said_and_nothing_ever_listened(
    tmp_path: Path, nodes: list[Node], code: str, says: str
) -> None:
    (tmp_path / "model.py").write_text(code)
    node = Node(tmp_path)
    nodes.append(node)
    assert node.process.wait(START_S) == 1
    assert says in node.said().splitlines()[-1]
    assert "Serving at" not in node.said()
    assert list(node.run.iterdir()) == []


def test_a_signal_while_the_model_loads_ends_it_with_0(tmp_path: Path, nodes: list[Node]) -> None:
    slow = MODEL.replace("return options", "import time; print('loading now'); time.sleep(600)")
    (tmp_path / "model.py").write_text(slow)
    node = Node(tmp_path)
    nodes.append(node)
    _until(lambda: "loading now" in node.said())
    assert node.end() == 0
    assert list(node.run.iterdir()) == []


def test_a_second_ctrl_c_does_not_wait_for_what_is_under_way(
    tmp_path: Path, nodes: list[Node]
) -> None:
    endless = MODEL.replace('return {"word"', 'import time; time.sleep(600); return {"word"')
    (tmp_path / "model.py").write_text(endless)
    (tmp_path / "warmup.jsonl").write_text("")  # else the command would be tried before it serves
    node = Node(tmp_path, drain_s=600.0)
    nodes.append(node)
    node.ready()
    with socket.create_connection(("127.0.0.1", node.port)) as client:
        client.sendall(b"POST /ask HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        _until(lambda: _in_flight(node))
        node.process.send_signal(signal.SIGINT)
        _until(lambda: "Stopping: SIGINT" in node.said())
        assert node.process.poll() is None
        assert node.end(signal.SIGINT) == 0
    assert "Stopping at once" in node.said()


def test_a_port_in_use_is_said_with_its_number_within_two_seconds(
    tmp_path: Path, nodes: list[Node]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = Node(tmp_path, port=port)
        nodes.append(node)
        assert node.process.wait(2) == 1
    assert f"127.0.0.1:{port} is already in use" in node.said()
    assert "Initializing" not in node.said()


def test_the_admin_token_is_in_no_argument_environment_or_output(
    tmp_path: Path, nodes: list[Node]
) -> None:
    node = Node(tmp_path, admin_token="canary")
    nodes.append(node)
    node.ready()
    processes = [node.process.pid, *_children(node.process.pid)]
    assert len(processes) == 4  # itself, a gateway, two workers
    for process in processes:
        for file in ("cmdline", "environ"):
            assert b"canary" not in Path(f"/proc/{process}/{file}").read_bytes()
    assert "canary" not in str(node.client.meta())
    assert node.end() == 0
    assert "canary" not in node.said()


def test_it_ends_with_the_process_that_started_it_however_that_ends(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    program = (
        "import sys, time\n"
        "from modelcloud.config import ServeConfig\n"
        "from modelcloud.serve.launch import spawn_node\n"
        f"node = spawn_node(ServeConfig(target={str(tmp_path / 'model.py')!r}, port=0))\n"
        "print(node.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    node = int(starter.stdout.readline())
    for line in starter.stdout:
        if b"Serving at" in line:
            break
    starter.kill()
    rest = starter.stdout.read()  # until every process that holds the pipe has ended
    starter.wait()
    starter.stdout.close()
    assert b"Stopped" in rest
    _until(lambda: not Path(f"/proc/{node}").exists() or _is_zombie(node))


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def _in_flight(node: Node) -> bool:
    metrics = httpx.get(f"http://127.0.0.1:{node.port}/metrics").text
    return 'modelcloud_in_flight{gateway="0"} 1.0' in metrics


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
