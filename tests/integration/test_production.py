"""In production: behind a real nginx, under a service manager, on a unix socket."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from modelcloud.client import Client
from modelcloud.errors import Forbidden, Unauthorized
from support.load import Sample, failures, load
from support.processes import family
from support.programs import program
from support.proxy import generate, nginx
from support.raw import connect, post
from support.server import DEADLINE_S, Server, serve, start, wait_for

pytestmark = pytest.mark.xdist_group("production")

MODEL = """
import pathlib, time
import modelcloud
from modelcloud.data_types import any, number, text

@modelcloud.setup(options={"answer": number(default=1), "word": text(default="")})
def setup(options):
    return options

@modelcloud.command("ask", inputs={"x": number(default=0)}, outputs={"answer": number})
def ask(model, inputs):
    return {"answer": model["answer"]}

@modelcloud.command("word", inputs={"x": number(default=0)}, outputs={"word": text})
def word(model, inputs):
    return {"word": model["word"]}

@modelcloud.command("echo", inputs={"value": any}, outputs={"value": any})
def echo(model, inputs):
    return {"value": inputs["value"]}

@modelcloud.command("wait_for", inputs={"file": text}, outputs={"step": text})
def wait_for(model, inputs):
    yield "asked"
    while not pathlib.Path(inputs["file"]).exists():
        time.sleep(0.01)
    yield "there"
"""
TOKEN = "s3cret-token"
MAX_BODY = 100_000
#: More than the slowest start of a service manager, of a server and of an update take together.
MANAGER_S = 120.0


class Site(NamedTuple):
    """A server, the port of the nginx in front of it, and the command line of both."""

    server: Server
    port: int
    log: Path
    arguments: tuple[str, ...]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=DEADLINE_S)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """With a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mc-") as name:
        folder = Path(name)
        (folder / "model.py").write_text(MODEL)
        yield folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module", params=["uds", "port"])
def site(request: pytest.FixtureRequest, folder: Path) -> Iterator[Site]:
    place = ("--uds", str(folder / "http.sock"))
    if request.param == "port":
        place = ("--port", str(free_port()))
    (folder / "token").write_text(TOKEN)
    arguments = (
        str(folder / "model.py"), *place, "--gateways", "2", "--max-body", str(MAX_BODY),
        "--admin-token-file", str(folder / "token"),
    )  # fmt: skip
    own = folder / request.param
    own.mkdir()
    with serve(*arguments) as server, nginx(own, *arguments) as (port, log):
        server.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield Site(server, port, log, arguments)


def steady(samples: list[Sample]) -> None:
    enough = len(samples) + 100
    wait_for("steady traffic", lambda: len(samples) >= enough)


def test_an_update_behind_nginx_loses_nothing(site: Site) -> None:
    with load(site.port) as running:
        steady(running.samples)
        answer = site.server.update(answer=2)
        assert answer.status_code == 200, answer.text
        switched = time.monotonic()
        steady(running.samples)
    assert failures(running.samples) == []
    assert {sample.answer for sample in running.samples if sample.sent > switched} == {2}
    assert {sample.kept_alive for sample in running.samples} == {True, False}
    assert site.log.read_text() == ""


def test_the_connections_from_nginx_are_kept(site: Site) -> None:
    def made() -> float:
        lines = site.server.get("/metrics").text.splitlines()
        counts = [line for line in lines if line.startswith("modelcloud_connections_total")]
        return sum(float(line.split()[-1]) for line in counts)

    before = made()
    for _ in range(50):  # each with a connection of its own to nginx
        assert httpx.post(f"http://127.0.0.1:{site.port}/ask", json={}).status_code == 200
    assert made() - before <= 10


def test_a_body_at_the_limit_passes_and_one_over_it_is_refused(site: Site) -> None:
    around = len('{"value":""}')
    for size, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413)):
        body = '{"value":"%s"}' % ("x" * (size - around))
        with connect(site.port) as raw:
            answer = raw.send(post("/echo", body.encode())).read()
        assert answer.status == status, answer.body[:200]


def test_headers_pass_both_ways(site: Site) -> None:
    with connect(site.port) as raw:
        answer = raw.send(post("/ask", {}, "X-Request-ID: r-1")).read()
    assert answer.headers["x-request-id"] == "r-1"
    assert {"x-model-version", "x-model-generation"} <= set(answer.headers)


def test_each_event_of_a_stream_arrives_when_it_is_made(site: Site, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with connect(site.port) as raw:
        raw.send(post("/wait_for", {"file": str(flag)}, "Accept: text/event-stream"))
        status, headers = raw.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        events = raw.chunks()
        assert b"asked" in next(events)
        flag.touch()
        assert b"there" in b"".join(events)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/meta", "/setup", "/rollback", "/rollouts", "/rollouts/1", "/metrics", "/docs.json",
        "/redoc", "/redoc/init.js", "/readyz", "/%73etup", "//setup", "/./setup", "/x/../setup",
        "/setup/", "/setup?wait=false", "/%2573etup", "/rollouts%2f1", "/setup%00", "/setup;x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_address_of_the_server_itself_is_reached(site: Site, method: str, path: str) -> None:
    request = (
        f"{method} {path} HTTP/1.1\r\nHost: model.example\r\nContent-Length: 2\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n{{}}"
    )
    with connect(site.port) as raw:
        assert raw.send(request.encode()).read().status in {400, 404}


def test_health_is_reached(site: Site) -> None:
    assert site.get("/healthz").status_code == 200


SMUGGLED = post("/ask", {"x": 7})
SMUGGLING = {
    "length beside chunked":
        b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n" + SMUGGLED,
    "chunked beside length":
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n"
        b"2\r\n{}\r\n0\r\n\r\n%b" % (12 + len(SMUGGLED), SMUGGLED),
    "folded":
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n"
        b"Content-Length: %d\r\n\r\n0\r\n\r\n%b" % (5 + len(SMUGGLED), SMUGGLED),
    "folded into another":
        b"POST /ask HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n"
        b"Content-Length: %d\r\n\r\n0\r\n\r\n%b" % (5 + len(SMUGGLED), SMUGGLED),
    "two lengths":
        b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: %d\r\n\r\n"
        b"{}%b" % (2 + len(SMUGGLED), SMUGGLED),
    "space before the colon": b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\n{}"
        + SMUGGLED,
    "unknown coding": b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n"
        b"Content-Length: 2\r\n\r\n{}" + SMUGGLED,
    "bare line feeds in a value": b"POST /ask HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunk size with a sign": b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"+2\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_nginx_and_the_server_could_read_differently_is_read_alike(
    site: Site, name: str
) -> None:
    def asked() -> float:
        lines = site.server.get("/metrics").text.splitlines()
        counts = [line for line in lines if line.startswith("modelcloud_requests_total{")]
        return sum(float(line.split()[-1]) for line in counts if 'command="ask"' in line)

    before = asked()
    with connect(site.port) as raw:
        raw.send(SMUGGLING[name])
        raw.socket.shutdown(socket.SHUT_WR)
        answers = b""
        while data := raw.socket.recv(65536):
            answers += data
    # Every request that the model saw has its own answer here: none was slipped in unseen.
    assert asked() - before <= answers.count(b"HTTP/1.1 200")
    with connect(site.port) as raw:  # and the next client gets its own answer
        assert raw.send(post("/echo", {"value": "mine"})).read().json() == {"value": "mine"}


@pytest.fixture
def exposed(site: Site, tmp_path: Path) -> Iterator[str]:
    """Address of an nginx that passes on everything."""
    with nginx(tmp_path, *site.arguments, "--expose-admin") as (port, _):
        yield f"http://127.0.0.1:{port}"


def test_through_nginx_a_change_needs_the_token(site: Site, exposed: str) -> None:
    with Client(exposed) as nobody, pytest.raises(Unauthorized):
        nobody.update({"answer": 3})
    with Client(exposed, TOKEN) as admin:
        assert admin.update({"answer": 4})["success"] is True
        assert admin.predict("ask") == {"answer": 4}
        assert admin.rollouts()


def test_the_docs_page_behind_nginx_may_change_and_a_foreign_one_may_not(exposed: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "sec-fetch-site": "same-origin"}
    for origin, status in ((exposed, 200), ("http://evil.example", 403)):
        headers["origin"] = origin
        answer = httpx.post(f"{exposed}/setup", json={}, headers=headers, timeout=DEADLINE_S)
        assert answer.status_code == status, answer.text


def test_without_a_token_nobody_changes_anything_through_nginx(folder: Path) -> None:
    own = folder / "open"
    own.mkdir()
    arguments = (folder / "model.py", "--uds", folder / "open.sock")
    with (
        serve(*map(str, arguments)) as server,
        nginx(own, *arguments, "--expose-admin") as (port, _),
    ):
        with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Forbidden, match="proxy"):
            client.update()
        with Client(f"unix:{folder}/open.sock") as client:
            assert client.update()["success"] is True
        assert server.update().status_code == 200


# ---- the unix socket


def test_gateways_share_the_socket_and_it_goes_with_the_server(folder: Path) -> None:
    path = folder / "own.sock"
    with serve(str(folder / "model.py"), "--uds", str(path), "--gateways", "2") as server:
        assert f"curl --unix-socket {path} http://localhost/ask" in server.output
        assert path.stat().st_mode & 0o777 == 0o660
        server.client.headers["connection"] = "close"
        for victim in server.pids("gateway"):  # the other one takes over, on the same socket
            os.kill(victim, signal.SIGKILL)
            wait_for("its end", lambda victim=victim: victim not in server.pids("gateway"))  # type: ignore[misc]
            assert server.post("/ask", {}).status_code == 200
            wait_for("two gateways", lambda: len(server.pids("gateway")) == 2)
    assert list(folder.glob("own.sock*")) == []


def test_the_command_line_reaches_a_server_on_a_unix_socket(folder: Path) -> None:
    path = folder / "cli.sock"
    with serve(str(folder / "model.py"), "--uds", str(path)):
        for command in (["update", "-o", "answer=9"], ["rollback"], ["status"]):
            line = [sys.executable, "-m", "modelcloud.cli.main", command[0], f"unix:{path}"]
            done = subprocess.run(
                [*line, *command[1:]], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr


def test_a_socket_that_a_killed_server_left_is_replaced_and_a_live_one_refused(
    folder: Path,
) -> None:
    path = folder / "left.sock"
    arguments = (str(folder / "model.py"), "--uds", str(path))
    first = start(*arguments)
    first.wait_serving()
    first.process.kill()
    first.wait()
    assert path.exists()
    with serve(*arguments):
        second = start(*arguments)
        assert second.wait() == 1
        assert f"{path} is already in use" in second.output
        assert path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a program as somebody else")
def test_another_user_may_predict_on_the_socket_but_not_change(folder: Path) -> None:
    path = folder / "shared.sock"
    with serve(str(folder / "model.py"), "--uds", str(path)):
        folder.chmod(0o711)
        path.chmod(0o666)
        base = ["curl", "-s", "--unix-socket", str(path), "-w", "%{http_code}", "-o", os.devnull]

        def answered(where: str, user: int) -> str:
            asked = [program("curl"), *base[1:], f"http://localhost/{where}", "-d", "{}"]
            return subprocess.run(
                asked, capture_output=True, text=True, user=user, cwd="/", check=True
            ).stdout

        assert answered("ask", 65534) == "200"
        assert answered("setup", 65534) == "403"
        assert answered("setup", 0) == "200"


# ---- the service manager


class Manager:
    """The end of `NOTIFY_SOCKET` that a service manager holds.

    Attributes:
        path: of the socket.
        said: each message's lines, and when they came.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.said: list[tuple[float, list[str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while message := self._socket.recv(65536):
            self.said.append((time.monotonic(), message.decode().split("\n")))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.path)
        self._reader.join(DEADLINE_S)
        self._socket.close()

    def lines(self) -> list[str]:
        """Everything said so far, in order."""
        return [line for _, lines in self.said for line in lines]

    def hear(self, wanted: str) -> None:
        wait_for(wanted, lambda: any(line.startswith(wanted) for line in self.lines()))


@pytest.fixture
def manager(folder: Path) -> Iterator[Manager]:
    path = folder / "notify.sock"
    manager = Manager(path)
    yield manager
    manager.close()
    path.unlink()


def test_the_manager_hears_of_readiness_of_updates_and_of_the_end(
    folder: Path, manager: Manager
) -> None:
    with serve(str(folder / "model.py"), NOTIFY_SOCKET=manager.path) as server:
        manager.hear("READY=1")
        lines = manager.lines()
        ready = lines.index("READY=1")
        assert "STATUS=loading" in lines[:ready]
        assert lines[ready + 1].startswith("STATUS=Serving at http://127.0.0.1:")
        server.update(answer=2)
        # The steps between may be over before they are looked at.
        for step in ("loading", "version 1, generation 2 serves"):
            manager.hear(f"STATUS=Update 2: {step}")
        assert "WATCHDOG=1" not in manager.lines()
        children = [pid for pid in family(server.process.pid) if pid != server.process.pid]
        assert len(children) >= 3
        for pid in children:
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert "STOPPING=1" not in manager.lines()
    manager.hear("STOPPING=1")


def test_the_watchdog_is_fed_only_while_a_gateway_answers(folder: Path, manager: Manager) -> None:
    def fed() -> list[float]:
        return [when for when, lines in manager.said if lines == ["WATCHDOG=1"]]

    place = str(folder / "model.py")
    with serve(place, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="200000") as server:
        wait_for("food", fed)
        for _ in range(4):  # the fourth death is answered after a second
            (gateway,) = wait_for("a gateway", lambda: server.pids("gateway"))
            os.kill(gateway, signal.SIGKILL)
            wait_for("its end", lambda gone=gateway: gone not in server.pids("gateway"))  # type: ignore[misc]
        died = time.monotonic()
        wait_for("a gateway", lambda: server.pids("gateway"))
        wait_for("food after it", lambda: fed()[-1] > died + 0.5)
    times = fed()
    longest = max(later - times[number] for number, later in enumerate(times[1:]))
    assert longest > 1.0, "it was fed while there was no gateway"


def test_a_watchdog_of_another_process_is_not_fed(folder: Path, manager: Manager) -> None:
    watchdog = {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    place = str(folder / "model.py")
    with serve(place, cwd=None, NOTIFY_SOCKET=manager.path, **watchdog) as server:
        server.update(answer=2)
    assert "READY=1" in manager.lines()
    assert "WATCHDOG=1" not in manager.lines()


# ---- the unit


def unit_of(folder: Path, *arguments: str) -> str:
    return generate("systemd", *arguments, "--user", "root", cwd=folder)


def test_systemd_finds_nothing_wrong_with_a_unit(folder: Path) -> None:
    (folder / "token").write_text(TOKEN)
    unit = folder / "modelcloud-test.service"
    unit.write_text(
        unit_of(folder, "model.py", "--uds", "/run/model/http.sock", "--group", "root",
                "--log-dir", "/var/log/model", "--admin-token-file", "token",
                "-o", "word=100% $HOME \"q\" \\ '; ")
    )  # fmt: skip
    done = subprocess.run(
        [program("systemd-analyze"), "verify", str(unit)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_command_of_a_unit_really_starts(folder: Path) -> None:
    word = '100% $HOME ${X} "q" \\ \';'
    unit = unit_of(folder, "model.py", "--uds", "unit.sock", "-o", f"word={word}", "--drain", "1.5")
    assert TOKEN not in unit
    (command,) = [
        line for line in unit.replace("\\\n", " ").splitlines() if line.startswith("ExecStart=")
    ]
    words = [
        word.replace("$$", "$").replace("%%", "%")
        for word in shlex.split(command.removeprefix("ExecStart="))
    ]
    assert Path(words[0]).is_absolute()
    process = subprocess.Popen(
        words, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    server = Server(process)
    try:
        server.wait_serving()
        assert server.post("/word", {}).json() == {"word": word}
    finally:
        assert server.stop() == 0
        server.client.close()


#: A service manager of its own: file systems that it writes to are the test's, and gone with it.
_BOOT = """
set -e
mount --make-rprivate /
for folder in /run /var/log /var/cache /sys/fs/cgroup; do mount -t tmpfs tmpfs $folder; done
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount --make-rshared /
export container=docker SYSTEMD_UNIT_PATH={units}
exec /lib/systemd/systemd --system --unit=test.target
"""
#: What this small machine lacks, and where the output goes.
_DROP_IN = """
[Unit]
DefaultDependencies=no
Wants=
[Service]
StandardOutput=append:{log}
StandardError=append:{log}
WatchdogSec=3
"""


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="a service manager needs root")
def test_under_a_real_systemd_it_starts_reloads_is_watched_and_stops(folder: Path) -> None:
    units, log = folder / "units", folder / "systemd.log"
    (units / "model.service.d").mkdir(parents=True)
    (units / "test.target").write_text("[Unit]\nDefaultDependencies=no\nWants=model.service\n")
    place = ("model.py", "--uds", "/run/model/http.sock", "--group", "www-data")
    unit = unit_of(folder, *place, "--log-dir", "/var/log/model", "--health-timeout", "2")
    (units / "model.service").write_text(unit)
    (units / "model.service.d" / "test.conf").write_text(_DROP_IN.format(log=log))
    boot = folder / "boot.sh"
    boot.write_text(_BOOT.format(units=units))
    spaces = [
        program("unshare"),
        "-p",
        "-f",
        "-m",
        "-i",
        "-u",
        "-C",
        "--mount-proc",
        "--kill-child",
    ]
    outer = subprocess.Popen(
        [*spaces, "bash", str(boot)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def inside(*command: str) -> str:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        assert outer.poll() is None
        if not children:
            return ""
        enter = [program("nsenter"), "-t", children[0], "-m", "-p", "-C", *command]
        return subprocess.run(enter, capture_output=True, text=True, check=False).stdout

    def shown(name: str) -> str:
        return inside("systemctl", "show", "-p", name, "--value", "model").strip()

    def becomes(name: str, value: str) -> None:
        wait_for(f"{name} {value}", lambda: shown(name) == value, MANAGER_S)

    def ask(where: str) -> str:
        socket = "/run/model/http.sock"
        return inside("curl", "-s", "--unix-socket", socket, f"http://localhost/{where}")

    try:
        becomes("ActiveState", "active")
        assert shown("StatusText") == "Serving at unix:/run/model/http.sock"
        assert '"answer":1' in ask("ask?x=1")
        assert inside("stat", "-c", "%a %G", "/run/model/http.sock").split() == ["660", "www-data"]
        assert inside("ls", "/var/log/model").split()
        inside("systemctl", "reload", "model")
        assert '"generation":2' in ask("meta")
        assert shown("ActiveState") == "active"
        main = shown("MainPID")
        inside("kill", "-STOP", main)  # it hangs: the watchdog has it replaced
        wait_for("a restart", lambda: shown("MainPID") not in {main, "0", ""}, MANAGER_S)
        becomes("ActiveState", "active")
        assert '"answer":1' in ask("ask?x=1")
        inside("systemctl", "stop", "model")
        assert shown("ActiveState") == "inactive", log.read_text()
        assert shown("Result") == "success"
        assert inside("ls", "/run/model") == ""
    finally:
        outer.kill()
        outer.wait()
