"""Requests to the control plane that are malformed, slow or huge, on a really started platform.

Rows 30 to 38 of the table of attacks: the parser, its limits, what JSON may hold, what is left in
the logs, and what an answer tells once things are broken.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcloud.control.web.connection import HEAD_S, MAX_HEAD
from support.attack import ECHO, MIB, Place, ask, asked, bearer, put_online, state, unharmed
from support.processes import cpu_s
from support.programs import program
from support.raw import Answer, Raw, connect, get, post
from support.server import wait_for
from support.up import Up, up

pytestmark = pytest.mark.xdist_group("platform-attacks")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with asked(tmp_path_factory.mktemp("requests")) as found:
        yield found


@pytest.fixture(autouse=True)
def it_lives(place: Place) -> Iterator[None]:
    with unharmed(place):
        yield


# ---- row 31: framing


HEAD = b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + NEXT,
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + NEXT,
        HEAD + b"Content-Length: +2\r\n\r\n{}" + NEXT,
        HEAD + b"Content-Length: -1\r\n\r\n{}" + NEXT,
        HEAD + b"Content-Length: 0x2\r\n\r\n{}" + NEXT,
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}" + NEXT,
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + NEXT,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n" + NEXT,
        HEAD + b"X: a\r\n b\r\n\r\n" + NEXT,
        HEAD + b"X: a\0b\r\n\r\n" + NEXT,
        HEAD + b"X: a\rb\r\n\r\n" + NEXT,
        HEAD + b"X a\r\n\r\n" + NEXT,
        HEAD + b"Host: evil.example\r\nContent-Length: 0\r\n\r\n",
        NEXT.replace(b"\r\n", b"\n"),
        NEXT.replace(b"HTTP/1.1", b"HTTP/1.1\n", 1),
        NEXT.replace(b"HTTP/1.1", b"HTTP/9.9", 1),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 50,
        b"\0" * 100 + b"\r\n\r\n",
    ],
    ids=lambda data: ascii(data[-60:])[:70],
)
def test_what_has_two_readings_is_refused_and_the_rest_is_not_read(
    place: Place, request_: bytes
) -> None:
    with connect(place.port) as raw:
        raw.send(request_)
        answer = raw.read()
        assert answer.status in {400, 403}, answer
        if answer.status == 400:
            assert raw.closed(), "it went on to what came behind"


def test_answers_come_in_the_order_of_their_requests_each_by_its_own_token(place: Place) -> None:
    admin = get("/api/v1/users", bearer(place.admin))
    reader = get("/api/v1/session", bearer(place.reader))
    nobody = get("/api/v1/users")
    with connect(place.port) as raw:
        raw.send((admin + nobody + reader + NEXT) * 25)
        for _ in range(25):
            assert len(raw.read().json()["items"]) == 2
            assert raw.read().status == 401
            assert raw.read().json()["user"] == "reader"
            assert raw.read().json() == {"status": "ok"}


def test_old_http_is_answered_once(place: Place) -> None:
    with connect(place.port) as raw:
        raw.send(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert raw.read().status == 200
        assert raw.closed()
    assert ask(place.port, b"GET /healthz HTTP/1.0\r\n\r\n").status == 403, "no Host"


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0"])
def test_nothing_is_upgraded_to(place: Place, upgrade: str) -> None:
    headers = (f"Upgrade: {upgrade}", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: x",
               "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    assert ask(place.port, get("/api/v1/users", *headers)).status == 401
    assert ask(place.port, get("/api/v1/session", bearer(place.admin), *headers)).status == 200


# ---- rows 32 to 34: slow and large


def test_silent_and_slow_clients_are_hung_up_on_and_the_others_answered(place: Place) -> None:
    """More of them than may be connected at a time; then their places are free again."""
    (control,) = place.up.pids("control")
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(place.port)) for _ in range(520)]
        for number, raw in enumerate(silent):
            if number % 3 == 1:
                raw.send(b"GET /healthz HTTP/1.1\r\nHo")
            elif number % 3 == 2:
                raw.send(NEXT[:-2] + b"Content-Length: 99\r\n\r\nx")
        began, used = time.monotonic(), cpu_s(control)
        assert ask(place.port, NEXT).status == 503

        def room() -> bool:
            for raw in silent[1::3]:
                drip(raw)
            return ask(place.port, NEXT).status == 200

        wait_for("there is room again", room, HEAD_S + 10)
        assert time.monotonic() - began > 1, "else they took no place"
        assert cpu_s(control) - used < 5
        wait_for("all of them are gone", lambda: all(gone(raw) for raw in silent), HEAD_S + 10)


def drip(raw: Raw) -> None:
    with suppress(OSError):
        raw.send(b"s")


def gone(raw: Raw) -> bool:
    raw.socket.setblocking(False)
    try:
        while raw.socket.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize(
    ("what", "split"),
    [("header", 1), ("header", 7), *((what, split) for split in (4000, 10**9)
     for what in ("header", "headers", "tiny", "target", "name"))],
)  # fmt: skip
def test_a_head_beyond_the_limit_is_cut_however_it_comes(
    place: Place, what: str, split: int
) -> None:
    size = MAX_HEAD + 1000 if split < 100 else 8 * MAX_HEAD
    request = {
        "header": get("/healthz", "X: " + "x" * size),
        "headers": get("/healthz", *[f"X{n}: {'x' * 20}" for n in range(size // 20)]),
        "tiny": get("/healthz", *["a:"] * 20_000),
        "target": get("/healthz?" + "x" * size),
        "name": get("/healthz", "x" * size + ": x"),
    }[what]
    with connect(place.port) as raw:
        try:
            for start in range(0, len(request), split):
                raw.send(request[start : start + split])
        except ConnectionError:
            return
        try:
            assert raw.read().status == 431
        except (EOFError, ConnectionError):
            return  # it hung up while we still sent


@pytest.mark.parametrize("part", ["trailer", "extension"])
def test_what_belongs_to_no_body_has_a_limit_too(place: Place, part: str) -> None:
    start = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    endless = b"0\r\n" + b"X: y\r\n" * 200_000 if part == "trailer" else b"2;" + b"x" * 2 * MIB
    with connect(place.port) as raw:
        try:
            raw.send(start + endless)
            assert raw.read().status in {400, 431}
        except (EOFError, ConnectionError):
            pass


def test_a_body_is_counted_and_not_believed(place: Place) -> None:
    path = "/api/v1/groups"
    told = get(path, bearer(place.admin), "Content-Length: 5000000", method="POST")
    assert ask(place.port, told).status == 413
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunked = get(path, bearer(place.admin), "Transfer-Encoding: chunked", method="POST")
    with connect(place.port) as raw:
        try:
            raw.send(chunked + chunk * 20 + b"0\r\n\r\n")
            assert raw.read().status == 413
        except (EOFError, ConnectionError):
            pass


def test_a_body_in_chunks_of_one_byte_takes_linear_time(place: Place) -> None:
    body = json.dumps({"name": "x" * 900_000}).encode()
    request = get("/api/v1/groups", bearer(place.admin), "Transfer-Encoding: chunked",
                  "Content-Type: application/json", method="POST")  # fmt: skip
    (control,) = place.up.pids("control")
    before = cpu_s(control)
    with connect(place.port) as raw:
        raw.send(request + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert raw.read().status == 400
    assert cpu_s(control) - before < 8


# ---- rows 35 to 37: what JSON may hold


BODIES = {
    "deep": b"[" * 250_000,
    "deep object": b'{"name":' * 100_000,
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"cpu": Infinity}',
    "out of range": b'{"cpu": 1e999}',
    "surrogate": b'{"name": "\\ud800"}',
    "long integer": b'{"cpu": ' + b"9" * 900_000 + b"}",
    "bytes": b"\xff\xfe{}",
    "many keys": b"{" + b",".join(b'"k%d":1' % n for n in range(60_000)) + b"}",
    "long key": b'{"' + b"k" * 900_000 + b'": 1}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "nothing": b"",
    "comment": b'{"name": "x"} // x',
    "two": b'{"name": "x"}{"name": "y"}',
    "single": b"{'name': 'x'}",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_plain_json_is_400_at_every_door(place: Place, name: str) -> None:
    before = state(place)
    (control,) = place.up.pids("control")
    used = cpu_s(control)
    for path in ("/session", "/groups", "/instance-types", "/services/echo/deployments"):
        answer = ask(place.port, post(f"/api/v1{path}", BODIES[name], bearer(place.admin)))
        assert answer.status == 400, (path, answer)
        problem = answer.json()
        assert problem["status"] == 400
        assert len(answer.body) < 20_000
    assert cpu_s(control) - used < 5
    assert state(place) == before


def test_an_answer_is_never_larger_than_what_it_answers(place: Place) -> None:
    wrong = {"weights": {str(number): "x" for number in range(60_000)}}
    request = post("/api/v1/services/echo/traffic", wrong, bearer(place.admin))
    answer = ask(place.port, request.replace(b"POST", b"PUT", 1))
    assert answer.status == 400
    assert len(answer.body) < 20_000
    assert answer.json()["detail"].endswith("; and 59980 more")


@pytest.mark.parametrize("number", [-1, 10**18 + 10**18, 2**63, 10**400, "x", [], {}], ids=repr)
def test_a_number_that_does_not_fit_is_400(place: Place, number: Any) -> None:
    for path, body in (
        ("instance-types", {"name": "odd", "cpu": 1, "memory": number}),
        ("tokens", {"name": "t", "level": "read", "expires_in_s": number}),
        ("services/echo/versions", {"path": "/x", "version": number}),
        ("services/echo/deployments", {"version": number, "instance_type": "small"}),
        ("services/echo/deployments", {"version": 1, "replicas": number}),
        ("services/echo/deployments/1/scale", {"replicas": number}),
    ):
        answer = ask(place.port, post(f"/api/v1/{path}", body, bearer(place.admin)))
        assert answer.status in {400, 404}, (path, answer)


def test_of_a_key_given_twice_the_last_counts_for_all(place: Place) -> None:
    """One parser reads it, once: nobody checks the one and uses the other."""
    body = b'{"name": "twice", "name": "../x"}'
    assert ask(place.port, post("/api/v1/groups", body, bearer(place.admin))).status == 400


# ---- rows 30, 38 and 39: what is told, and what is left in logs


def test_what_a_client_words_is_no_line_of_a_log_and_no_escape(place: Place) -> None:
    evil = "x\x1b[31m\x07\u202eroot"
    forged = "\r\n2026-01-01T00:00:00.000Z INFO forged"
    for value in (evil, forged, evil + forged):
        body = {"user": value, "password": value}
        assert ask(place.port, post("/api/v1/session", body)).status in {400, 401, 429}
        body = {"name": value, "description": value}
        assert ask(place.port, post("/api/v1/groups", body, bearer(place.admin))).status == 400
    for path in ("/api/v1/%0d%0a2026-01-01%20forged", "/api/v1/services/%1b%5b31m/logs"):
        ask(place.port, get(path, bearer(place.admin), "User-Agent: forged \x1b[31m"))
    description = {"description": evil + forged}
    request = post("/api/v1/groups/team", description, bearer(place.admin))
    ask(place.port, request.replace(b"POST", b"PATCH", 1))
    for file in place.up.data.rglob("*.log*"):
        text = file.read_text()
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if line.startswith("2026-01-01")], file
    assert "\x1b" not in place.up.output
    for entry in place.up.admin.audit(limit=200):
        assert "\n" not in str(entry["name"])
        assert all(char.isprintable() for char in entry["name"]), entry


def test_junk_fills_no_log(place: Place) -> None:
    log = place.up.data / "logs" / "control.log"
    before = log.stat().st_size if log.exists() else 0
    for _ in range(300):
        ask(place.port, b"\0\r\n\r\n")
        ask(place.port, get("/healthz", "Upgrade: websocket", "Connection: upgrade"))
    after = log.stat().st_size if log.exists() else 0
    assert after - before < 10_000


TELLS = re.compile(
    r"Traceback|File \"|\.py\b|/tmp/|/home/|/root|/usr/|site-packages|sqlite|SELECT |0x[0-9a-f]{6}",
    re.IGNORECASE,
)


def tells(answer: Answer, root: Path) -> str:
    """What of the machine an answer tells; the roots are told to who may register from them."""
    found = TELLS.search(answer.body.decode().replace(str(root), "ROOT"))
    return found[0] if found else ""


REQUESTS = [
    ("GET", "/services", None), ("GET", "/users/admin", None), ("POST", "/groups", {"name": "x9"}),
    ("POST", "/services/echo/deployments/1/scale", {"replicas": 1}),
    ("POST", "/services/echo/deployments/1/update", {"options": {"x": 1}}),
    ("POST", "/services/echo/versions", {"path": "/x"}), ("GET", "/audit", None),
    ("GET", "/services/echo/logs", None), ("GET", "/services/echo/versions/1/logs", None),
    ("GET", "/rollouts", None), ("POST", "/session", {"user": "admin", "password": "wrong word"}),
    ("POST", "/uploads", None), ("GET", "/node", None),
    ("DELETE", "/services/echo/versions/1", None),
]  # fmt: skip


def everything(platform: Up) -> Iterator[Answer]:
    port, token = httpx.URL(platform.api).port or 0, platform.admin.token
    for method, path, body in REQUESTS:
        request = post(f"/api/v1{path}", b"" if body is None else body, bearer(token))
        if path == "/uploads":
            request = request.replace(b"application/json", b"application/octet-stream")
        yield ask(port, request.replace(b"POST", method.encode(), 1))
    for path in ("/echo/setup", "/echo/meta", "/echo/docs.json", "/echo/redoc"):
        yield ask(platform.port, get(path, bearer(token)))
    yield ask(platform.port, post("/echo/setup", {"options": {}}, bearer(token)))


@pytest.mark.parametrize("trouble", ["store gone", "store corrupt", "read-only", "disk full"])
def test_when_things_break_an_answer_tells_nothing_of_the_machine(
    tmp_path: Path, trouble: str
) -> None:
    small = trouble in {"read-only", "disk full"}
    data = tmp_path / "data"
    data.mkdir()
    models = tmp_path / "models"
    models.mkdir()
    with ExitStack() as stack:
        if small:
            mounted(stack, data)
        running = stack.enter_context(up(data, "--root", models))
        put_online(running, "echo", ECHO, models, group="admin")
        broken(running, trouble, stack)
        answers = list(everything(running))
        assert {answer.status for answer in answers} <= {
            200, 201, 202, 204, 400, 401, 403, 404, 409, 422, 500, 503, 507,
        }  # fmt: skip
        assert {answer.status for answer in answers} & {500, 503, 507}, "nothing is broken"
        assert [told for answer in answers if (told := tells(answer, models))] == []
        assert running.predict("echo", {"x": 3}).json()["data"] == {"y": 3}
        assert len(running.pids("control")) == 1


def mounted(stack: ExitStack, folder: Path) -> None:
    """A file system of its own for the data folder."""
    mount = [program("mount"), "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    stack.callback(subprocess.run, [program("umount"), "-l", str(folder)], check=True)


def broken(running: Up, trouble: str, stack: ExitStack) -> None:
    data = running.data
    if trouble == "read-only":
        remount = [program("mount"), "-o", "remount,ro,force", str(data)]
        if subprocess.run(remount, check=False, capture_output=True).returncode:
            # Files are open for writing: what cannot be made read-only is filled to the last byte.
            broken(running, "disk full", stack)
        return
    if trouble == "disk full":
        with (data / "filler").open("wb", buffering=0) as filler:
            for piece in (bytes(65536), b"x"):
                with suppress(OSError):
                    while True:
                        filler.write(piece)
        return
    for suffix in ("", "-wal", "-shm"):
        file = data / f"modelcloud.db{suffix}"
        if trouble == "store gone":
            file.unlink(missing_ok=True)
        elif file.exists():
            file.write_bytes(b"\0garbage" * 4096)
