"""The request path over real sockets and processes, where the order of events is the kernel's."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models import obedient
from support.raw import TIMEOUT_S, Raw, connect, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("request-path")

STREAM = "Accept: text/event-stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("path")
    with serve(obedient(folder), "--replicas", "2") as running:
        yield running


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    with serve(
        obedient(folder), "--replicas", "1", "--tls-cert", cert, "--tls-key", key,
        "--header-timeout", "2", "--max-body", "100000",
    ) as running:  # fmt: skip
        yield running, cert


def secure(tls: tuple[Server, Path]) -> Raw:
    server, cert = tls
    raw = Raw(server.port)
    context = ssl.create_default_context(cafile=str(cert))
    raw.socket = context.wrap_socket(raw.socket, server_hostname="localhost")
    return raw


# ---- plain


def test_a_long_stream_behind_a_slow_answer_comes_whole(server: Server) -> None:
    with connect(server.port) as raw:
        raw.send(post("/sleep", {"s": 0.5}) + post("/count", {"n": 60_000}, STREAM))
        assert raw.read().status == 200
        raw.head()
        events = b"".join(raw.chunks())
        assert len(events) > 512 * 1024
        assert events.endswith(b'data: {"i":59999}\n\n')


def test_the_first_post_of_javas_client_keeps_its_body(server: Server) -> None:
    with connect(server.port) as raw:
        for _ in range(2):
            answer = raw.send(
                post("/echo", {"value": 5}, "Connection: Upgrade, HTTP2-Settings",
                     "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA", "Upgrade: h2c")
            ).read()  # fmt: skip
            assert (answer.status, answer.json()) == (200, {"value": 5})


def test_a_new_gateway_serves_at_once_though_every_worker_is_in_a_long_call(
    server: Server,
) -> None:
    """They can say no hello to it meanwhile; neither they nor it may be ended for that."""
    workers = server.pids("worker")
    (gateway,) = server.pids("gateway")
    busy = [connect_and_send(server, post("/sleep", {"s": 7})) for _ in range(4)]
    wait_for("both workers to be busy", lambda: in_flight(server) >= 4)
    os.kill(gateway, signal.SIGKILL)
    wait_for("a new gateway", lambda: server.pids("gateway") not in ([], [gateway]))
    with connect(server.port) as raw:
        assert raw.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").read().status == 200
        assert raw.send(post("/ask", {})).read().status == 200
    assert server.pids("worker") == workers
    for each in busy:
        each.socket.close()


def connect_and_send(server: Server, data: bytes) -> Raw:
    return Raw(server.port).send(data)


def in_flight(server: Server) -> int:
    text = server.get("/metrics").text
    line = next(line for line in text.splitlines() if line.startswith("modelcloud_in_flight"))
    return int(float(line.split()[-1]))


# ---- TLS


def test_answers_over_tls_are_the_same(tls: tuple[Server, Path]) -> None:
    raw = secure(tls)
    value = "v" * 90_000
    raw.send(post("/echo", {"value": value}) * 3)
    for _ in range(3):
        assert raw.read().json() == {"value": value}
    raw.send(post("/count", {"n": 40_000}, STREAM)).head()
    assert b"".join(raw.chunks()).endswith(b'data: {"i":39999}\n\n')
    raw.socket.close()


def test_a_refusal_over_tls_arrives_though_the_client_still_sends(tls: tuple[Server, Path]) -> None:
    raw = secure(tls)
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
    raw.send(head)
    answer = raw.read()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    raw.socket.close()


def test_a_client_that_never_shakes_hands_is_let_go(tls: tuple[Server, Path]) -> None:
    server, _ = tls
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as mute:
        assert mute.recv(1) == b""


def test_closing_a_tls_connection_with_a_request_under_way_says_nothing_in_the_log(
    tls: tuple[Server, Path],
) -> None:
    server, _ = tls
    raw = secure(tls)
    raw.send(post("/sleep", {"s": 0.3}))
    assert isinstance(raw.socket, ssl.SSLSocket)
    raw.socket.unwrap()
    raw.socket.close()
    again = secure(tls)
    assert again.send(post("/ask", {})).read().status == 200
    again.socket.close()
    assert "eof_received" not in server.output
