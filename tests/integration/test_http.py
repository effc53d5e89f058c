"""HTTP/1.1 as real clients and proxies speak it, and as attackers do."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator

import pytest

from support.models import obedient
from support.raw import Raw, connect, get, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("http")

BODY_LIMIT = 2 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http")
    with serve(
        obedient(folder), "--replicas", "1", "--max-body", str(BODY_LIMIT), "--header-timeout", "2",
        "--idle-timeout", "4", "--cors", "https://app.example", "--deadline", "20",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    with connect(server.port) as connection:
        yield connection


def alive(server: Server) -> bool:
    with connect(server.port) as other:
        return other.send(post("/ask", {})).read().status == 200


# ---- what clients do


def test_a_connection_is_kept_and_every_answer_names_what_answered(raw: Raw) -> None:
    ids = set()
    for _ in range(3):
        answer = raw.send(post("/ask", {"x": 1})).read()
        assert answer.status == 200
        assert answer.json()["answer"] == 1
        assert answer.headers["x-model-version"] == answer.headers["x-model-generation"] == "1"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["date"].endswith("GMT")
        ids.add(answer.headers["x-request-id"])
    assert len(ids) == 3


def test_requests_that_repeat_their_head_are_told_apart_from_those_that_nearly_do(raw: Raw) -> None:
    for value in ("a", "b" * 50, "", "c" * 70_000, "d"):
        assert raw.send(post("/echo", {"value": value})).read().json() == {"value": value}
    named = raw.send(post("/echo", {"value": 1}, "X-Request-ID: mine")).read()
    assert named.headers["x-request-id"] == "mine"
    assert raw.send(post("/echo", b"{nonsense}")).read().status == 400
    assert raw.send(post("/ask", {})).read().json()["answer"] == 1
    assert raw.send(post("/echo", {"value": 2}) + post("/echo", {"value": 3})).read().json() == {
        "value": 2
    }
    assert raw.read().json() == {"value": 3}
    whole = post("/echo", {"value": 4})
    raw.send(whole[:-3])
    assert raw.send(whole[-3:]).read().json() == {"value": 4}
    assert raw.send(post("/echo", {"value": 5}).replace(b"POST", b"BREW")).read().status == 400


def test_a_request_id_is_passed_through(raw: Raw) -> None:
    answer = raw.send(post("/ask", {}, "X-Request-ID: abc-123")).read()
    assert answer.headers["x-request-id"] == "abc-123"


def test_pipelined_requests_are_answered_in_their_order(raw: Raw) -> None:
    raw.send(b"".join(
        post("/echo", {"value": n}) if n % 3 else post("/sleep", {"s": 0.01}, f"X-Request-ID: {n}")
        for n in range(150)
    ))  # fmt: skip
    for n in range(150):
        answer = raw.read()
        assert answer.status == 200
        if n % 3:
            assert answer.json() == {"value": n}
        else:
            assert answer.headers["x-request-id"] == str(n)


def test_an_early_answer_waits_for_the_one_before_it(raw: Raw) -> None:
    raw.send(post("/slow", {"s": 0.2}) + get("/nowhere") + post("/echo", {"value": 3}))
    assert [raw.read().status for _ in range(3)] == [200, 404, 200]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_chunked_body_is_taken(raw: Raw, size: int) -> None:
    body = json.dumps({"value": "x" * 150_000}).encode()
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    raw.send(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        + b"0\r\n\r\n"
    )
    assert len(raw.read().json()["value"]) == 150_000


def test_a_request_may_arrive_byte_by_byte(raw: Raw) -> None:
    for byte in post("/ask", {"x": 1}):
        raw.send(bytes([byte]))
    assert raw.read().status == 200


def test_expect_100_continue_is_answered_before_the_body(raw: Raw) -> None:
    request = post("/ask", {"x": 1}, "Expect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    assert raw.send(head + b"\r\n\r\n").read().status == 100
    assert raw.send(body).read().status == 200


def test_a_body_that_will_be_too_large_is_refused_instead_of_continued(raw: Raw) -> None:
    raw.send(b"POST /ask HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
             b"Content-Length: %d\r\n\r\n" % (BODY_LIMIT + 1))  # fmt: skip
    assert raw.read().status == 413


def test_head_gives_the_length_without_the_body(raw: Raw) -> None:
    got = raw.send(get("/ask?x=1")).read()
    head = raw.send(get("/ask?x=1", method="HEAD")).read(head_only=True)
    assert head.status == got.status == 200
    assert int(head.headers["content-length"]) == len(got.body)
    assert raw.send(get("/healthz")).read().json() == {"status": "ok"}


def test_options_lists_the_methods(raw: Raw) -> None:
    answer = raw.send(get("/ask", method="OPTIONS")).read()
    assert answer.status == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert raw.send(get("*", method="OPTIONS")).read().status == 204


def test_a_page_of_the_allowed_origin_may_read_the_answer(raw: Raw) -> None:
    answer = raw.send(post("/ask", {}, "Origin: https://app.example")).read()
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    other = raw.send(post("/ask", {}, "Origin: https://evil.example")).read()
    assert "access-control-allow-origin" not in other.headers
    preflight = raw.send(get("/ask", "Origin: https://app.example", method="OPTIONS")).read()
    assert "POST" in preflight.headers["access-control-allow-methods"]


def test_a_gzipped_body_is_taken_and_capped(raw: Raw) -> None:
    body = gzip.compress(json.dumps({"value": "y" * 1000}).encode())
    answer = raw.send(post("/echo", body, "Content-Encoding: gzip")).read()
    assert answer.json() == {"value": "y" * 1000}
    bomb = gzip.compress(b" " * (64 << 20))
    assert raw.send(post("/echo", bomb, "Content-Encoding: gzip")).read().status == 413
    assert raw.send(post("/echo", b"{}", "Content-Encoding: br")).read().status == 415


def test_http_1_0_is_answered_and_closed_unless_it_asks_otherwise(server: Server) -> None:
    with connect(server.port) as one:
        assert one.send(b"GET /healthz HTTP/1.0\r\n\r\n").read().headers["connection"] == "close"
        assert one.closed()
    with connect(server.port) as two:
        request = b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        assert two.send(request).read().headers["connection"] == "keep-alive"
        assert two.send(request).read().status == 200


def test_connection_close_is_answered_then_closed(raw: Raw) -> None:
    answer = raw.send(post("/ask", {}, "Connection: close") + b"trailing rubbish").read()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_an_upgrade_is_answered_as_a_plain_request(raw: Raw) -> None:
    answer = raw.send(get("/healthz", "Connection: Upgrade", "Upgrade: websocket")).read()
    assert answer.status == 200


def test_a_client_that_half_closes_still_gets_its_answer(raw: Raw) -> None:
    raw.send(post("/sleep", {"s": 0.1}))
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.read().status == 200
    assert raw.closed()


def test_a_large_body_and_a_large_answer_pass_whole(raw: Raw) -> None:
    value = "z" * (BODY_LIMIT - 100)
    assert raw.send(post("/echo", {"value": value})).read().json()["value"] == value


def test_a_generator_is_streamed_to_who_accepts_it_and_else_gives_its_last_value(raw: Raw) -> None:
    for command in ("/count", "/acount"):
        raw.send(post(command, {"n": 3}, "Accept: text/event-stream"))
        status, headers = raw.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        events = b"".join(raw.chunks()).decode()
        assert events == "".join(f'data: {{"i":{i}}}\n\n' for i in range(3))
        assert raw.send(post(command, {"n": 3})).read().json() == {"i": 2}


def test_a_slow_reader_of_a_stream_holds_up_the_generator_not_the_server(server: Server) -> None:
    with connect(server.port) as slow:
        slow.send(post("/count", {"n": 1_000_000}, "Accept: text/event-stream"))
        slow.head()
        assert alive(server)
        assert next(slow.chunks()) == b'data: {"i":0}\n\n'
    wait_for("the cancelled stream to free its worker", lambda: alive(server))


# ---- what attackers and mistakes do: 4xx, never a hang, never a second reading


MALFORMED = {
    "content-length beside transfer-encoding": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n"
    ),
    "transfer-encoding beside content-length": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"
        b"0\r\n\r\n"
    ),
    "two content-lengths": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "two hosts": b"GET /ask HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET /ask HTTP/1.1\r\n\r\n",
    "bare LF": b"GET /ask HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": b"GET /ask HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "space before the colon": b"GET /ask HTTP/1.1\r\nHost : a\r\n\r\n",
    "folded header": b"GET /ask HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "negative content-length": b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "signed content-length": b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}",
    "endless content-length": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n{}"
    ),
    "bad chunk size": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
    ),
    "overflowing chunk size": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"
    ),
    "chunk with a bare LF": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n"
    ),
    "unknown transfer-encoding": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
    ),
    "gzip as transfer-encoding": (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
    ),
    "junk method": b"FOO /ask HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /ask\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "NUL in a header": b"GET /ask HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "foreign absolute form": b"GET http://evil/ask HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused_and_nothing_after_it_is_read(
    server: Server, raw: Raw, name: str
) -> None:
    answer = raw.send(MALFORMED[name] + post("/ask", {"smuggled": 1})).read()
    assert answer.status in {400, 413, 501}, answer
    assert answer.json()["error"]
    if name != "foreign absolute form":  # well formed: only this request is refused
        assert answer.headers["connection"] == "close"
        assert raw.closed()
    assert alive(server)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/predict/../ask", 400),
        ("/%2e%2e/ask", 400),
        ("/%252e%252e/ask", 404),
        ("//ask", 400),
        ("/ask/", 404),
        ("/ask;x", 404),
        ("/a%2fsk", 400),
        ("/a%5csk", 400),
        ("/%61sk", 200),
        ("/nowhere", 404),
        ("http://localhost/ask", 200),
    ],
)
def test_a_path_has_one_reading(raw: Raw, path: str, status: int) -> None:
    assert raw.send(post(path, {})).read().status == status


def test_a_wrong_method_is_405_with_the_right_ones(raw: Raw) -> None:
    answer = raw.send(get("/ask", method="DELETE")).read()
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "DELETE does not apply" in answer.json()["error"]


def test_a_head_over_the_limit_is_431(server: Server) -> None:
    for flood in (
        b"GET /ask HTTP/1.1\r\nHost: a\r\n" + b"X-Y: z\r\n" * 8000,
        b"GET /ask HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000,
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        with connect(server.port) as raw:
            assert raw.send(flood).read().status == 431
            assert raw.closed()


def test_a_body_over_the_limit_is_413_counted_in_total(server: Server) -> None:
    with connect(server.port) as raw:
        raw.send(b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(BODY_LIMIT // 65536 + 2):
            raw.send(piece)
        assert raw.read().status == 413
        assert raw.closed()
    with connect(server.port) as raw:
        head = b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT + 1)
        assert raw.send(head).read().status == 413


def test_a_head_that_does_not_come_is_408(raw: Raw) -> None:
    assert raw.send(b"GET /ask HTTP/1.1\r\nHost: a\r\nX-Slow: ").read().status == 408
    assert raw.closed()


def test_a_body_that_drips_is_408(raw: Raw) -> None:
    raw.send(b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
    assert raw.read().status == 408


def test_an_idle_connection_is_closed_without_a_word(raw: Raw) -> None:
    assert raw.send(post("/ask", {})).read().status == 200
    assert raw.closed()


def test_an_answer_arrives_though_the_client_is_still_sending(raw: Raw) -> None:
    """Closing with unread input would reset the connection and lose the 413."""
    head = b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
    raw.send(head + b" " * 1_000_000)
    assert raw.read().status == 413


@pytest.mark.parametrize(
    ("ctype", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.x+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain", 415),
        ("application/octet-stream", 415),
        ("application/x-pickle", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_only_json_is_read(raw: Raw, ctype: str, status: int) -> None:
    raw.send(b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Type: %b\r\nContent-Length: 8\r\n\r\n"
             b'{"x": 1}' % ctype.encode())  # fmt: skip
    assert raw.read().status == status


@pytest.mark.parametrize(
    "body",
    [b"[" * 250_000, b'{"value": NaN}', b'{"value": 1e999}', b'{"value": "\\ud800"}', b'{"value"',
     b'{"value": ' + b"9" * 5000 + b"}", b"\x80\x04K\x01."],
)  # fmt: skip
def test_json_that_python_would_take_but_others_would_not_is_400(
    server: Server, raw: Raw, body: bytes
) -> None:
    assert raw.send(post("/echo", body)).read().status == 400
    assert alive(server)


def test_a_get_with_a_body_and_one_with_a_query_are_calls_and_a_bare_one_describes(
    raw: Raw,
) -> None:
    assert raw.send(get("/echo?value=5")).read().json() == {"value": 5}
    assert raw.send(post("/echo", {"value": 5}).replace(b"POST", b"GET")).read().json() == {
        "value": 5
    }
    about = raw.send(get("/echo")).read().json()
    assert about["name"] == "echo"
    assert about["inputs"][0]["type"] == "any"


# ---- what models do


def test_validation_names_the_field_what_came_and_what_is_accepted(raw: Raw) -> None:
    answer = raw.send(post("/sleep", {"s": "long"})).read()
    assert answer.status == 400
    assert answer.json() == {
        "error": "s: got the text 'long'; accepted: a number",
        "field": "s",
        "got": "the text 'long'",
        "accepted": "a number",
    }


def test_an_exception_of_the_model_is_500_with_an_id_that_is_in_the_log(
    server: Server, raw: Raw
) -> None:
    before = server.pids("worker")
    answer = raw.send(post("/misbehave", {"how": "raise"})).read()
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"model.py" not in answer.body
    error_id = answer.json()["id"]
    wait_for("the traceback in the log", lambda: error_id in server.output)
    wait_for("its text", lambda: "ValueError: secret detail" in server.output)
    assert raw.send(post("/misbehave", {"how": "sys.exit"})).read().status == 500
    assert raw.send(post("/misbehave", {"how": "unencodable"})).read().status == 500
    assert server.pids("worker") == before


@pytest.mark.parametrize("how", ["os._exit", "segfault"])
def test_a_model_that_kills_its_process_costs_only_that_worker(
    server: Server, raw: Raw, how: str
) -> None:
    assert raw.send(post("/misbehave", {"how": how})).read().status == 502
    assert raw.send(post("/ask", {})).read().status == 200


def test_nan_in_an_answer_is_null_and_is_counted(server: Server, raw: Raw) -> None:
    answer = raw.send(post("/misbehave", {"how": "nan"})).read()
    assert answer.body == b'{"result":[1.0,null,null]}'
    assert "nan" in server.get("/metrics").text
