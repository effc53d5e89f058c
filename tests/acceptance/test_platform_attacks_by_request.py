"""Who asks the control plane for what they may not have, on a really started platform.

Rows 3 to 9, 11 to 13 of the table of attacks, lists and streams. What one application can show is
tested beside it; here it is the sockets, every address there is, and the limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from modelcloud.control.api.following import OF_ONE
from modelcloud.errors import ModelcloudError
from modelcloud.platform import Platform
from support.attack import MIB, Place, ask, asked, bearer, state, unharmed
from support.raw import connect, get, post
from support.server import wait_for
from support.up import PASSWORD

pytestmark = pytest.mark.xdist_group("platform-attacks")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with asked(tmp_path_factory.mktemp("requests")) as found:
        yield found


@pytest.fixture(autouse=True)
def it_lives(place: Place) -> Iterator[None]:
    with unharmed(place):
        yield


# ---- rows 3 and 4: every path and verb of the description


def test_every_operation_that_is_described_refuses_who_says_nothing_of_themselves(
    place: Place,
) -> None:
    document = ask(place.port, get("/api/v1/openapi.json")).json()
    before = state(place)
    tried = 0
    for path in document["paths"]:
        concrete = re.sub(r"\{(\w+)\}", "1", path)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            if (method, path) in {("POST", "/api/v1/session"), ("GET", "/api/v1/openapi.json")}:
                continue
            if not path.startswith("/api/v1/") and method == "GET":
                continue
            for headers in ((), ("Connection: Upgrade", "Upgrade: websocket"),
                            ("Authorization: Bearer null",)):  # fmt: skip
                answer = ask(place.port, get(concrete, "Content-Length: 0", *headers,
                                             method=method))  # fmt: skip
                assert answer.status in {401, 429}, (method, path, answer)
                tried += 1
    assert tried > 500
    assert state(place) == before


@pytest.mark.parametrize("method", ["JUNK", "get", "GET\t", "PROPFIND", "CONNECT"])
def test_a_method_that_nobody_knows_is_refused(place: Place, method: str) -> None:
    for headers in ((), (bearer(place.admin),)):
        answer = ask(place.port, get("/api/v1/users", *headers, method=method))
        assert answer.status in {400, 401, 405}, answer
        assert b"admin" not in answer.body


# ---- rows 5, 6, 7 and 13: hosts, origins, paths


FOREIGN = ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example",
           "localhost/", "localhost/api/docs?", "evil.example#localhost", "evil@localhost",
           "localhost\\evil", "localhost, evil.example", "0x7f.1", "2130706433", "0.0.0.0",
           "[::ffff:127.0.0.1]", ""]  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN)
def test_under_a_foreign_name_nothing_is_answered_token_or_not(place: Place, host: str) -> None:
    before = state(place)
    for more in ((), ("X-Forwarded-Host: localhost",), ("Forwarded: host=localhost",)):
        for request in (
            get("/api/v1/users", bearer(place.admin), *more, host=host),
            get("/api/docs", *more, host=host),
            post("/api/v1/session", {"user": "admin", "password": PASSWORD}, *more, host=host),
            post("/api/v1/groups", {"name": "evil"}, bearer(place.admin), *more, host=host),
        ):
            answer = ask(place.port, request)
            assert answer.status in {400, 403}, answer
            assert PASSWORD.encode() not in answer.body
    assert state(place) == before


CROSS = [
    ("Origin: https://evil.example",), ("Origin: null",), ("Origin: http://localhost:1",),
    ("Origin: http://localhost.evil.example",), ("Sec-Fetch-Site: cross-site",),
    ("Sec-Fetch-Site: same-site",), ("Origin: http://localhost", "Origin: https://evil.example"),
]  # fmt: skip


@pytest.mark.parametrize("headers", CROSS)
def test_a_page_of_another_origin_signs_nobody_in_and_changes_nothing(
    place: Place, headers: tuple[str, ...]
) -> None:
    before = state(place)
    body = {"user": "admin", "password": PASSWORD}
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded",
                 "multipart/form-data; boundary=x"):  # fmt: skip
        sign_in = post("/api/v1/session", body, *headers)
        sign_in = sign_in.replace(b"application/json", kind.encode())
        change = post("/api/v1/groups", {"name": "evil"}, bearer(place.admin), *headers)
        for request in (sign_in, change, get("/api/v1/users", bearer(place.admin), *headers)):
            answer = ask(place.port, request)
            assert answer.status == 403, answer
            assert "access-control-allow-origin" not in answer.headers
    assert state(place) == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/json"])
def test_a_body_that_is_not_called_json_is_none(place: Place, kind: str) -> None:
    """What a form can send without asking first is no request of the API."""
    before = state(place)
    request = post("/api/v1/groups", {"name": "evil"}, bearer(place.admin))
    answer = ask(place.port, request.replace(b"application/json", kind.encode()))
    assert answer.status in {400, 415}
    assert state(place) == before


PATHS = [
    "/api/v1/users/", "//api/v1/users", "/api//v1/users", "/api/v1/../v1/users",
    "/api/docs/../v1/users", "/%2e%2e/api/v1/users", "/api/docs/%2e%2e/v1/users",
    "/api/docs%2f..%2fv1%2fusers", "/api/v1/users;x", "/healthz;/../api/v1/users",
    "/API/v1/users", "/api/v1/users%00", "/api/v1/users%20", "/api\\v1\\users",
    "/api/v1/%75sers", "/%61pi/v1/users", "/api/v1/users?", "http://localhost/api/v1/users",
    "http://evil.example/api/v1/users", "*", "api/v1/users", "/healthz/../api/v1/users",
    "/api/v1/session/../users", "/api/v1/users#/healthz", "/metrics", "/metrics/", "/docs",
    "/redoc", "/openapi.json", "/api/v1", "/static/../api/v1/users",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_leads_around_the_gate(place: Place, path: str) -> None:
    for request in (get(path), get(path, method="HEAD"), post(path, {}), get(path, method="PUT")):
        answer = ask(place.port, request)
        assert answer.status in {400, 401}, answer
        assert b"must_change_password" not in answer.body
    for form in (f"http://localhost{path}", f"http://evil.example{path}"):
        assert ask(place.port, get(form, bearer(place.admin))).status == 400, "one host too many"


# ---- row 9: more than was asked for


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/users", {"name": "evil", "password": PASSWORD, "is_admin": True}),
        ("PATCH", "/users/reader", {"is_admin": True}),
        ("PATCH", "/users/reader", {"disabled": False, "is_admin": True, "id": 1}),
        ("PUT", "/session/password", {"current": PASSWORD, "new": PASSWORD + "2", "user": "admin"}),
        ("POST", "/tokens", {"name": "t", "level": "manage", "user": "admin"}),
        ("POST", "/tokens", {"name": "t", "level": "admin"}),
        ("PATCH", "/groups/team", {"public_predictions": False}),
        ("PATCH", "/groups/reader", {"owner": "admin", "id": 1}),
        ("PUT", "/groups/team/members/reader", {"level": "manage"}),
        ("PUT", "/groups/reader/quota", {"cpu": 1000}),
        ("PATCH", "/services/echo", {"group": "reader"}),
        ("PATCH", "/services/echo", {"group_id": 1, "created_by": "reader"}),
        ("PATCH", "/services/echo/versions/1", {"artifact": "0" * 64}),
        ("POST", "/services/echo/deployments", {"version": 1, "instance_type": "small",
                                                "deployed_by": "admin"}),
        ("PUT", "/services/echo/traffic", {"weights": {"1": 1}}),
        ("POST", "/instance-types", {"name": "huge", "cpu": 1000, "memory": MIB}),
        ("POST", "/services/echo/deployments/1/stop", {}),
        ("DELETE", "/services/echo", None),
        ("DELETE", "/users/admin", None),
    ],
)  # fmt: skip
def test_who_may_read_gets_no_further_by_fields_that_are_not_theirs(
    place: Place, method: str, path: str, body: Any
) -> None:
    before = state(place)
    request = post(f"/api/v1{path}", body, bearer(place.reader))
    answer = ask(place.port, request.replace(b"POST", method.encode(), 1))
    assert answer.status in {400, 403, 404}, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert state(place) == before


# ---- row 11


def test_a_thousand_wrong_tokens_are_slowed_down_and_right_ones_are_not(place: Place) -> None:
    guesser = "127.0.0.7"
    with connect(place.port, source=guesser) as raw:
        statuses = []
        for number in range(1000):
            raw.send(get("/api/v1/users", bearer(f"mc_{number}")))
            statuses.append(raw.read().status)
        assert set(statuses[:10]) == {401}
        assert set(statuses[20:]) == {429}
        assert raw.send(get("/api/v1/session", bearer(place.admin))).read().status == 200
    assert ask(place.port, get("/api/v1/users", bearer("x")), source="127.0.0.6").status == 401


def test_a_forged_cookie_or_a_signed_out_session_opens_nothing(place: Place) -> None:
    with Platform(place.up.api) as visitor:
        visitor.sign_in("reader", PASSWORD)
        token = visitor.token or ""
        visitor.sign_out()
    for headers in ((bearer(token),), (f"Cookie: session={place.admin}",), (bearer(""),),
                    (f"Authorization: Token {place.admin}",), (f"X-Token: {place.admin}",),
                    (bearer(place.admin), bearer(place.admin))):  # fmt: skip
        answer = ask(place.port, get("/api/v1/users", *headers), source="127.0.0.5")
        assert answer.status in {401, 429}, headers
        assert "set-cookie" not in answer.headers
    with pytest.raises(ModelcloudError), Platform(place.up.api, token) as visitor:
        visitor.whoami()


# ---- lists, keys, revisions


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=501", "limit=99999999999999999999", "limit=x", "limit=%00",
     "cursor=x", "cursor=-1", "cursor=1e3", "cursor=%00", "cursor=99999999999999999999",
     "cursor=" + "1" * 5000, "cursor=1'%20or%201=1", "cursor=%F0%9F", "cursor=%ED%A0%80",
     "cursor=../../x", "limit=1&cursor=%0a"],
)  # fmt: skip
def test_a_page_that_nobody_handed_out_is_refused_or_empty(place: Place, query: str) -> None:
    for path in ("users", "groups", "services", "tokens", "rollouts", "audit", "instance-types",
                 "services/echo/versions", "services/echo/deployments",
                 "groups/team/members"):  # fmt: skip
        answer = ask(place.port, get(f"/api/v1/{path}?{query}", bearer(place.admin)))
        assert answer.status in {200, 400}, (path, answer)
        assert len(answer.body) < 100_000


@pytest.mark.parametrize(
    "query",
    ["since=NaN", "since=1e999", "since=-1e300", "since=9999-99-99", "until=99999999999999",
     "span=0", "span=-1", "span=1e9", "since=%00", "since=0&until=99999999999&span=10"],
)  # fmt: skip
def test_a_time_that_is_none_is_refused_and_a_long_one_is_bounded(place: Place, query: str) -> None:
    for path in ("services/echo/metrics", "services/echo/versions/1/metrics", "audit"):
        answer = ask(place.port, get(f"/api/v1/{path}?{query}", bearer(place.admin)))
        assert answer.status in {200, 400}, (path, answer)
        assert len(answer.body) < MIB


@pytest.mark.parametrize("q", ["%25", "_", "%25%25%25", "'", '"', "%00", "(a%2B)%2B$", "x" * 500])
def test_a_search_is_text_and_no_pattern(place: Place, q: str) -> None:
    for path in (f"services?q={q}", f"services/echo/logs?q={q}", f"audit?actor={q}&kind={q}"):
        answer = ask(place.port, get(f"/api/v1/{path}", bearer(place.admin)))
        assert answer.status in {200, 400}, (path, answer)
        if answer.status == 200 and "services?" in path:
            assert answer.json()["items"] == [], q


def test_an_idempotency_key_is_its_users_own(place: Place) -> None:
    body = {"name": "keyed"}
    key = "Idempotency-Key: shared"
    made = ask(place.port, post("/api/v1/groups", body, bearer(place.admin), key))
    assert made.status == 201
    again = ask(place.port, post("/api/v1/groups", body, bearer(place.reader), key))
    assert "idempotency-replayed" not in again.headers
    assert again.status == 409, "it is not shown what another's request was answered"
    place.up.admin.delete_group("keyed")
    for key in ("x" * 256, "", "\u00e9", "a\tb"):
        request = post("/api/v1/services", {"name": "x1", "group": "team"}, bearer(place.admin),
                       f"Idempotency-Key: {key}")  # fmt: skip
        assert ask(place.port, request).status == 400, ascii(key)


@pytest.mark.parametrize(
    "etag",
    ['"999"', '"0"', "999", '"x"', '"-1"', 'W/"1"', '"1', "\u00e9", '"998","999"', "x" * 5000],
)
def test_an_edit_on_a_revision_that_never_was_is_refused(place: Place, etag: str) -> None:
    before = place.up.admin.group("team")["description"]
    request = post("/api/v1/groups/team", {"description": "evil"}, bearer(place.admin),
                   f"If-Match: {etag}").replace(b"POST", b"PATCH", 1)  # fmt: skip
    assert ask(place.port, request).status in {400, 412}
    assert place.up.admin.group("team")["description"] == before


# ---- streams


def test_one_user_cannot_take_every_stream(place: Place) -> None:
    path = "/api/v1/services/echo/logs?follow=true"
    with ExitStack() as stack:
        statuses = []
        for _ in range(OF_ONE + 5):
            raw = stack.enter_context(connect(place.port))
            raw.send(get(path, bearer(place.reader)))
            statuses.append(raw.head()[0])
        assert statuses == [200] * OF_ONE + [429] * 5
        other = stack.enter_context(connect(place.port))
        assert other.send(get(path, bearer(place.admin))).head()[0] == 200
        refused = ask(place.port, get("/api/v1/rollouts/1/events", bearer(place.reader)))
        assert refused.status == 429

    def free() -> bool:
        return ask(place.port, get("/api/v1/rollouts/1/events", bearer(place.reader))).status == 200

    wait_for("their places are free", free)
