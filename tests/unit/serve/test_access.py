"""Who may do what: every method of every admin address, and every way to be refused."""

from __future__ import annotations

import hmac
from types import SimpleNamespace

import msgspec
import pytest

from modelcloud.errors import Forbidden, ModelcloudError, TooManyRequests, Unauthorized
from modelcloud.serve import access
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
#: On a unix socket, of a server that runs as user 1000.
SOCKET = Settings(host="127.0.0.1", uid=1000)
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


def test_a_token_is_compared_whole_however_early_it_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(ours: bytes, theirs: bytes) -> bool:
        compared.append((ours, theirs))
        return hmac.compare_digest(ours, theirs)

    monkeypatch.setattr(access, "hmac", SimpleNamespace(compare_digest=compare))
    assert decide(Action.CHANGE, facts(authorization="Bearer x"), SECURED) is not None
    assert decide(Action.CHANGE, facts(authorization="Bearer secret-token"), SECURED) is None
    assert compared == [(b"x", b"secret-token"), (b"secret-token", b"secret-token")]


def test_two_authorization_headers_are_a_wrong_token() -> None:
    both = Facts(headers={"host": ("localhost",), "authorization": ("Bearer secret", "Bearer x")})
    assert isinstance(decide(Action.CHANGE, both, PUBLIC), WrongToken)


def test_after_too_many_wrong_tokens_even_the_right_one_must_wait() -> None:
    right = "Bearer secret-token"
    assert decide(Action.CHANGE, facts(MAX_GUESSES - 1, authorization=right), SECURED) is None
    error = decide(Action.CHANGE, facts(MAX_GUESSES, authorization=right), SECURED)
    assert isinstance(error, TooManyRequests)


@pytest.mark.parametrize(
    "header",
    ["forwarded", "via", "x_real_ip", "x_forwarded_for", "x_forwarded_host", "x_forwarded_proto"],
)
@pytest.mark.parametrize("settings", [LOOPBACK, SOCKET])
def test_what_came_through_a_proxy_is_not_local(settings: Settings, header: str) -> None:
    request = facts(0, **{header: "127.0.0.1"})
    request = msgspec.structs.replace(request, uid=settings.uid)
    error = decide(Action.CHANGE, request, settings)
    assert isinstance(error, Forbidden)
    assert "proxy" in error.message
    assert decide(Action.READ, request, settings) is None


@pytest.mark.parametrize(
    "settings", [SECURED, msgspec.structs.replace(SOCKET, token="secret-token")]
)
def test_through_a_proxy_the_token_is_enough_under_any_name(settings: Settings) -> None:
    forwarded = facts(
        host="model.example", x_forwarded_for="10.0.0.9", authorization="Bearer secret-token"
    )
    assert decide(Action.CHANGE, forwarded, settings) is None
    nobody = facts(host="model.example", x_forwarded_for="10.0.0.9")
    assert isinstance(decide(Action.CHANGE, nobody, settings), Unauthorized)


def test_a_page_of_another_origin_may_not_change_through_a_proxy_either() -> None:
    request = facts(host="model.example", x_forwarded_for="10.0.0.9", origin="http://evil.example",
                    authorization="Bearer secret-token")  # fmt: skip
    assert isinstance(decide(Action.CHANGE, request, SECURED), Forbidden)


@pytest.mark.parametrize(("uid", "allowed"), [(1000, True), (0, True), (33, False), (None, False)])
def test_on_a_unix_socket_the_servers_own_user_and_root_may_change(
    uid: int | None, allowed: bool
) -> None:
    request = msgspec.structs.replace(facts(host="any.name"), uid=uid)
    error = decide(Action.CHANGE, request, SOCKET)
    assert (error is None) is allowed
    secured = msgspec.structs.replace(SOCKET, token="secret-token")
    assert isinstance(decide(Action.CHANGE, request, secured), Unauthorized)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("my-host", False)],
)  # fmt: skip
def test_only_loopback_addresses_and_localhost_count_as_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
