"""A WSGI application as a backend (PEP 3333)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from modelcloud.dataplane.messages import RequestMeta
from modelcloud.dataplane.request_view import RequestView
from modelcloud.errors import ModelError
from modelcloud.sdk.contract import Response
from modelcloud.sdk.wsgi import WsgiBackend, environ_of

Start = Callable[..., Callable[[bytes], Any]]


def ask(
    application: Any, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str
) -> Response:
    backend = WsgiBackend(application, threads=1)
    answer: Response = backend.handler("app")(request(method, path, body, **headers))
    return answer


def request(method: str, path: str, body: bytes = b"", **headers: str) -> RequestView:
    path, _, query = path.partition("?")
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    meta = RequestMeta(method=method, path=path, query=query, headers=lines, peer="192.0.2.7")
    return RequestView(meta, body, gzipped=False, max_body=1000)


def test_an_application_sees_the_request_as_the_standard_has_it() -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start: Start) -> list[bytes]:
        seen.update(environ)
        seen["body"] = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]

    answer = ask(validator(app), "POST", "/café?q=1", b"abc", host="example.org:81",
                 content_type="text/x", accept_language="en")  # fmt: skip
    assert (answer.status, answer.body) == (200, b"fine")
    expected = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "QUERY_STRING": "q=1",
        "PATH_INFO": "/café".encode().decode("latin-1"), "SERVER_NAME": "example.org",
        "SERVER_PORT": "81", "REMOTE_ADDR": "192.0.2.7", "CONTENT_TYPE": "text/x",
        "HTTP_ACCEPT_LANGUAGE": "en", "body": b"abc", "wsgi.url_scheme": "http",
    }  # fmt: skip
    assert {name: seen.get(name) for name in expected} == expected


def test_a_header_with_an_underscore_cannot_pass_for_one_with_a_dash() -> None:
    meta = RequestMeta(method="GET", path="/", query="", headers=[("x_real_ip", "1.2.3.4")])
    environ = environ_of(RequestView(meta, b"", gzipped=False, max_body=1), threads=1)
    assert "HTTP_X_REAL_IP" not in environ


def test_what_concerns_the_connection_is_left_to_the_server() -> None:
    def app(environ: dict[str, Any], start: Start) -> list[bytes]:
        start("201 Created", [("Content-Length", "5"), ("X-Own", "1"), ("Set-Cookie", "a=b"),
                              ("Set-Cookie", "c=d")])  # fmt: skip
        return [b"he", b"llo"]

    answer = ask(app)
    assert answer.status == 201
    assert answer.body == b"hello"
    assert answer.headers == [("X-Own", "1"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]


def test_the_length_that_a_head_answer_names_is_kept() -> None:
    def app(environ: dict[str, Any], start: Start) -> list[bytes]:
        start("200 OK", [("Content-Length", "5")])
        return []

    assert ask(app, "HEAD").headers == [("content-length", "5")]


def test_pieces_may_be_written_or_generated_and_the_iterable_is_closed() -> None:
    closed = []

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"b", b"c"])

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start: Start) -> Pieces:
        start("200 OK", [])(b"a")
        return Pieces()

    assert ask(app).body == b"abc"
    assert closed


def test_an_error_page_takes_the_place_of_what_was_begun() -> None:
    def app(environ: dict[str, Any], start: Start) -> list[bytes]:
        start("200 OK", [("X-First", "1")])(b"half")
        error = ValueError()
        start("500 Oops", [], (type(error), error, error.__traceback__))
        return [b"sorry"]

    answer = ask(app)
    assert (answer.status, list(answer.headers), answer.body) == (500, [], b"sorry")


@pytest.mark.parametrize("status", ["", "OK", "99 x", "1000 y", "100 Continue"])
def test_a_status_that_is_none_is_the_applications_mistake(status: str) -> None:
    def app(environ: dict[str, Any], start: Start) -> list[bytes]:
        if status:
            start(status, [])
        return []

    with pytest.raises(ModelError, match="start_response got the status"):
        ask(app)


def test_the_input_ends_where_the_body_ends() -> None:
    view = request("POST", "/", b"abc", transfer_encoding="chunked")
    environ = environ_of(view, threads=1)
    assert isinstance(environ["wsgi.input"], io.BytesIO)
    assert environ["wsgi.input"].read() == b"abc"
    assert environ["CONTENT_LENGTH"] == "3"
    assert "HTTP_TRANSFER_ENCODING" not in environ
