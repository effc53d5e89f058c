"""The client asks as the server's reference says, and turns its refusals into the error tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcloud import errors
from modelcloud.client import ERROR_OF_STATUS, Client, Unreachable, error_of
from modelcloud.types import Strategy, StrategySpec


class Server:
    """Answers every request with `answer` and remembers what was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = {"modelcloud": "1", "rollout": "r2", "state": "running"}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, json=self.answer)

    @property
    def asked(self) -> tuple[str, str, Any]:
        """Method, path with query, and JSON body of the last request."""
        request = self.requests[-1]
        body = json.loads(request.content) if request.content else None
        return request.method, request.url.raw_path.decode(), body


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    transport = httpx.MockTransport(server)
    with Client("http://model.test/", "s3cret", transport=transport) as client:
        yield client


def test_a_prediction_posts_the_inputs_to_the_command(client: Client, server: Server) -> None:
    server.answer = {"result": 89}
    assert client.predict("fib", n=10) == {"result": 89}
    assert server.asked == ("POST", "/fib", {"n": 10})


def test_the_token_travels_in_the_authorization_header_only(client: Client, server: Server) -> None:
    client.meta()
    request = server.requests[-1]
    assert request.headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in str(request.url)


UPDATES: list[tuple[Callable[[Client], Any], tuple[str, str, Any]]] = [
    (lambda c: c.update(), ("POST", "/setup", {"options": {}})),
    (lambda c: c.update({"a": 1}), ("POST", "/setup", {"options": {"a": 1}})),
    (lambda c: c.update(wait=False), ("POST", "/setup?wait=false", {"options": {}})),
    (
        lambda c: c.update(artifact="v2", strategy="recreate"),
        ("POST", "/setup", {"options": {}, "artifact": "v2", "strategy": "recreate"}),
    ),
    (
        lambda c: c.update(strategy=StrategySpec(name=Strategy.ROLLING, max_surge=2)),
        (
            "POST",
            "/setup",
            {
                "options": {},
                "strategy": {"name": "rolling", "max_surge": 2, "max_unavailable": 1},
            },
        ),
    ),
    (lambda c: c.rollback(), ("POST", "/rollback", None)),
    (lambda c: c.rollout(7), ("GET", "/rollouts/7", None)),
]


@pytest.mark.parametrize(("call", "asked"), UPDATES)
def test_each_call_asks_what_the_reference_says(
    client: Client, server: Server, call: Callable[[Client], Any], asked: tuple[str, str, Any]
) -> None:
    call(client)
    assert server.asked == asked


def test_every_status_of_the_error_tree_is_mapped_to_a_class_that_owns_it() -> None:
    def tree(kind: type[errors.ModelcloudError]) -> Iterator[type[errors.ModelcloudError]]:
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield child
                yield from tree(child)

    statuses = {kind.status for kind in tree(errors.ModelcloudError)}
    assert statuses <= set(ERROR_OF_STATUS)
    for status in statuses:
        assert ERROR_OF_STATUS[status].status == status


@pytest.mark.parametrize("status", sorted(ERROR_OF_STATUS))
def test_a_refusal_is_raised_as_its_type_with_the_servers_words(
    client: Client, server: Server, status: int
) -> None:
    server.status = status
    server.answer = {"error": "n: got 'x'; accepted: a number", "field": "n"}
    with pytest.raises(ERROR_OF_STATUS[status]) as caught:
        client.meta()
    assert caught.value.message == "n: got 'x'; accepted: a number"
    assert caught.value.fields == {"field": "n"}
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 3}', b"\xff"])
def test_a_refusal_without_words_still_names_its_status(body: bytes) -> None:
    assert error_of(503, body).message == "the server answered 503"


def test_an_answer_that_is_no_json_is_an_error_not_a_value() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    with (
        Client("http://model.test", transport=transport) as client,
        pytest.raises(errors.ModelcloudError, match="no JSON"),
    ):
        client.meta()


@pytest.mark.parametrize("answer", [{"status": "ok"}, [], "ok"])
def test_a_server_of_another_kind_is_said_in_words(
    client: Client, server: Server, answer: Any
) -> None:
    server.answer = answer
    for call in (client.meta, client.update, client.rollback, client.rollouts):
        with pytest.raises(errors.ModelcloudError, match="no modelcloud server"):
            call()


def test_nothing_listening_is_said_in_words_and_is_not_ready() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with Client("http://model.test", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(Unreachable, match="no answer from"):
            client.meta()
        assert client.ready() is False


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_ready_follows_readyz(client: Client, server: Server, status: int, ready: bool) -> None:
    server.status, server.answer = status, {"ready": ready, "reasons": ["no worker is ready"]}
    assert client.ready() is ready
    assert client.readiness() == server.answer
    assert server.asked[1] == "/readyz"


def test_readiness_that_is_none_is_an_error(client: Client, server: Server) -> None:
    server.status, server.answer = 503, {"error": "the node is gone"}
    assert client.ready() is False
    with pytest.raises(errors.Overloaded, match="the node is gone"):
        client.readiness()


@pytest.mark.parametrize("url", ["ftp://model.test", "model.test:80x", "localhost:80"])
def test_what_is_no_http_address_is_refused_as_usage(url: str) -> None:
    with pytest.raises(errors.UsageError, match="is no address"):
        Client(url).meta()


# httpcore leaves a unix socket that could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_address_of_a_unix_socket_names_it(tmp_path: Path) -> None:
    with Client(f"unix:{tmp_path}") as client, pytest.raises(Unreachable, match=f"unix:{tmp_path}"):
        client.meta()
    with pytest.raises(errors.UsageError, match="unix:PATH"):
        Client("unix:")
