"""Three hundred updates in a row: nothing is lost, and nothing is left behind.

The last test is the control: the same detector must see a process that really grows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.footprint import Footprint, files, footprint, growth, slope
from support.load import failures, load, mixed
from support.models import obedient
from support.raw import connect, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

UPDATES = 300
WARM_UP = 50
EVERY = 5
#: Fault row 27: a bare interpreter that starts processes stays well below it.
KB_PER_UPDATE = 10.0
#: Of descriptors, threads, zombies and files: what is on its way at any one moment.
COUNT_CHANGE = 2


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """Folders for the run folder and for temporary files, with paths short enough for sockets."""
    with ExitStack() as stack:
        run, temp = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2))
        yield Path(run), Path(temp)


def only_one_worker(server: Server) -> bool:
    """Whether the worker before is gone and reaped, which is when its descriptors are closed."""
    return len(server.pids("worker")) == 1 and not footprint(server.process.pid).zombies


@pytest.mark.timeout(600)
def test_three_hundred_updates_leave_no_trace(
    tmp_path: Path, folders: tuple[Path, Path], record_property: Callable[[str, object], None]
) -> None:
    run, temp = folders
    model = obedient(tmp_path)
    code = model.read_text()
    nodes: list[tuple[int, Footprint]] = []
    gateways: list[tuple[int, Footprint]] = []
    left: list[tuple[int, int]] = []
    with (
        serve(
            model, "--replicas", "1", "--keep-warm", "0", "--log-dir", tmp_path / "logs",
            XDG_RUNTIME_DIR=str(run), TMPDIR=str(temp),
        ) as server,
        connect(server.port) as idle,
        load(server.port, rate=20) as running,
    ):  # fmt: skip
        (gateway,) = server.pids("gateway")
        for number in range(1, UPDATES + 1):
            if number % 3 == 0:  # every third one is of the code, with its snapshot
                model.write_text(f"{code}\n# {number}\n")
            answer = server.update(answer=number)
            assert answer.status_code == 200, answer.text
            assert idle.send(post("/ask", {})).read().json()["answer"] == number
            for path in ("/metrics", "/readyz", "/rollouts", "/docs.json"):
                assert server.get(path).status_code == 200
            if number >= WARM_UP and number % EVERY == 0:
                wait_for("the old worker to go", lambda: only_one_worker(server))
                nodes.append((number, footprint(server.process.pid)))
                gateways.append((number, footprint(gateway)))
                left.append((number, files(run) + files(temp)))
    assert failures(running.samples) == []
    assert mixed(running.samples) == []
    bounds = {"kb_per_step": KB_PER_UPDATE, "count_change": COUNT_CHANGE}
    for name, seen in (("node", nodes), ("gateway", gateways)):
        record_property(f"{name} kB per update", slope([(n, f.rss_kb) for n, f in seen]))
        assert growth(seen, **bounds) == {}, seen  # type: ignore[arg-type]
    third = len(left) // 3
    change = min(count for _, count in left[-third:]) - min(count for _, count in left[:third])
    assert abs(change) <= COUNT_CHANGE, left
    assert (list(run.iterdir()), list(temp.iterdir())) == ([], [])


LEAKING = """
import os, sys, threading
kept = []
for line in sys.stdin:
    step = int(line)
    kept.append(b"x" * 12_000)
    if step % 30 == 0:
        kept.append(os.pipe())
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        if os.fork() == 0:
            os._exit(0)
    print(step, flush=True)
"""


def test_the_detector_sees_what_really_leaks() -> None:
    """Control: if this finds nothing, the soak could not have found anything either."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", LEAKING],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        seen = []
        for step in range(1, UPDATES + 1):
            process.stdin.write(f"{step}\n")
            assert process.stdout.readline() == f"{step}\n"
            if step >= WARM_UP and step % EVERY == 0:
                seen.append((step, footprint(process.pid)))
        process.stdin.close()
    found = growth(seen, kb_per_step=KB_PER_UPDATE, count_change=COUNT_CHANGE)
    assert set(found) == {"rss_kb", "anonymous_kb", "fds", "threads", "zombies"}, found
    assert growth(seen, kb_per_step=1e9, count_change=10**9) == {}
