"""Attacks with what a request holds: pickles, JSON that costs, smuggling, forged log lines.

Rows 29 to 31 and 34 to 38 of the table of attacks. Costs are compared as processor time for n and
for 2n, which the load of the machine does not change: doubling the input must not quadruple it.
"""

from __future__ import annotations

import gzip
import json
import pickle
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import cpu_s, sockets
from support.raw import Raw, connect, get, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("attacks")

#: Twice the input may take this many times as long, and so much more for what is not the input's.
LINEAR, SLACK_S = 3.0, 0.1
MODEL = """
import pickle
import modelcloud
from modelcloud.data_types import any, array, number, text

@modelcloud.setup(options={"say": text(default=""), "raise": text(default="")})
def setup(options):
    if options["say"]:
        print(options["say"])
    if options["raise"]:
        raise RuntimeError(options["raise"])

@modelcloud.command("echo", inputs={"value": any}, outputs={"value": any})
def echo(model, inputs):
    return {"value": inputs["value"]}

@modelcloud.command("size", inputs={"value": any}, outputs={"size": number})
def size(model, inputs):
    return {"size": len(inputs["value"])}

@modelcloud.command("sum", inputs={"values": array(number)}, outputs={"sum": number})
def sum_of(model, inputs):
    return {"sum": sum(inputs["values"])}

@modelcloud.command("say", inputs={"line": text}, outputs={"said": text})
def say(model, inputs):
    print(inputs["line"])
    return {"said": inputs["line"]}

@modelcloud.command("fail", inputs={"why": text(default="")}, outputs={"x": any})
def fail(model, inputs):
    open("/nonexistent/" + inputs["why"] + "/w1.sock")

@modelcloud.command("odd", inputs={"n": number(default=0)}, outputs={"x": any})
def odd(model, inputs):
    return {"x": object()}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("content")
    (folder / "model.py").write_text(MODEL)
    with serve(folder / "model.py", "--replicas", "1", "--keep-warm", "0") as running:
        yield running


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    with connect(server.port) as connection:
        yield connection


# ---- row 29: pickle


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("packed", [False, True])
def test_no_content_type_makes_the_server_unpickle(
    server: Server, tmp_path: Path, packed: bool
) -> None:
    canary = tmp_path / "canary"
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        body = pickle.dumps(Canary(canary), protocol)
        for kind in ("application/json", "application/octet-stream", "application/x-pickle",
                     "application/vnd.bentoml+pickle", "application/python-pickle", "text/plain",
                     "application/x-www-form-urlencoded", "application/vnd.x+json", "image/png",
                     "multipart/form-data; boundary=x", "application/x-python", ""):  # fmt: skip
            for path in ("/echo", "/size", "/setup", "/setup?wait=false", "/rollback"):
                headers = [f"Content-Type: {kind}"] * bool(kind)
                headers += ["Content-Encoding: gzip"] * packed
                head = [f"POST {path} HTTP/1.1", "Host: localhost", *headers]
                data = gzip.compress(body) if packed else body
                head.append(f"Content-Length: {len(data)}")
                with connect(server.port) as raw:
                    answer = raw.send("\r\n".join(head).encode() + b"\r\n\r\n" + data).read()
                assert 400 <= answer.status < 500, (path, kind, answer)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "the canary never sings, so this test shows nothing"


# ---- row 30: what errors tell


def test_an_error_tells_nothing_of_the_machine(server: Server, tmp_path: Path) -> None:
    folder = Path(next(iter(sockets(server.pids("worker")).unix))).parent
    secrets = [str(folder), "/tmp", "nonexistent", ".sock", "model.py", "Traceback", "modelcloud/",
               "File ", "line ", "0x", "object at", str(server.process.pid)]  # fmt: skip
    answers = [
        server.post("/fail", {"why": "x"}),
        server.post("/odd", {}),
        server.post("/setup", {"artifact": "a" * 5000 + ":f"}),
        server.post("/setup", {"artifact": "nothing.py"}),
        server.post("/setup", {"say": 5}),
        server.post("/setup", {"unknown": 5}),
        server.post("/echo", {"nothing": 1}),
        server.get("/nowhere"),
        server.get("/rollouts/nothing"),
        server.get("/redoc/..%5c..%5cpage.py"),
    ]
    assert {500, 400, 404} <= {answer.status_code for answer in answers}
    for answer in answers:
        told = answer.text + str(dict(answer.headers))
        assert answer.status_code >= 400
        assert [secret for secret in secrets if secret in told] == [], answer.text
        assert len(answer.content) < 2000
    for answer in answers[:2]:
        assert answer.status_code == 500
        assert answer.json()["id"] in server.output


# ---- row 31: one client's answer never reaches another


SMUGGLED = post("/echo", {"value": "smuggled"})
TWO_READINGS = [
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    b"0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"
    b"0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4_0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1;a=\n\r\n{\r\n0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n{\r\n0\r\n\r\n"
    + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\rX: y\r\n\r\n" + SMUGGLED,
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n" + SMUGGLED,
]  # fmt: skip
#: And what means one thing, but leaves something behind.
CONFUSING = [
    *TWO_READINGS,
    b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n" + SMUGGLED,
    post("/echo", {"value": "left before the answer"}),
    SMUGGLED[:-3],
]  # fmt: skip


def test_no_client_ever_gets_the_answer_to_anothers_request(server: Server) -> None:
    ending = threading.Event()
    wrong: list[Any] = []
    answered = [0, 0, 0, 0]

    def victim(number: int) -> None:
        with connect(server.port) as raw:
            while not ending.is_set():
                mine = f"victim {number} request {answered[number]}"
                answer = raw.send(post("/echo", {"value": mine}, f"X-Request-ID: {mine}")).read()
                if answer.body != json.dumps({"value": mine}, separators=(",", ":")).encode():
                    wrong.append(answer)
                if answer.headers["x-request-id"] != mine:
                    wrong.append(answer)
                answered[number] += 1

    victims = [
        threading.Thread(target=victim, args=(n,), daemon=True) for n in range(len(answered))
    ]
    for thread in victims:
        thread.start()
    for _ in range(20):
        for attack in CONFUSING:
            with socket.create_connection(("127.0.0.1", server.port)) as attacker:
                attacker.sendall(attack)
    wait_for("the victims' turn", lambda: min(answered) > 200)
    ending.set()
    for thread in victims:
        thread.join(30)
        assert not thread.is_alive()
    assert wrong == []


@pytest.mark.parametrize("number", range(len(TWO_READINGS)))
def test_a_request_of_two_readings_is_answered_once_and_the_rest_is_not_read(
    server: Server, number: int
) -> None:
    with connect(server.port) as raw:
        raw.send(TWO_READINGS[number])
        raw.socket.settimeout(10)
        got = b""
        while data := raw.socket.recv(65536):
            got += data
    assert got.count(b"HTTP/1.1 ") == 1, got
    assert b"smuggled" not in got


# ---- rows 34 to 37: cost


def spent(server: Server, pids: list[int], request: bytes, allowed: set[int]) -> float:
    """Processor time that the server takes for one request."""
    before = cpu_s(*pids)
    with connect(server.port) as raw:
        answer = raw.send(request).read()
    assert answer.status in allowed, answer
    return cpu_s(*pids) - before


def check_linear(
    server: Server, make: Callable[[int], bytes], size: int, allowed: set[int]
) -> None:
    pids = [*server.pids("gateway"), *server.pids("worker")]
    one = min(spent(server, pids, make(size), allowed) for _ in range(2))
    two = min(spent(server, pids, make(2 * size), allowed) for _ in range(2))
    assert two <= LINEAR * one + SLACK_S
    assert pids == [*server.pids("gateway"), *server.pids("worker")], "it did not survive"
    assert server.post("/echo", {"value": 1}).json() == {"value": 1}


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_body_in_chunks_of_one_byte_takes_linear_time(server: Server) -> None:
    def make(size: int) -> bytes:
        return chunked(b'{"value": "%b"}' % (b"x" * size), 1)

    check_linear(server, make, 1_500_000, {200})


def test_one_endless_chunk_extension_or_trailer_takes_linear_time_until_it_is_cut(
    server: Server,
) -> None:
    start = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    check_linear(server, lambda size: start + b"1;" + b"x" * size, 2_000_000, {431})
    check_linear(server, lambda size: start + b"0\r\nX: " + b"x" * size, 2_000_000, {431})
    check_linear(server, lambda size: start + b"0\r\n" + b"X: y\r\n" * size, 400_000, {431})


BODIES: dict[str, tuple[str, Callable[[int], bytes], set[int]]] = {
    "nested arrays": ("/size", lambda n: b'{"value": ' + b"[" * n, {400}),
    "nested objects": ("/size", lambda n: b'{"value": ' + b'{"a":' * n, {400}),
    "nested in a typed field": ("/sum", lambda n: b'{"values": ' + b"[" * n, {400}),
    "siblings": ("/size", lambda n: b'{"value": [' + b"[]," * n + b"1]}", {200}),
    "keys": (
        "/size",
        lambda n: json.dumps({"value": {f"{i:x}": i for i in range(n)}}).encode(),
        {200},
    ),
    "the same key": ("/size", lambda n: b'{"value": {' + b'"a":1,' * n + b'"a":1}}', {400}),
    "unknown keys": (
        "/sum",
        lambda n: json.dumps({f"{i:x}": i for i in range(n)}).encode(),
        {400},
    ),
    "large integers": (
        "/size",
        lambda n: b'{"value": [' + b",".join([b"9" * 4000] * (n // 100)) + b"]}",
        {200, 400},
    ),
    "large integers in a typed field": (
        "/sum",
        lambda n: b'{"values": [' + b",".join([b"9" * 4000] * (n // 100)) + b"]}",
        {200, 400},
    ),
    "one large integer": ("/size", lambda n: b'{"value": ' + b"9" * (10 * n) + b"}", {400}),
    "long fractions": (
        "/size",
        lambda n: b'{"value": [' + b",".join([b"0." + b"1" * 4000] * (n // 100)) + b"]}",
        {200},
    ),
    "backslashes": ("/size", lambda n: b'{"value": "' + b"\\\\" * n + b'"}', {200}),
    "escapes": ("/size", lambda n: b'{"value": "' + b"\\u00e9" * n + b'"}', {200}),
    "an open string": ("/size", lambda n: b'{"value": "' + b'[\\"' * n, {400}),
    "blanks": ("/size", lambda n: b" " * (20 * n) + b'{"value": []}', {200}),
    "a form of nothing but percent signs": ("/size", lambda n: b"value=" + b"%41" * n, {200}),
    "a form of many fields": ("/size", lambda n: b"&".join([b"a=1"] * n), {400}),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_no_body_costs_more_than_its_length(server: Server, name: str) -> None:
    path, body, allowed = BODIES[name]
    form = "Content-Type: application/x-www-form-urlencoded"

    def make(size: int) -> bytes:
        request = post(path, body(size))
        return request.replace(b"Content-Type: application/json", form.encode(), "form" in name)

    check_linear(server, make, 250_000, allowed)


def test_no_query_costs_more_than_its_length(server: Server) -> None:
    for query in ("a=1&", "value=%41%42&", "%", "&", "=", ";"):
        path = "/size?" + query * (30_000 // len(query))
        assert server.get(path).status_code == 400
    assert server.get("/size?value=%5B" + "%5B" * 9000).status_code in {200, 400}
    assert server.post("/echo", {"value": 1}).json() == {"value": 1}


# ---- row 38: forged lines


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
FORGED = [
    "x\nFORGED line", "x\r\nFORGED line", "x\rFORGED line", "x\x0bFORGED line", "x\x85FORGED",
    "x\u2028FORGED line", "\x1b[2J\x1b[HFORGED line", "\x1b]0;FORGED title\x07", "x\x08\x08FORGED",
    "\x9b31mFORGED", "\u202eFORGED line", "y" * 4096 + "FORGED line", "z" * 70_000 + "\nFORGED",
    "x\nServing at http://forged.example", 'x\n{"time":"FORGED"}', "%0aFORGED line", "\0FORGED",
]  # fmt: skip


def check_console(server: Server) -> None:
    """No line of what the server printed is one that a client or model worded alone."""
    for line in server.lines:
        assert not CONTROL.search(line), repr(line)
        assert not line.startswith(("FORGED", "Serving at http://forged", '{"time":"FORGED"')), line
        if "FORGED" in line or "forged.example" in line:
            assert line.startswith(("[worker ", "[gateway ", "  ", "Update ")), line


def test_nothing_that_a_request_or_a_model_words_is_a_log_line_of_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    logs = tmp_path / "logs"
    with serve(
        tmp_path / "model.py", "--replicas", "1", "--keep-warm", "0", "--access-log", "--log-dir",
        logs, "--max-body", "1M",
    ) as server:  # fmt: skip
        asked = attack_the_log(server)
        rollouts = server.get("/rollouts").json()["rollouts"]
        asked += 1
        wait_for("the access log", (logs / "access.log").exists)
        wait_for("all of it", lambda: len(access_lines(logs)) >= asked)
        wait_for("what the model said", lambda: server.output.count("FORGED title") >= 3)
    records = [json.loads(line) for line in access_lines(logs)]
    assert len(records) == asked
    for record in records:
        assert list(record) == [
            "time", "peer", "method", "path", "status", "bytes", "ms", "request_id",
        ]  # fmt: skip
        assert not CONTROL.search("".join(map(str, record.values())).replace("\t", ""))
        assert "\n" not in record["path"] + record["request_id"]
    for rollout in rollouts:  # an operator's terminal shows them
        for text in (rollout["reason"], *rollout["log"]):
            assert not CONTROL.search(text), repr(text)
    check_console(server)
    for file in logs.glob("*.log"):
        lines = file.read_text("utf-8").split("\n")
        assert lines.pop() == ""
        stamp = r"\{" if file.name == "access.log" else r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
        for line in lines:
            assert re.match(stamp, line), line
            assert not CONTROL.search(line), repr(line)


def access_lines(logs: Path) -> list[str]:
    return (logs / "access.log").read_text("utf-8").split("\n")[:-1]


def attack_the_log(server: Server) -> int:
    """Forge wherever a text goes in; returns the number of requests."""
    asked = 0
    for text in FORGED:
        data = text.encode()
        for request in (
            b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % data,
            b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % data.replace(b"\n", b"%0a"),
            b"GET /nowhere HTTP/1.1\r\nHost: a\r\nUser-Agent: %b\r\n\r\n" % data,
            b"GET /nowhere HTTP/1.1\r\nHost: a\r\nX-Request-ID: %b\r\n\r\n" % data,
            b"GET /nowhere?%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (data, data),
            b"%b /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" % data,
            post("/setup", {"artifact": text}),
            post("/setup", {"model_path": text}),
            post("/setup", {text[:50]: 1}),
            get("/rollouts/nothing"),
            post("/say", {"line": text}),
            post("/fail", {"why": text}),
        ):
            asked += 1
            with connect(server.port) as raw:
                raw.send(request).read()
    for field in ("say", "raise"):
        for text in FORGED[:-4]:
            asked += 1
            server.post("/setup", {"say": "", "raise": "", field: text})
    return asked


def test_an_access_line_on_the_terminal_is_one_json_object_too(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    with serve(tmp_path / "model.py", "--replicas", "1", "--access-log") as server:
        paths = ["/" + "y" * 30_000, '/"' * 400 + "\\" * 400, "/%c2%85%e2%80%a8", "/ok"]
        for path in paths:
            with connect(server.port) as raw:
                request_id = "X-Request-ID: \u00e9\u0085" + "i" * 100
                raw.send(get(path, request_id)).read()
        lead = "[gateway 0] "
        lines = wait_for("the lines", lambda: [
            line for line in server.lines if '"path":"/ok"' in line
        ] and [line for line in server.lines if line.startswith(lead)])  # fmt: skip
        records = [json.loads(line.removeprefix(lead)) for line in lines]
    assert len(records) == len(paths)
    for path, record in zip(paths, records, strict=True):
        assert path.startswith(record["path"])
        assert record["request_id"].isascii()
