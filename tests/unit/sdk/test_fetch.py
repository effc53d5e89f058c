"""Fetching what a client names: no hop leaves the public internet, nothing is read without end."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelcloud.errors import InvalidInput
from modelcloud.sdk.fetch import Target, allow_networks, fetch, is_public, parse

LOOPBACK = ("127.0.0.0/8",)
Answer = Callable[[str, socket.socket], None]


class Server:
    """A real server on loopback whose answers are raw bytes; it keeps what it was asked."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None, host: str) -> None:
        self.hits = 0
        self.heads: list[str] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer.hits += 1
                connection = self.request
                with contextlib.suppress(OSError):
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    head = b""
                    while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                        head += data
                    outer.heads.append(head.decode())
                    answer(head.decode().split(" ")[1], connection)
                    connection.close()

        class Threads(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Threads((host, 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(
    answer: Answer, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Server]:
    server = Server(answer, context, host)
    try:
        yield server
    finally:
        server.close()


def respond(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def always(data: bytes) -> Answer:
    return lambda path, connection: connection.sendall(data)


def get(url: str, **changes: Any) -> bytes:
    return fetch(url, **{"max_bytes": 1000, "timeout_s": 20.0, "allow": LOOPBACK, **changes})


def refusal(url: str, **changes: Any) -> str:
    with pytest.raises(InvalidInput) as error:
        get(url, **changes)
    return str(error.value.fields["got"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "100.64.0.1",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
    ],
)
def test_an_address_that_is_not_public_is_known_as_such(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.32.0.1", "168.63.129.17", "2606:4700::1", "::ffff:8.8.8.8"],
)
def test_a_public_address_is_known_as_such(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "017700000001", "127.1", "0", "0.0.0.0",
     "[::ffff:127.0.0.1]", "127.0.0.1.", "LOCALHOST"],
)  # fmt: skip
def test_loopback_by_any_name_is_refused_with_not_one_connection(host: str) -> None:
    with serving(always(respond(b"secret"))) as server:
        said = refusal(f"http://{host}:{server.port}/", allow=())
        assert said in {
            "a URL whose host has a non-public address",
            "a URL whose host has no address",
        }
        assert server.hits == 0
        assert get(server.url) == b"secret"  # the control: it is there, and allowed it answers


def test_a_refusal_does_not_tell_the_address_a_name_has() -> None:
    with pytest.raises(InvalidInput) as error:
        fetch("http://localhost/", max_bytes=1, timeout_s=20)
    assert "127" not in error.value.message
    assert "::1" not in error.value.message


@pytest.mark.parametrize(
    "url",
    [
        r"http://good\@169.254.169.254/",
        "http://good\\.example/",
        "http://user@example.org/",
        "http://user:pass@example.org/",
        "http://example.org:80@169.254.169.254/",
        "http://example.org/a b",
        "http://example.org/\r\nHost: x",
        "http://example.org/\t",
        "http://example.org/\x00",
        "http://example.org/\x7f",
        "http://exämple.org/",
        "http://example.org/ü",
        " http://example.org/",
        "http:///path",
        "http://",
        "http:/example.org",
        "http:example.org",
        "//example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "http://example.org:0/",
        "http://example.org:65536/",
        "http://example.org:8o/",
        "http://example.org:/",
        "http://[::1/",
        "http://::1/",
        "http://[fe80::1%25eth0]/",
        "http://%31%32%37.0.0.1/",
        "http://example.org%2f@x/",
        "http://a,b/",
        "http://" + "a" * 254 + "/",
        "http://example.org/" + "a" * 9000,
    ],
)
def test_a_url_that_two_parsers_might_read_differently_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        parse(url)


@pytest.mark.parametrize(
    ("url", "target", "origin"),
    [
        ("http://example.org", Target("http", "example.org", 80, "/"), "example.org"),
        (
            "HTTPS://Example.org:443/A?b=@c#d",
            Target("https", "example.org", 443, "/A?b=@c"),
            "example.org",
        ),
        (
            "http://example.org:8080?x",
            Target("http", "example.org", 8080, "/?x"),
            "example.org:8080",
        ),
        ("http://[2606:4700::1]:81/", Target("http", "2606:4700::1", 81, "/"), "[2606:4700::1]:81"),
        (
            "http://example.org/%2e%2e/@x",
            Target("http", "example.org", 80, "/%2e%2e/@x"),
            "example.org",
        ),
    ],
)
def test_a_url_is_parsed_once_into_what_is_used(url: str, target: Target, origin: str) -> None:
    assert parse(url) == target
    assert target.origin == origin


def test_the_body_comes_back_and_the_request_carries_nothing_of_ours() -> None:
    with serving(always(respond(b"\0body"))) as server:
        assert get(f"{server.url}/a?b=c#d") == b"\0body"
        head = server.heads[0]
    assert head.startswith("GET /a?b=c HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in head
    assert "authorization" not in head.lower()
    assert "cookie" not in head.lower()


def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving(always(respond(b"proxied"))) as proxy,
        serving(always(respond(b"direct"))) as server,
    ):
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert get(server.url) == b"direct"
        assert proxy.hits == 0


def test_the_address_that_was_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The resolver turns to loopback after its first answer, as in DNS rebinding."""
    asked: list[str] = []

    def turning(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.9" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with serving(always(respond(b"inside"))) as server:
        monkeypatch.setattr(socket, "getaddrinfo", turning)
        said = refusal(f"http://rebind.example:{server.port}/", allow=("127.0.0.9/32",))
        assert said == "a URL whose host cannot be reached or answers no proper HTTP"
        assert asked == ["rebind.example"]
        assert server.hits == 0


def test_a_name_with_one_non_public_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [("127.0.0.1", 9), ("10.0.0.1", 9)]
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    assert refusal("http://mixed.example/") == "a URL whose host has a non-public address"


def redirecting(location: str, status: str = "302 Found") -> Answer:
    return always(respond(b"moved", status, f"Location: {location}\r\n"))


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
def test_redirects_are_followed(status: str) -> None:
    def answer(path: str, connection: socket.socket) -> None:
        if path == "/a/start":
            connection.sendall(respond(b"", status, "Location: ../end?x=1\r\n"))
        else:
            connection.sendall(respond(path.encode()))

    with serving(answer) as server:
        assert get(f"{server.url}/a/start") == b"/end?x=1"


def test_three_redirects_are_followed_and_no_fourth() -> None:
    def answer(path: str, connection: socket.socket) -> None:
        left = int(path[1:])
        moved = respond(b"", "302 x", f"Location: /{left - 1}\r\n")
        connection.sendall(moved if left else respond(b"end"))

    with serving(answer) as server:
        assert get(f"{server.url}/3") == b"end"
        assert refusal(f"{server.url}/4") == "a URL with more than 3 redirects"
        assert server.hits == 8


@pytest.mark.parametrize(
    "place",
    ["http://127.0.0.1:{}/", "http://0x7f.1:{}/", "http://2130706433:{}/", "//127.0.0.1:{}/"],
)
def test_every_hop_of_a_redirect_is_checked(place: str) -> None:
    with (
        serving(always(respond(b"secret"))) as inside,
        serving(redirecting(place.format(inside.port)), host="127.0.0.2") as server,
    ):
        said = refusal(server.url, allow=("127.0.0.2/32",))
        assert said == "a URL whose host has a non-public address"
        assert (server.hits, inside.hits) == (1, 0)
        assert get(server.url) == b"secret"  # the control: allowed, the redirect leads there


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "http://u:p@127.0.0.1/",
     r"http://127.0.0.1\@x/", "http://169.254.169.254/", "data:text/plain,x", "http://a b/"],
)  # fmt: skip
def test_a_redirect_to_what_would_be_refused_is_refused(location: str) -> None:
    with serving(redirecting(location)) as server:
        refusal(server.url)
        assert server.hits == 1


def test_a_redirect_without_location_is_refused() -> None:
    with serving(always(respond(b"", "302 Found"))) as server:
        assert refusal(server.url) == "a redirect to nowhere"


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial", "404 Not Found", "500 Oops"])
def test_only_200_is_an_answer(status: str) -> None:
    with serving(always(respond(b"", status))) as server:
        assert refusal(server.url) == f"a URL that answers {status[:3]}"


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    for answer in (respond(b"x" * 1000), chunked(b"x" * 999, b"x", b""),
                   b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 1000):  # fmt: skip
        with serving(always(answer)) as server:
            assert get(server.url) == b"x" * 1000
            assert refusal(server.url, max_bytes=999) == "a URL that answers more than 999 bytes"


def test_an_endless_body_stops_at_the_limit() -> None:
    sent = 0

    def answer(path: str, connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(10_000):
            connection.sendall(b"x" * 100_000)
            sent += 100_000

    with serving(answer) as server:
        assert "more than 1000 bytes" in refusal(server.url)
        assert sent < 100_000_000


@pytest.mark.parametrize(
    "answer",
    [
        respond(b"whole")[:-1],
        chunked(b"abc"),
        chunked(b"abc") + b"zz\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nX: a\r\n",
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        respond(b"x", headers="Content-Encoding: gzip\r\n"),
    ],
)
def test_an_answer_that_is_cut_short_or_no_proper_http_is_refused(answer: bytes) -> None:
    with serving(always(answer)) as server:
        refusal(server.url)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_dripping_server_is_left_at_the_deadline(start: bytes) -> None:
    """Each byte comes well within the time, the whole does not."""
    over = threading.Event()

    def answer(path: str, connection: socket.socket) -> None:
        connection.sendall(start)
        while not over.wait(0.02):
            connection.sendall(b"X")

    with serving(answer) as server:
        said = refusal(server.url, timeout_s=0.5, max_bytes=10**9)
        over.set()
    assert said == "a URL that is not answered in full within 0.5 s"


def test_the_resolver_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    said = refusal("http://slow.example/", timeout_s=0.2)
    over.set()
    assert said == "a URL that is not answered in full within 0.2 s"


def test_a_host_that_is_not_there_is_said_to_be_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/") == (
        "a URL whose host cannot be reached or answers no proper HTTP"
    )


def test_an_administrator_may_allow_networks() -> None:
    with serving(always(respond(b"mine"))) as server:
        allow_networks("127.0.0.0/8")
        try:
            assert fetch(server.url, max_bytes=9, timeout_s=20) == b"mine"
        finally:
            allow_networks()
        with pytest.raises(InvalidInput):
            fetch(server.url, max_bytes=9, timeout_s=20)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority, for `localhost`, with its key in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key, cert = path.with_name("key.pem"), path.with_name("cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(key.read_bytes() + cert.read_bytes())
    return path


def test_https_is_checked_against_the_name_though_the_ip_is_connected_to(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _, name, __: names.append(name)
    real = socket.getaddrinfo
    monkeypatch.setattr(  # the server listens on IPv4 only
        socket, "getaddrinfo", lambda host, port, **_: real("127.0.0.1", port, type=1)
    )
    with serving(always(respond(b"safe")), context) as server:
        untrusted = refusal(f"https://localhost:{server.port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(f"https://localhost:{server.port}/") == b"safe"
        assert f"Host: localhost:{server.port}\r\n" in server.heads[-1]
        other = refusal(f"https://other.example:{server.port}/")
    assert names == ["localhost", "localhost", "other.example"]
    assert untrusted == other == "a URL whose host has no valid certificate, or fails at TLS"
