"""What the platform costs when nobody asks for anything, and how fast it lists what it has.

`python -m bench.platform` starts a real `modelcloud up` with 100 services of two versions each, 20
of them online, and reads from /proc what each of its processes uses.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench.processes import TICKS, running, tree
from modelcloud.platform import Platform

T = TypeVar("T")

SERVICES = 100
ONLINE = 20
ASKED = 50
PASSWORD = "only for this measurement"
START_S = 120.0
#: After the last deployment: what a start leaves to do is done by then.
QUIET_S = 15.0

MODEL = """
import modelcloud
from modelcloud.data_types import number

@modelcloud.command("ask", inputs={"x": number}, outputs={"result": number})
def ask(model, inputs):
    return inputs["x"]
"""


class Idle(NamedTuple):
    """One kind of process.

    Attributes:
        number: of its processes.
        cpu: percent of a processor that all of them take together.
        memory: resident MB of one.
    """

    number: int
    cpu: float
    memory: float


class Figures(NamedTuple):
    """All that is measured.

    Attributes:
        listing_ms: median and worst of `GET /services`, all of them in one answer.
        status_ms: of `GET /services/<name>/deployments`.
        idle: by process.
        start_s: from `modelcloud up` until everything that was online answers.
    """

    listing_ms: tuple[float, float]
    status_ms: tuple[float, float]
    idle: dict[str, Idle]
    start_s: float


@contextmanager
def up(folder: Path) -> Iterator[tuple[int, Platform]]:
    """A platform on the data below `folder`: its process id, and a connection of the admin's."""
    password = folder / "password"
    password.write_text(PASSWORD)
    log = folder / "up.log"
    command = [
        sys.executable, "-m", "modelcloud.cli.main", "up", "--data", folder / "data", "--port", "0",
        "--control-port", "0", "--root", folder, "--admin-password-file", password,
    ]  # fmt: skip
    with running([*map(str, command)], cwd=folder, env={"NO_COLOR": "1"}, log=log) as process:
        found = _until(lambda: re.findall(r"Control plane at (\S+)", log.read_text()), log)
        with Platform(found[0]) as platform:
            platform.sign_in("admin", PASSWORD)
            yield process.pid, platform


def fill(folder: Path, services: int) -> None:
    """Register one service, and write down that there are so many like it."""
    model = folder / "model" / "model.py"
    model.parent.mkdir()
    model.write_text(MODEL)
    with up(folder) as (_, platform):
        for _ in range(2):
            platform.register("s000", path=str(model), group="admin")
    with closing(sqlite3.connect(folder / "data" / "modelcloud.db")) as store, store:
        for number in range(1, services):
            service = _copy(store, "services", "name = 's000'", name=f"s{number:03}")
            for version in (1, 2):
                _copy(
                    store, "versions", f"service_id = 1 AND number = {version}", service_id=service
                )


def _copy(store: sqlite3.Connection, table: str, where: str, **changes: object) -> int:
    """Insert a row once more with other values; its id."""
    names = [row[1] for row in store.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
    values = ", ".join(f":{name}" if name in changes else name for name in names)
    made = store.execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} WHERE {where}",
        changes,
    )
    return made.lastrowid or 0


def measure(folder: Path, services: int, online: int, seconds: float) -> Figures:
    """Measure it in an empty folder."""
    fill(folder, services)
    with up(folder) as (_, platform):
        for number in range(online):
            begun = platform.deploy(f"s{number:03}", 1, instance_type="unlimited", replicas=1)
            platform.wait(begun["rollout"]["id"])
    began = time.monotonic()
    with up(folder) as (pid, platform):
        _until(lambda: len(platform.services(state="Serving")) == online, folder / "up.log")
        start_s = time.monotonic() - began
        time.sleep(QUIET_S)
        kinds = _kinds(pid)
        before = {kind: sum(map(_cpu_s, pids)) for kind, pids in kinds.items()}
        time.sleep(seconds)
        idle = {
            kind: Idle(
                len(pids),
                (sum(map(_cpu_s, pids)) - before[kind]) / seconds * 100,
                sum(map(_rss_mb, pids)) / len(pids),
            )
            for kind, pids in kinds.items()
        }
        # Last: what answers leave behind in memory is no part of an idle platform.
        listing = _times(platform.services)
        status = _times(lambda: platform.deployments("s000"))
    return Figures(listing, status, idle, start_s)


def _kinds(node: int) -> dict[str, list[int]]:
    """Kind of process → ids, of a node and its children."""
    kinds: dict[str, list[int]] = {"node": [node]}
    for pid in tree(node):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        for kind in ("control", "gateway", "worker"):
            if re.search(rf"modelcloud\.(dataplane\.)?{kind}".encode(), line) and pid != node:
                kinds.setdefault(kind, []).append(pid)
    return kinds


def _cpu_s(pid: int) -> float:
    """Of all its threads; not of its children, which are counted by themselves."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _times(ask: Callable[[], object]) -> tuple[float, float]:
    ask()
    times = []
    for _ in range(ASKED):
        begin = time.monotonic()
        ask()
        times.append((time.monotonic() - begin) * 1000)
    return statistics.median(times), max(times)


def _until(condition: Callable[[], T], log: Path) -> T:
    end = time.monotonic() + START_S
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise SystemExit(f"not within {START_S:.0f} s:\n{log.read_text()}")
        time.sleep(0.05)


def table(figures: Figures) -> list[str]:
    """The figures in Markdown."""
    out = ["| processes | CPU %, all of them | MB (RSS), each |", "|---|---:|---:|"]
    out += [
        f"| {idle.number} {kind} | {idle.cpu:.2f} | {idle.memory:.0f} |"
        for kind, idle in figures.idle.items()
    ]
    out += ["", "| answer | median ms | worst ms |", "|---|---:|---:|"]
    for what, (median, worst) in (
        ("all services", figures.listing_ms),
        ("the deployments of one", figures.status_ms),
    ):
        out.append(f"| {what} | {median:.1f} | {worst:.1f} |")
    return [*out, "", f"From the start to all online: {figures.start_s:.1f} s."]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.platform", description=__doc__)
    parser.add_argument("--services", type=int, default=SERVICES)
    parser.add_argument("--online", type=int, default=ONLINE)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the idle platform")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.services, options.online, options.seconds)
    print(f"{options.services} services of two versions each, {options.online} online, idle:\n")
    print(*table(figures), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
