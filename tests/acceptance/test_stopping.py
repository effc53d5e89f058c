"""However the server is told to end, and whenever: what is under way is answered, nothing is left.

Each server carries a mark in its environment, which all it starts inherits, so that a process is
found whoever its parent is by then.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.load import load
from support.marks import MARK, living
from support.raw import Raw, connect, get, post
from support.server import Server, start, wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

DRAIN_S = 20.0

#: Starts helpers as models do: one in its own group, one in a session of its own.
MODEL = """
import re, subprocess, time
import modelcloud
from modelcloud.data_types import number

@modelcloud.setup(options={"answer": number(default=1), "load_s": number(default=0)})
def setup(options):
    subprocess.Popen(["sleep", "1001"])
    subprocess.Popen(["sleep", "1002"], start_new_session=True)
    time.sleep(options["load_s"])
    return options["answer"]

@modelcloud.command("ask", inputs={"s": number(default=0)}, outputs={"answer": number})
async def ask(model, inputs):
    import asyncio
    await asyncio.sleep(inputs["s"])
    return {"answer": model}

@modelcloud.command("hold", inputs={"s": number(default=0)}, outputs={"answer": number})
def hold(model, inputs):
    if inputs["s"]:
        re.match("(a+)+$", "a" * 60 + "b")  # for ever, in C, with the interpreter locked
    return {"answer": model}

@modelcloud.command("count", inputs={"n": number(default=1)}, outputs={"i": number})
def count(model, inputs):
    for i in range(int(inputs["n"])):
        yield i
"""


class Marked:
    """A server of a model file, not yet waited for, and all processes that came of it.

    Args:
        run: where it makes its run folder.
    """

    def __init__(self, model: Path, run: Path, *arguments: str) -> None:
        self.model, self.run, self.mark = model, run, uuid.uuid4().hex
        self.server = start(
            model, "--port", "0", "--replicas", "1", "--drain", str(DRAIN_S), *arguments,
            cwd=model.parent, **{"XDG_RUNTIME_DIR": str(run), MARK: self.mark},
        )  # fmt: skip

    def living(self) -> dict[int, str]:
        return living(self.mark)

    def helpers(self, seconds: str) -> list[int]:
        return [pid for pid, line in self.living().items() if f"sleep {seconds}" in line]

    def ended(self) -> int:
        """Its exit status; what it leaves counts from the moment it is gone."""
        status = self.server.wait()
        assert self.living() == {}
        assert list(self.run.iterdir()) == []
        return status

    def kill(self) -> None:
        """Leave nothing behind, whatever the test has."""
        if self.server.process.poll() is None:
            self.server.process.kill()
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)
        self.server.wait()
        self.server.client.close()


@contextmanager
def marked(folder: Path, *arguments: str) -> Iterator[Marked]:
    """A server of `MODEL`; killed after the block if the test left it."""
    model = folder / "model.py"
    model.write_text(MODEL)
    with tempfile.TemporaryDirectory() as run, ExitStack() as stack:
        running = Marked(model, Path(run), *arguments)
        stack.callback(running.kill)
        yield running


class Asked:
    """A request under way on a connection of its own, its answer read in a thread."""

    def __init__(self, port: int, path: str, body: Any) -> None:
        self.raw = Raw(port)
        self.raw.send(post(path, body))
        self.answer: Any = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with self.raw.socket:
            try:
                self.answer = self.raw.read()
            except (OSError, EOFError) as error:
                self.answer = error

    def result(self) -> Any:
        self._thread.join()
        return self.answer


def rollout(server: Server) -> dict[str, Any]:
    """The newest one."""
    return dict(server.get("/rollouts").json()["rollouts"][0])


def to_step(running: Marked, step: str) -> None:
    """Begin an update and wait until it is so far."""
    server = running.server
    if step == "steady":
        return
    if step in {"loading", "superseding"}:
        server.post("/setup?wait=false", {"load_s": 600})
        wait_for(step, lambda: rollout(server)["step"] == "loading")
        if step == "superseding":
            server.post("/setup?wait=false", {"load_s": 599})
    elif step == "warming":
        lines = '{"command": "hold", "inputs": {"s": 0}}\n{"command": "ask", "inputs": {"s": 600}}'
        running.model.with_name("warmup.jsonl").write_text(lines)
        server.post("/setup?wait=false", {})
        wait_for(step, lambda: rollout(server)["step"] == "warming")
    elif step == "switching":
        # A gateway that stands still has not acknowledged the new table.
        stopped, _ = server.pids("gateway")
        os.kill(stopped, signal.SIGSTOP)
        server.client.close()
        with connect_to_the_other(server.port) as raw:
            raw.send(post("/setup?wait=false", {"answer": 2})).read()

            def switching() -> bool:
                newest = raw.send(get("/rollouts")).read().json()["rollouts"][0]
                return bool(newest["step"] == "serving" and newest["state"] == "running")

            wait_for(step, switching)
        os.kill(stopped, signal.SIGCONT)
    else:  # "keep-warm", "draining"
        assert server.update(answer=2).status_code == 200
        assert len(server.pids("worker")) == 2


@contextmanager
def connect_to_the_other(port: int) -> Iterator[Raw]:
    """A connection that the gateway of two that does not stand still has taken."""
    for _ in range(100):
        with connect(port) as raw:
            raw.socket.settimeout(1)
            try:
                assert raw.send(get("/healthz")).read().status == 200
            except TimeoutError:
                continue
            yield raw
            return
    raise AssertionError("no gateway answers")


STEPS = ["steady", "loading", "superseding", "warming", "switching", "keep-warm", "draining"]


@pytest.mark.parametrize(
    ("step", "number"),
    [*((step, signal.SIGTERM) for step in STEPS), ("loading", signal.SIGINT),
     ("steady", signal.SIGINT)],
)  # fmt: skip
def test_at_every_step_of_an_update_what_is_under_way_is_answered_and_nothing_is_left(
    tmp_path: Path, step: str, number: signal.Signals
) -> None:
    gateways = "2" if step == "switching" else "1"
    keep_warm = "0" if step == "draining" else "60"
    with marked(tmp_path, "--gateways", gateways, "--keep-warm", keep_warm) as running:
        server = running.server
        server.wait_serving()
        assert running.helpers("1001")
        assert running.helpers("1002")
        under_way = [] if step == "switching" else [Asked(server.port, "/ask", {"s": 6})]
        to_step(running, step)
        under_way += [Asked(server.port, "/ask", {"s": 3}) for _ in range(3)]
        wait_for("them to be under way", lambda: in_flight(server) == len(under_way))
        with load(server.port, body={"s": 0.05}) as traffic:
            wait_for("traffic", lambda: len(traffic.samples) > 50)
            told = time.monotonic()
            server.process.send_signal(number)
            status = running.ended()
            took = time.monotonic() - told
    assert status == 0, server.output
    assert took < DRAIN_S, "nothing had to wait for the end of the drain"
    assert {one.result().status for one in under_way} == {200}, [o.result() for o in under_way]
    assert [s for s in traffic.samples if s.error and s.sent < told] == []
    assert "Stopped" in server.output.splitlines()[-1]
    assert "Traceback" not in server.output


def in_flight(server: Server) -> int:
    """How many long requests workers have now, as the metrics tell."""
    text = server.client.get(server.url + "/metrics").text if not server.client.is_closed else ""
    if not text:
        with connect_to_the_other(server.port) as raw:
            text = raw.send(get("/metrics")).read().body.decode()
    lines = [line for line in text.splitlines() if line.startswith("modelcloud_in_flight{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def test_while_the_first_model_still_loads_it_ends_at_once(tmp_path: Path) -> None:
    with marked(tmp_path, "--option", "load_s=600") as running:
        wait_for("the load", lambda: running.helpers("1001"))
        running.server.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
        assert "Serving at" not in running.server.output


def test_a_second_sigint_hurries(tmp_path: Path) -> None:
    with marked(tmp_path) as running:
        server = running.server
        server.wait_serving()
        long = Asked(server.port, "/ask", {"s": DRAIN_S - 2})
        wait_for("it to be under way", lambda: in_flight(server) == 1)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        wait_for("the drain", lambda: "Stopping: SIGINT" in server.output)
        server.process.send_signal(signal.SIGINT)
        assert running.ended() == 0
        assert time.monotonic() - begun < DRAIN_S / 2
        assert not hasattr(long.result(), "status"), "it was cut off"


def test_a_drain_ends_at_its_deadline_for_a_slow_reader_and_others_are_fine(tmp_path: Path) -> None:
    with marked(tmp_path, "--drain", "3") as running:
        server = running.server
        server.wait_serving()
        with connect(server.port) as slow, connect(server.port) as idle:
            slow.send(post("/count", {"n": 10_000_000}, "Accept: text/event-stream"))
            slow.head()
            assert idle.send(post("/ask", {})).read().status == 200
            other = Asked(server.port, "/ask", {"s": 1})
            wait_for("it to be under way", lambda: in_flight(server) >= 2)
            begun = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert idle.closed(), "an idle client is let go of"
            assert other.result().status == 200
            assert running.ended() == 0
            took = time.monotonic() - begun
            assert 3 <= took < DRAIN_S
            with pytest.raises((EOFError, OSError)):
                b"".join(slow.chunks())


@pytest.mark.parametrize("doing", ["nothing", "load", "call"])
def test_a_killed_node_leaves_no_process_of_its_models_either(tmp_path: Path, doing: str) -> None:
    with marked(tmp_path) as running:
        server = running.server
        server.wait_serving()
        if doing == "load":
            server.post("/setup?wait=false", {"load_s": 600})
            wait_for("the load", lambda: len(running.helpers("1002")) == 2)
        elif doing == "call":
            with connect(server.port) as raw:
                raw.send(post("/hold", {"s": 1}))
                wait_for("the call", lambda: in_flight(server) == 1)
        server.process.kill()
        server.process.wait()
        wait_for("all but the detached helpers to go", lambda: set(running.living())
                 <= set(running.helpers("1002")))  # fmt: skip
        # Those left the process group, out of reach of the kernel; the next start finds them.
        assert list(running.run.iterdir()) != []
        again = Marked(running.model, running.run)
        try:
            again.server.wait_serving()
            wait_for("the detached helpers to go", lambda: running.living() == {})
            again.server.process.send_signal(signal.SIGTERM)
            assert again.ended() == 0
        finally:
            again.kill()
