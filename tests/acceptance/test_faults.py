"""What breaks costs only itself: workers that crash or hang, no descriptors, a full disk.

Rows of the fault table that an update does not cause; those are in `test_update_under_load`.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.load import failures, load, steady
from support.models import obedient
from support.processes import cpu_s
from support.raw import connect, get, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

#: From this many deaths within a minute on a worker is restarted slowly.
CRASH_LOOP = 5
#: Deadline of a call that never ends.
HUNG_S = 4

#: Notes each start in a file, and dies there if another file says so.
MORTAL = """
import os
from pathlib import Path
import modelcloud
from modelcloud.data_types import number

HERE = Path(__file__).parent

@modelcloud.setup(options={"answer": number(default=1)})
def setup(options):
    with open(HERE / "starts", "a") as starts:
        starts.write(".")
    if (HERE / "deadly").exists():
        os._exit(7)
    return options["answer"]

@modelcloud.command(
    "ask", inputs={"x": number(default=0)}, outputs={"answer": number, "pid": number}
)
def ask(model, inputs):
    return {"answer": model, "pid": os.getpid()}
"""


def in_flight(server: Server) -> int:
    """Requests that workers have now."""
    lines = server.get("/metrics").text.splitlines()
    return sum(
        round(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("modelcloud_in_flight{")
    )


def full_strength(server: Server) -> bool:
    ready = server.get("/readyz")
    workers = ready.json()["workers"]
    return (
        ready.status_code == 200
        and workers["ready"] == workers["wanted"]
        and not ready.json()["degraded"]
    )


def while_passing(seconds: float) -> Iterator[None]:
    """Go round for so long: for what must not happen meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.05)


# ---- workers


def test_a_crash_loop_is_braked_said_and_healed_by_a_good_update(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(MORTAL)
    starts, deadly = tmp_path / "starts", tmp_path / "deadly"
    with serve(model, "--replicas", "2") as server, load(server.port) as running:
        steady(running)
        deadly.touch()
        starts.write_text("")
        os.kill(server.pids("worker")[0], signal.SIGKILL)

        def braked() -> str:
            return "; ".join(server.get("/readyz").json()["reasons"])

        wait_for("the brake", lambda: "restarted slowly" in braked())
        ready = server.get("/readyz")
        assert ready.status_code == 200, "one worker is left"
        assert ready.json()["degraded"] is True
        assert "1 of 2 workers ready" in braked()
        assert "exited with status 7" in braked()
        assert server.get("/healthcheck").json() == {"status": "DEGRADED"}
        wait_for("the log to say it", lambda: "restarted slowly" in server.output)
        assert "exited with status 7" in server.output
        begun = len(starts.read_text())
        assert CRASH_LOOP - 2 <= begun <= CRASH_LOOP + 1
        for _ in while_passing(3):
            assert len(starts.read_text()) <= begun + 1, "a fork storm"
            assert len(server.pids("worker")) <= 2
        deadly.unlink()
        healed = server.update(answer=2)
        assert healed.status_code == 200, healed.text
        wait_for("full strength", lambda: full_strength(server))
        assert server.get("/healthcheck").json() == {"status": "RUNNING"}
        assert server.post("/ask", {}).json()["answer"] == 2
    assert failures(running.samples) == []


def test_with_no_worker_left_readyz_is_503_until_a_good_update(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(MORTAL)
    deadly = tmp_path / "deadly"
    with serve(model, "--replicas", "1") as server:
        deadly.touch()
        os.kill(server.pids("worker")[0], signal.SIGKILL)
        wait_for("the brake", lambda: "restarted slowly" in server.get("/readyz").text)
        ready = server.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["ready"] is False
        assert "no worker is ready" in ready.json()["reasons"]
        health = server.get("/healthcheck")
        assert (health.status_code, health.json()) == (503, {"status": "FAILED"})
        assert server.get("/healthz").status_code == 200, "the server itself lives"
        refused = server.post("/ask", {})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        deadly.unlink()
        assert server.update(answer=2).status_code == 200
        assert server.post("/ask", {}).json()["answer"] == 2
        wait_for("full strength", lambda: full_strength(server))


def test_a_hung_call_costs_its_client_a_504_and_no_other_request(tmp_path: Path) -> None:
    with (
        serve(obedient(tmp_path), "--replicas", "2", "--deadline", f"{HUNG_S}") as server,
        load(server.port) as running,
    ):
        steady(running)
        before = server.pids("worker")
        with ExitStack() as stack:
            hung, busy, *others = [stack.enter_context(connect(server.port)) for _ in range(8)]
            hung.send(post("/misbehave", {"how": "spin"}))
            busy.send(post("/sleep", {"s": 1}))
            wait_for("both workers to be busy", lambda: in_flight(server) >= 2)
            for other in others:  # the workers are even: some of these go to the hung one
                other.send(post("/ask", {}))
            assert {other.read().status for other in (busy, *others)} == {200}
            answer = hung.read()
        assert answer.status == 504
        assert answer.json()["error"]
        wait_for("the stack in the log", lambda: "in misbehave" in server.output)
        wait_for("a replacement", lambda: server.pids("worker") != before
                 and full_strength(server))  # fmt: skip
        assert len(set(before) & set(server.pids("worker"))) == 1, "only one was replaced"
        assert "after its deadline" in server.output
        steady(running)
    assert failures(running.samples) == []
    # What was sent to the hung worker behind that call was given to the other one at once.
    assert max(sample.seconds for sample in running.samples) < HUNG_S / 2


def test_an_answer_that_comes_too_late_reaches_nobody(tmp_path: Path) -> None:
    with (
        serve(obedient(tmp_path), "--replicas", "1", "--deadline", "1") as server,
        connect(server.port) as connection,
    ):
        before = server.pids("worker")
        assert connection.send(post("/sleep", {"s": 1.6})).read().status == 504
        # Next in the same worker, so that its own answer comes right after the late one.
        for value in range(3):
            answer = connection.send(post("/echo", {"value": value})).read()
            assert (answer.status, answer.json()) == (200, {"value": value})
        connection.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.socket.recv(1)
        assert server.pids("worker") == before


# ---- gateways


def test_with_two_gateways_an_update_loses_nothing_and_is_done_in_both(tmp_path: Path) -> None:
    with serve(
        obedient(tmp_path), "--replicas", "1", "--gateways", "2", "--keep-warm", "0"
    ) as server:
        assert len(server.pids("gateway")) == 2
        with load(server.port) as running:
            steady(running)
            for number in range(2, 12):
                answer = server.update(answer=number)
                assert answer.status_code == 200, answer.text
                switched = time.monotonic()
                steady(running)
                later = [s for s in running.samples if s.sent > switched]
                assert {sample.answer for sample in later} == {number}
        assert failures(running.samples) == []


# ---- what the system runs out of


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """A process under a resource limit during the block."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def test_without_descriptors_a_gateway_sheds_load_idly_and_recovers(tmp_path: Path) -> None:
    with serve(obedient(tmp_path), "--replicas", "1") as server:
        (gateway,) = server.pids("gateway")
        with connect(server.port) as early, ExitStack() as stack:
            assert early.send(get("/healthz")).read().status == 200
            with limited(gateway, resource.RLIMIT_NOFILE, 64):
                turned_away = 0
                for _ in range(120):
                    raw = stack.enter_context(connect(server.port))
                    raw.socket.settimeout(10)
                    try:
                        turned_away += raw.send(get("/healthz")).read().status != 200
                    except (OSError, EOFError):
                        turned_away += 1
                assert 20 < turned_away < 120
                assert early.send(post("/ask", {})).read().status == 200, "who is in is served"
                used, began = cpu_s(gateway), time.monotonic()
                for _ in while_passing(2):
                    assert early.send(post("/ask", {})).read().status == 200
                assert cpu_s(gateway) - used < (time.monotonic() - began) / 2, "it spins"
                stack.close()
                wait_for("room again", lambda: _is_served(server.port))
        assert server.pids("gateway") == [gateway]
        assert server.update(answer=2).status_code == 200


def _is_served(port: int) -> bool:
    try:
        with connect(port) as raw:
            return raw.send(post("/ask", {})).read().status == 200
    except (OSError, EOFError):
        return False


def test_a_whole_server_under_a_low_descriptor_limit_serves_and_updates(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with serve(obedient(tmp_path), "--replicas", "2", "--keep-warm", "0") as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
            for client in held:
                client.close()
            wait_for("room again", lambda: _is_served(server.port))
            for number in (2, 3):
                answer = server.update(answer=number)
                assert answer.status_code == 200, answer.text
                assert server.post("/ask", {}).json()["answer"] == number
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_disk_that_takes_no_more_fails_the_update_and_nothing_else(tmp_path: Path) -> None:
    """Stands for a full or read-only disk: the node's writes to files fail."""
    model = obedient(tmp_path)
    with serve(model, "--replicas", "1") as server, load(server.port) as running:
        steady(running)
        model.write_text(model.read_text() + "\n# edited\n")
        with limited(server.process.pid, resource.RLIMIT_FSIZE, 16):
            refused = server.post("/setup", {})
        assert refused.status_code == 422, refused.text
        assert "could not be staged" in refused.json()["error"]
        assert server.post("/ask", {}).headers["x-model-version"] == "1"
        again = server.post("/setup", {})
        assert again.status_code == 200, again.text
        assert server.post("/ask", {}).headers["x-model-version"] == "2"
    assert failures(running.samples) == []
