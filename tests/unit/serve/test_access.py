"""Who may do what: every method of every admin address, and every way to be refused."""

from __future__ import annotations

import pytest

from modelcloud.errors import Forbidden, ModelcloudError, TooManyRequests, Unauthorized
from modelcloud.serve.access import (
    MAX_GUESSES,
    Action,
    Facts,
    Settings,
    WrongToken,
    decide,
    is_loopback,
)

LOOPBACK = Settings(host="127.0.0.1")
SECURED = Settings(host="127.0.0.1", token="secret-token")
PUBLIC = Settings(host="0.0.0.0", token="secret", allowed_hosts=("Model.Example.",))
OPEN_TO_ALL = Settings(host="0.0.0.0")


def facts(guesses: int = 0, **headers: str) -> Facts:
    headers = {"host": "127.0.0.1:8080", **headers}
    return Facts(
        headers={name.replace("_", "-"): (value,) for name, value in headers.items()},
        guesses=guesses,
    )


@pytest.mark.parametrize("settings", [LOOPBACK, SECURED, PUBLIC, OPEN_TO_ALL])
def test_reading_is_open(settings: Settings) -> None:
    assert decide(Action.READ, facts(host="evil.example", origin="http://evil"), settings) is None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "localhost:1", "LOCALHOST.", "[::1]", "[::1]:80"],
)
def test_a_change_from_loopback_names_is_allowed_without_a_token(host: str) -> None:
    assert decide(Action.CHANGE, facts(host=host), LOOPBACK) is None


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
        "10.0.0.5", "localhost/", "localhost?", "localhost#", "evil@localhost", "localhost\\x",
        "localhost:port", "localhost:80:80", "[::1", "::1", "localhost,evil", "löcalhost",
        "local host", ":8080", "0x7f.1", "2130706433", "::ffff:127.0.0.1",
    ],
)  # fmt: skip
def test_a_change_under_a_foreign_or_malformed_host_is_refused(host: str) -> None:
    assert isinstance(decide(Action.CHANGE, facts(host=host), LOOPBACK), Forbidden)


def test_a_change_without_or_with_two_host_headers_is_refused() -> None:
    assert isinstance(decide(Action.CHANGE, Facts(headers={}), LOOPBACK), Forbidden)
    two = Facts(headers={"host": ("localhost", "evil.example")})
    assert isinstance(decide(Action.CHANGE, two, LOOPBACK), Forbidden)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("model.example", True),
        ("MODEL.example.:8080", True),
        ("10.0.0.5:8080", True),  # an address cannot be rebound, and every address is bound
        ("[fe80::1]:8080", True),
        ("other.example", False),
    ],
)
def test_bound_beyond_loopback_allowed_names_and_addresses_count_as_this_server(
    host: str, allowed: bool
) -> None:
    error = decide(Action.CHANGE, facts(host=host, authorization="Bearer secret"), PUBLIC)
    assert (error is None) is allowed


def test_the_bound_name_counts_as_this_server() -> None:
    settings = Settings(host="Model.internal", token="secret")
    request = facts(host="model.internal:8080", authorization="Bearer secret")
    assert decide(Action.CHANGE, request, settings) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:81",
        "http://localhost:8080", "file://127.0.0.1:8080", "http://127.0.0.1:x", "127.0.0.1:8080",
        "http://127.0.0.1:8080.evil.example",
    ],
)  # fmt: skip
def test_a_change_from_a_page_of_another_origin_is_refused(origin: str) -> None:
    assert isinstance(decide(Action.CHANGE, facts(origin=origin), LOOPBACK), Forbidden)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "junk", ""])
def test_a_change_that_the_browser_calls_foreign_is_refused(site: str) -> None:
    assert isinstance(decide(Action.CHANGE, facts(sec_fetch_site=site), LOOPBACK), Forbidden)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:80"),
        ("localhost", "https://localhost"),  # a proxy in front ends TLS
    ],
)
def test_the_docs_page_of_this_server_may_change(host: str, origin: str) -> None:
    request = facts(host=host, origin=origin, sec_fetch_site="same-origin")
    assert decide(Action.CHANGE, request, LOOPBACK) is None


def test_beyond_loopback_without_a_configured_token_nobody_may_change() -> None:
    error = decide(Action.CHANGE, facts(authorization="Bearer "), OPEN_TO_ALL)
    assert isinstance(error, Forbidden)
    assert "--admin-token" in error.message


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer secret-token", None),
        ("bearer  secret-token ", None),
        ("Bearer secret", WrongToken),
        ("Bearer sécret-tøken", WrongToken),
        ("Bearer ", WrongToken),
        ("Bearer", WrongToken),
        ("secret-token", WrongToken),
        ("Basic secret-token", WrongToken),
        ("Bearer \udcff\ud800 not text", WrongToken),
        (None, Unauthorized),
    ],
)
def test_a_configured_token_is_needed_even_on_loopback(
    authorization: str | None, expected: type[ModelcloudError] | None
) -> None:
    request = facts() if authorization is None else facts(authorization=authorization)
    error = decide(Action.CHANGE, request, SECURED)
    assert type(error) is (expected or type(None))


def test_two_authorization_headers_are_a_wrong_token() -> None:
    both = Facts(headers={"host": ("localhost",), "authorization": ("Bearer secret", "Bearer x")})
    assert isinstance(decide(Action.CHANGE, both, PUBLIC), WrongToken)


def test_after_too_many_wrong_tokens_even_the_right_one_must_wait() -> None:
    right = "Bearer secret-token"
    assert decide(Action.CHANGE, facts(MAX_GUESSES - 1, authorization=right), SECURED) is None
    error = decide(Action.CHANGE, facts(MAX_GUESSES, authorization=right), SECURED)
    assert isinstance(error, TooManyRequests)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("my-host", False)],
)  # fmt: skip
def test_only_loopback_addresses_and_localhost_count_as_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
