"""Who may predict, and read or change a service where predictions are asked for.

Rows 4 to 8, 11 to 13 and 31 of the table of attacks, on a really started platform: one group whose
predictions need a token, one that is public, and ports of their own.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from support.attack import ECHO, ask, bearer, put_online
from support.raw import Answer, connect, get, post
from support.server import wait_for
from support.up import Up, up

pytestmark = pytest.mark.xdist_group("platform-attacks")

#: Sees headers, and says so: the token is none of its business.
NOSY = """
class Nosy:
    def __init__(self, model_path):
        self._model_init()

    def _model_init(self):
        pass

    def _model_inference(self, param_dict):
        return param_dict

    async def __call__(self, request):
        return {"headers": dict(request.headers)}
"""


class Place(NamedTuple):
    """Services `shut` (of a group that needs tokens, with a port of its own), `nosy`, `open`."""

    up: Up
    port: int
    token: str
    others: str
    reader: str
    manager: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tokens")
    models = folder / "models"
    models.mkdir()
    with up(folder / "data", "--root", models) as running:
        admin = running.admin
        for group in ("inner", "outer"):
            admin.create_group(group)
        put_online(running, "shut", ECHO, models, group="inner")
        put_online(running, "nosy", NOSY, models, group="inner")
        put_online(running, "open", ECHO, models, group="outer")
        port = free_port()
        admin.edit_service("shut", port=port)
        labels = {"predict": 1, "open": 1, "shut": 1, "stable": 1}
        admin.set_traffic("shut", labels=labels)
        admin.edit_group("inner", public_predictions=False)
        tokens = [
            admin.create_token("t", group=group, level=level)["token"]
            for group, level in (
                ("inner", "predict"), ("outer", "manage"), ("inner", "read"), ("inner", "manage"),
            )
        ]  # fmt: skip
        found = Place(running, port, *tokens)
        wait_for("its own port listens", lambda: listens(port))
        wait_for("the token is known", lambda: predict(found, bearer(found.token)).status == 200)
        yield found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def predict(place: Place, *headers: str, path: str = "/shut/predict", port: int = 0) -> Answer:
    return ask(port or place.up.port, post(path, {"x": 1}, *headers))


def refused(place: Place, token: str) -> bool:
    return predict(place, bearer(token)).status == 401


MAIN = ["/shut/predict", "/predict/shut", "/predict/shut/1", "/predict/shut/stable",
        "/predict/shut/predict", "/predict/shut/open", "/shut/1/predict", "/shut/stable/predict",
        "/shut/predict/predict", "/shut/open/predict", "/shut/shut/predict",
        "/nosy/predict", "/predict/nosy", "/predict/nosy/1", "/nosy/1/predict"]  # fmt: skip
OWN = ["/predict", "/shut/predict", "/predict/shut", "/predict/shut/1", "/shut/1/predict",
       "/predict/shut/open", "/shut/open/predict"]  # fmt: skip


@contextmanager
def revocable(place: Place, **how: Any) -> Iterator[tuple[int, str]]:
    """A token's id and itself; it opens predictions."""
    made = place.up.admin.create_token("r", group="inner", level="predict", **how)
    wait_for("it opens", lambda: predict(place, bearer(made["token"])).status == 200)
    yield made["id"], made["token"]


# ---- every address, and each kind of token


@pytest.mark.parametrize(("path", "own"), [(p, False) for p in MAIN] + [(p, True) for p in OWN])
def test_every_address_of_a_closed_group_asks_for_a_token_of_that_group(
    place: Place, path: str, own: bool
) -> None:
    port = place.port if own else place.up.port
    for headers in ((), (bearer(place.others),), (bearer(place.up.admin.token),), (bearer("x"),),
                    (bearer(place.token[:-1]),), (bearer(place.token + "x"),), (bearer(""),),
                    (f"Authorization: Basic {place.token}",), (f"Authorization: {place.token}",),
                    (f"Cookie: token={place.token}",), (f"X-Api-Key: {place.token}",),
                    (f"Proxy-Authorization: Bearer {place.token}",),
                    (bearer(place.token), bearer("x"))):  # fmt: skip
        answer = predict(place, *headers, path=path, port=port)
        assert answer.status == 401, (headers, answer)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert b'"y"' not in answer.body
    for key in ("token", "access_token", "Authorization", "key"):
        assert predict(place, path=f"{path}?{key}={place.token}", port=port).status == 401
    for token in (place.token, place.reader, place.manager):
        assert predict(place, bearer(token), path=path, port=port).status == 200


@pytest.mark.parametrize(
    "value", [b"Bearer \xff\xfe", b"Bearer s\xc3\xa9cret", b"Bearer " + b"x" * 9000, b"Bearer", b""]
)
def test_a_token_of_any_bytes_is_merely_wrong(place: Place, value: bytes) -> None:
    for path in ("/shut/predict", "/shut/setup"):
        request = get(path).replace(b"\r\n\r\n", b"\r\nAuthorization: %b\r\n\r\n" % value)
        assert ask(place.up.port, request).status in {401, 429}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"])
def test_no_method_opens_what_post_does_not(place: Place, method: str) -> None:
    for path in MAIN:
        for request in (get(path, method=method), get(f"{path}?x=1", method=method)):
            answer = ask(place.up.port, request)
            assert answer.status == 401, (method, path)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    assert ask(place.up.port, get("/shut/predict", *upgrade)).status in {400, 401}


def test_a_question_that_browsers_ask_first_is_answered_and_tells_nothing(place: Place) -> None:
    answer = ask(place.up.port, get("/shut/predict", method="OPTIONS"))
    assert (answer.status, answer.body) == (204, b"")
    assert "access-control-allow-origin" not in answer.headers


# ---- row 7: other spellings


SPELLINGS = [
    "/open/../shut/predict", "/open/%2e%2e/shut/predict", "/open/..%2fshut/predict",
    "/%73hut/predict", "/shu%74/predic%74", "//shut/predict", "/shut//predict", "/shut/predict/",
    "/shut/./predict", "/shut;x/predict", "/shut/predict;x", "/SHUT/predict", "/shut%2fpredict",
    "/shut\\predict", "/shut%5cpredict", "/shut/predict%00", "/shut/predict%20", "/shut/predict?",
    "/shut/predict?x", "/shut/predict%3fx", "/shut/predict#", "/%252e%252e/shut/predict",
    "http://localhost/shut/predict", "http://open/shut/predict", "http://localhost/../shut/predict",
    "/predict/open/../shut", "/predict/%73hut", "/predict/shut/", "/predict/shut/01",
    "/predict/shut/%31", "/predict/shut/1.0", "/predict/shut/+1", "/predict/shut/1/",
    "/predict/open/1/../../shut/1", "/predict//shut", "/predict/shut/STABLE", "/shut/01/predict",
    "/v1/../shut/predict", "/open/predict/../../shut/predict", "/shut/predict\t", "*",
]  # fmt: skip


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_an_address_leads_around_the_token(place: Place, path: str) -> None:
    for headers in ((), (bearer(place.others),), ("X-Original-URL: /shut/predict",),
                    ("X-Rewrite-URL: /shut/predict", "X-Forwarded-Host: open")):  # fmt: skip
        for request in (post(path, {"x": 1}, *headers), get(path, *headers)):
            answer = ask(place.up.port, request)
            assert answer.status in {400, 401, 404, 405}, (headers, answer)
            assert b'"y"' not in answer.body


@pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri"])
def test_no_header_stands_for_the_path(place: Place, header: str) -> None:
    answer = ask(place.up.port, post("/open/predict", {"x": 5}, f"{header}: /shut/predict"))
    assert answer.json() == {"y": 5}
    assert ask(place.up.port, post("/shut/predict", {}, f"{header}: /open/predict")).status == 401


# ---- row 12: at once


def test_a_revoked_token_opens_nothing_from_then_on_not_even_on_an_open_connection(
    place: Place,
) -> None:
    with revocable(place) as (number, token), connect(place.up.port) as kept:
        request = post("/shut/predict", {"x": 1}, bearer(token))
        for _ in range(3):  # the head is known by now
            assert kept.send(request).read().status == 200
        place.up.admin.revoke_token(number)
        wait_for("it is shut", lambda: kept.send(request).read().status == 401, 2)
        for _ in range(20):
            assert kept.send(request).read().status == 401
            assert predict(place, bearer(token)).status == 401


def test_a_token_ends_with_its_user_their_membership_and_its_time(place: Place) -> None:
    admin = place.up.admin

    def tokens_of(name: str) -> str:
        with place.up.user(name) as user:
            admin.share("inner", name, "read")
            made = user.create_token("t", group="inner", level="read")
        wait_for("it opens", lambda: predict(place, bearer(made["token"])).status == 200)
        return str(made["token"])

    ended = {name: tokens_of(name) for name in ("unshared", "disabled", "deleted")}
    admin.unshare("inner", "unshared")
    admin.edit_user("disabled", disabled=True)
    admin.delete_user("deleted")
    with revocable(place, expires_in_s=1) as (_, token):
        ended["expired"] = token
    for name, token in ended.items():
        wait_for(name, partial(refused, place, token), 5)
    assert predict(place, bearer(place.token)).status == 200


def test_a_group_that_closes_is_closed_on_open_connections_too(place: Place) -> None:
    admin = place.up.admin
    request = post("/open/predict", {"x": 1})
    with connect(place.up.port) as kept:
        for _ in range(3):
            assert kept.send(request).read().status == 200
        admin.edit_group("outer", public_predictions=False)
        try:
            wait_for("it is shut", lambda: kept.send(request).read().status == 401, 2)
            assert kept.send(request).read().status == 401
        finally:
            admin.edit_group("outer", public_predictions=True)
        wait_for("it is open", lambda: kept.send(request).read().status == 200, 2)


# ---- row 31: two requests on one connection


def test_a_token_is_good_for_its_own_request_only(place: Place) -> None:
    good = post("/shut/predict", {"x": 1}, bearer(place.token))
    bad = post("/shut/predict", {"x": 2})
    other = post("/open/predict", {"x": 3})
    with connect(place.up.port) as raw:
        raw.send(good + bad + other + good + bad)
        assert [raw.read().status for _ in range(5)] == [200, 401, 200, 200, 401]
    smuggled = (
        b"POST /open/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + good
    )
    with connect(place.up.port) as raw:
        assert raw.send(smuggled).read().status == 400
        assert raw.closed()


def test_the_token_is_not_shown_to_the_model(place: Place) -> None:
    answer = predict(place, bearer(place.token), "X-Other: seen", path="/nosy/predict")
    assert answer.status == 200
    assert place.token.encode() not in answer.body
    assert "seen" in answer.json()["headers"].values(), "else it sees no headers at all"


# ---- the addresses of a service: /setup, /meta and the like


ADDRESSES = [("GET", "/setup"), ("POST", "/setup"), ("GET", "/meta"), ("GET", "/docs.json"),
             ("GET", "/redoc")]  # fmt: skip
ROOT = [*ADDRESSES, ("GET", "/"), ("GET", "/healthcheck"), ("GET", "/readyz"), ("GET", "/rollouts"),
        ("GET", "/rollouts/1"), ("POST", "/rollback")]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROOT)
def test_what_a_closed_service_is_is_told_to_those_who_may_predict(
    place: Place, method: str, path: str
) -> None:
    rollouts = len(place.up.admin.rollouts())
    places = [(place.port, path)]
    if (method, path) in ADDRESSES:
        places.append((place.up.port, f"/shut{path}"))
    for port, where in places:
        for source, headers in (("127.0.0.1", ()), ("127.0.0.9", (bearer(place.others),)),
                                ("127.0.0.9", (bearer("x"),))):  # fmt: skip
            answer = ask(port, get(where, *headers, method=method), source=source)
            assert answer.status in {401, 403, 404, 429}, (where, headers, answer)
            told = answer.body.replace(where.encode(), b"")
            assert not any(word in told for word in (b"inputs", b"version", b"rollout"))
        weak = 200 if method == "GET" and not path.startswith("/rollouts") else 403
        assert ask(port, get(where, bearer(place.token), method=method)).status == weak, where
        if method == "GET":
            assert ask(port, get(where, bearer(place.manager))).status == 200, where
    assert len(place.up.admin.rollouts()) == rollouts


CROSS = [
    ("Origin: https://evil.example",), ("Origin: null",), ("Sec-Fetch-Site: cross-site",),
    ("Content-Type: text/plain",), ("Content-Type: application/x-www-form-urlencoded",),
    ("Host: evil.example",), ("X-Forwarded-For: 127.0.0.1",), ("Cookie: session=x",),
]  # fmt: skip


@pytest.mark.parametrize("headers", CROSS)
@pytest.mark.parametrize("token", [False, True])
def test_an_update_takes_a_token_of_who_may_whatever_else_comes_with_it(
    place: Place, headers: tuple[str, ...], token: bool
) -> None:
    """It is presented by hand, so no page can have a browser present it."""
    rollouts = len(place.up.admin.rollouts())
    shown = (bearer(place.token),) if token else ()
    for port, path in ((place.up.port, "/shut/setup"), (place.up.port, "/open/setup"),
                       (place.port, "/setup"), (place.port, "/rollback")):  # fmt: skip
        answer = ask(port, post(path, {"options": {}}, *headers, *shown))
        # Of the other group's service the token's user is told nothing at all.
        refused = {400, 404 if path == "/open/setup" else 403}
        assert answer.status in (refused if token else {400, 401}), (path, answer)
        assert "access-control-allow-origin" not in answer.headers
    assert len(place.up.admin.rollouts()) == rollouts


@pytest.mark.parametrize(
    "path",
    ["/shut/rollouts", "/shut/rollback", "/shut/healthcheck", "/meta", "/setup", "/metrics",
     "/api/v1/users", "/shut", "/predict", "/probe/predict", "/shut/redoc/../setup", "/rollouts",
     "/"],
)  # fmt: skip
def test_nothing_else_stands_at_the_main_address(place: Place, path: str) -> None:
    for headers in ((), (bearer(place.up.admin.token),)):
        for request in (get(path, *headers), post(path, {}, *headers)):
            assert ask(place.up.port, request).status in {400, 404, 405}, path


def test_another_services_port_answers_for_that_service_alone(place: Place) -> None:
    for path in ("/open/predict", "/predict/open", "/nosy/predict", "/open/meta", "/nosy/meta"):
        for headers in ((), (bearer(place.token),)):
            assert predict(place, *headers, path=path, port=place.port).status == 404, path


def test_guesses_at_an_update_are_limited_and_who_knows_is_not(place: Place) -> None:
    guesser = "127.0.0.8"
    statuses = [
        ask(place.up.port, post("/shut/setup", {}, bearer(f"mc_{n}")), source=guesser).status
        for n in range(200)
    ]
    assert set(statuses[:10]) == {401}
    assert set(statuses[20:]) == {429}
    right = ask(place.up.port, get("/shut/setup", bearer(place.manager)), source=guesser)
    assert right.status == 200
    assert ask(place.up.port, post("/open/predict", {}), source=guesser).status == 200
