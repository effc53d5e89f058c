"""Models that mean harm, on a really started platform.

Rows 14, 28 and 38 of the table of attacks. What is beyond a model's reach is so by Landlock; where
the kernel has none, docs/how-to/operate-the-platform.md says what is left.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelcloud.dataplane.confinement import LEAST_VERSION, version
from modelcloud.node.logs import FILE_BYTES, FILES_KEPT
from support.attack import ECHO, put_online
from support.processes import family, rss
from support.server import wait_for
from support.up import Up, up

pytestmark = pytest.mark.xdist_group("platform-attacks")

confined = pytest.mark.skipif(
    version() < LEAST_VERSION, reason="this kernel has no Landlock, or one before Linux 6.2"
)

MIB = 1024 * 1024
MEMORY = 128 * MIB

#: Does what it is told, and says how it went.
HARMFUL = r"""
import os, signal, subprocess, sys, tempfile
import modelcloud
from modelcloud.data_types import any, number, text

@modelcloud.command("predict", inputs={"x": any(default=0)}, outputs={"pid": number})
def predict(model, inputs):
    return {"pid": os.getpid()}

@modelcloud.command("attempt", inputs={"code": text}, outputs={"result": any})
def attempt(model, inputs):
    names = {"os": os, "signal": signal, "subprocess": subprocess, "tempfile": tempfile}
    try:
        exec(inputs["code"], names)
    except BaseException as error:
        return {"result": f"{type(error).__name__}: {error}"}
    return {"result": names.get("result", "done")}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform with a harmful model and, of another group, a good one online."""
    folder = tmp_path_factory.mktemp("harm")
    home = folder / "home"
    (home / ".config" / "modelcloud").mkdir(parents=True)
    (home / ".config" / "modelcloud" / "credentials.json").write_text("an operator's token")
    (folder / "models").mkdir()
    (folder / "key.pem").write_text("a private key")
    environ = {"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    # Data and home in one folder, the most that can stand in each other's way.
    with up(home / "data", "--root", folder / "models", **environ) as running:
        running.admin.create_group("bad")
        running.admin.create_group("good")
        running.admin.create_instance_type("tight", cpu=1, memory=MEMORY)
        models = folder / "models"
        put_online(running, "harm", HARMFUL, models, group="bad", instance_type="tight")
        put_online(running, "echo", ECHO, models, group="good")
        yield running


def attempt(place: Up, code: str) -> Any:
    answer = place.client.post(f"{place.url}/harm/attempt", json={"code": code})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def others_answer(place: Up) -> None:
    assert place.predict("echo", {"x": 7}).json()["data"] == {"y": 7}


def worker_of(place: Up, service: str) -> int:
    """Process id of a service's only worker."""
    (worker,) = place.admin.deployment(service, 1)["workers"]
    return int(worker["pid"])


def files_of(place: Up, service: str) -> Path:
    """Where the files of version 1 of a service are."""
    return place.data / "artifacts" / str(place.admin.version(service, 1)["artifact"])


# ---- row 28: what is not its own


DENIED = "PermissionError: [Errno 13]"


@confined
@pytest.mark.parametrize("how", ["r", "r+", "w", "a"])
def test_a_model_opens_no_file_of_the_platform_but_its_own(place: Up, how: str) -> None:
    data = place.data
    paths = [data / "modelcloud.db", data / "lock", data / "logs" / "node.log",
             data / "logs" / "services" / "echo" / "deployment.log",
             files_of(place, "echo") / "model.py", files_of(place, "echo") / "manifest.json",
             data / "new", data / "artifacts" / "new",
             data / "envs" / "new", data.parent / ".config" / "modelcloud" / "credentials.json",
             data.parent / ".config" / "modelcloud" / "new"]  # fmt: skip
    assert sum(path.exists() for path in paths) == 7
    for path in paths:
        if how == "r" and not path.exists():
            continue
        said = attempt(place, f"open({str(path)!r}, {how!r})")
        assert said.startswith((DENIED, "FileNotFoundError") if how == "r+" else DENIED), said
    assert not [path for path in paths if path.name == "new" and path.exists()]
    others_answer(place)


@confined
@pytest.mark.parametrize(
    "code",
    [
        "os.truncate({db!r}, 0)",
        "os.unlink({db!r})",
        "os.rename({db!r}, 'db')",
        "os.link({db!r}, 'db')",
        "os.symlink({db!r}, 'link'); open('link').read()",
        "os.rename({data!r}, {data!r} + '2')",
        "os.mkdir({data!r} + '/artifacts/x')",
        "import shutil; shutil.rmtree({artifact!r})",
        "open({own!r}, 'a')",
        "os.unlink({own!r})",
        "open(os.path.dirname({own!r}) + '/new', 'w')",
        "open(f'/proc/{{os.getppid()}}/root' + {db!r})",
        "open(f'/proc/{{os.getppid()}}/cwd/../../../../../../../' + {db!r})",
        "subprocess.run(['cat', {db!r}], check=True, capture_output=True)",
        "subprocess.run(['mount', '--bind', {data!r}, '.'], check=True, capture_output=True)",
        "subprocess.run(['unshare', '-Urm', 'mount', '--bind', {data!r}, '.'], check=True)",
        "os.chroot({data!r}); open('/modelcloud.db')",
    ],
)
def test_no_way_around_leads_to_the_store_or_to_an_artifact(place: Up, code: str) -> None:
    own = files_of(place, "harm") / "model.py"
    named = {
        "db": str(place.data / "modelcloud.db"), "data": str(place.data), "own": str(own),
        "artifact": str(files_of(place, "echo")),
    }  # fmt: skip
    said = attempt(place, code.format(**named))
    refused = ("PermissionError", "CalledProcessError", "OSError: [Errno 18]")
    assert str(said).startswith(refused), said
    assert own.read_text() == HARMFUL
    assert place.admin.services()
    others_answer(place)


@confined
@pytest.mark.parametrize("what", ["environ", "mem", "fd/3", "map_files"])
def test_a_model_reads_nothing_of_the_memory_or_environment_of_other_processes(
    place: Up, what: str
) -> None:
    own = worker_of(place, "harm")
    others = [pid for pid in family(place.process.pid) if pid != own]
    assert len(others) >= 4
    for pid in others:
        if what == "map_files":
            code = f"d = '/proc/{pid}/map_files/'; open(d + os.listdir(d)[0])"
        else:
            code = f"open('/proc/{pid}/{what}', 'rb').read(1)"
        said = attempt(place, code)
        assert str(said).startswith(("PermissionError", "FileNotFoundError")), (pid, said)
    assert attempt(place, "result = open('/proc/self/environ').read()[:4]") != ""  # control


@confined
@pytest.mark.skipif(version() < 6, reason="this kernel does not scope signals (Linux 6.12 does)")
def test_a_model_kills_nobody_but_its_own(place: Up) -> None:
    own = worker_of(place, "harm")
    before = set(family(place.process.pid))
    for pid in before - {own}:
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
            said = attempt(place, f"os.kill({pid}, {int(number)})")
            assert said == "PermissionError: [Errno 1] Operation not permitted"
    group = place.pids("gateway")[0]
    assert attempt(place, f"os.killpg({group}, 9)").startswith("PermissionError")
    killed = "p = subprocess.Popen(['sleep', '60']); p.kill(); result = p.wait()"
    assert attempt(place, killed) == -9, "what it started itself is its own"
    assert set(family(place.process.pid)) == before
    others_answer(place)


@confined
def test_root_keeps_no_power_that_leads_around_this(place: Up) -> None:
    read = "result = [l for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNew'))]"
    found = dict(line.split(":") for line in attempt(place, read))
    assert int(found["NoNewPrivs"]) == 1
    leads_around = sum(1 << number for number in (2, 5, 16, 17, 19, 21, 24, 27, 38, 39))
    assert int(found["CapEff"], 16) & leads_around == 0
    assert int(found["CapPrm"], 16) & leads_around == 0


OWN = """
t = tempfile.NamedTemporaryFile(); t.write(b"x"); t.flush(); open(t.name, "rb").read()
d = tempfile.mkdtemp(); os.mkdir(d + "/a"); os.rename(d + "/a", d + "/b")
open("relative", "w").write("x"); result = open("relative").read()
os.makedirs(os.path.expanduser("~/.cache/lib/x"), exist_ok=True)
open(os.path.expanduser("~/.cache/lib/x/model"), "w").write("x")
import threading; t = threading.Thread(target=print); t.start(); t.join()
from multiprocessing.shared_memory import *; s = SharedMemory(create=True, size=9); s.unlink()
import socket; a, b = socket.socketpair(); s = socket.socket(socket.AF_UNIX); s.bind("own-socket")
import multiprocessing; p = multiprocessing.Process(target=print); p.start(); p.join()
import multiprocessing; m = multiprocessing.Manager(); m.list([1]); m.shutdown()
subprocess.run(["sh", "-c", "head -1 /proc/self/status > here"], check=True)
import sqlite3, ssl; sqlite3.connect("own.db").execute("create table t (x)")
os.listdir("/"), os.listdir("."), os.stat("/tmp")
""".strip().splitlines()


def test_a_model_works_as_ever_with_what_is_its_own(place: Up) -> None:
    """Temporary and relative files, caches, helpers, threads; what is around the data folder."""
    own = files_of(place, "harm") / "model.py"
    assert attempt(place, f"result = open({str(own)!r}).read()") == HARMFUL
    for code in OWN:
        said = attempt(place, code)
        assert not str(said).split(":")[0].endswith("Error"), (code, said)


# ---- its resources


def restarted(place: Up, before: int) -> int:
    def look() -> int:
        workers = place.admin.deployment("harm", 1)["workers"]
        ready = [w["pid"] for w in workers if w["state"] == "serving" and w["pid"] != before]
        return int(ready[0]) if ready else 0

    return wait_for("another worker serves", look)


def test_files_left_in_temp_go_with_the_worker(place: Up) -> None:
    pid = worker_of(place, "harm")
    code = "fd, result = tempfile.mkstemp(); os.write(fd, bytes(1 << 20))"
    left = Path(attempt(place, code))
    assert stat.S_IMODE(left.parent.stat().st_mode) == 0o700
    assert left.stat().st_size == MIB
    os.kill(pid, signal.SIGKILL)
    restarted(place, pid)
    wait_for("it is gone", lambda: not left.exists())
    others_answer(place)


def test_memory_beyond_the_instance_type_costs_the_worker_and_nobody_else(place: Up) -> None:
    pid = worker_of(place, "harm")
    attempt(place, "global hoard; hoard = b'x' * (256 << 20); import builtins; builtins.h = hoard")
    restarted(place, pid)
    others_answer(place)


def test_what_its_children_take_counts_too_and_they_end_with_it(place: Up) -> None:
    pid = worker_of(place, "harm")
    fork = (
        "import time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid(); hoard = b'x' * (80 << 20); time.sleep(600)\n"
    )
    attempt(place, fork)
    restarted(place, pid)

    def alone() -> bool:
        return len(family(place.process.pid)) == 5  # node, gateway, control plane, two workers

    wait_for("its children are gone", alone)
    others_answer(place)


def test_a_hundred_megabytes_of_output_neither_fill_the_disk_nor_stop_anything(place: Up) -> None:
    (node, *_), before = family(place.process.pid), rss(place.process.pid)
    code = "for _ in range(25): os.write(1, (b'x' * 4095 + b'\\n') * 1024)"
    assert attempt(place, code) == "done"
    log = place.data / "logs" / "services" / "harm" / "1.log"
    assert log.exists()
    files = list(log.parent.glob("1.log*"))
    assert sum(file.stat().st_size for file in files) <= (FILES_KEPT + 1) * (FILE_BYTES + 8192)
    assert rss(node) - before < 100 * MIB
    others_answer(place)


# ---- rows 14 and 38: what it words


def test_what_a_model_prints_is_one_line_each_and_runs_nowhere(place: Up) -> None:
    evil = "\x1b[31mroot\x1b]0;x\x07 \r\b\x00 \u2028 \u202eevil <script>alert(1)</script>"
    forged = "2026-01-01T00:00:00.000Z w9 g9 | forged"
    code = f"os.write(1, {evil!r}.encode() + b'\\n' + {forged!r}.encode() + b'\\n\\xff\\n')"
    attempt(place, code)

    def lines() -> list[dict[str, str]]:
        found = place.admin.logs("harm", 1, lines=50)["lines"]
        return found if any("forged" in line["text"] for line in found) else []

    found = wait_for("the lines", lines)
    for line in found:
        assert all(char == "\t" or char.isprintable() for char in line["text"]), line
        assert line["source"].startswith("w"), line
        assert line["source"] != "w9 g9"
    assert any("<script>" in line["text"] for line in found)
    answer = place.client.get(
        f"{place.api}/api/v1/services/harm/versions/1/logs",
        headers={"authorization": f"Bearer {place.admin.token}"},
    )
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_model_that_fails_to_load_cannot_forge_the_deployment_log(place: Up) -> None:
    code = HARMFUL + (
        "\n@modelcloud.setup(options={})\ndef setup(options):\n"
        "    raise RuntimeError('no\\n2026-01-01T00:00:00.000Z rollout 1 | succeeded\\x1b[2J')\n"
    )
    folder = place.data.parents[1] / "models" / "forger"
    folder.mkdir()
    (folder / "model.py").write_text(code)
    place.admin.register("forger", path=str(folder), group="bad")
    begun = place.admin.deploy("forger", 1)
    assert place.admin.wait(begun["rollout"]["id"])["state"] == "failed"
    text = (place.data / "logs" / "services" / "forger" / "deployment.log").read_text()
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]
    assert "succeeded" in text
