"""Attacks on the control plane's API; numbers are rows of the list of attacks."""

from __future__ import annotations

import base64
import itertools
import json
import logging
from typing import Any

import pytest

from modelcloud.control.web import gate
from modelcloud.control.web.gate import MAX_BODY, PUBLIC_PAGES
from modelcloud.serve.access import GUESS_WINDOW_S, MAX_GUESSES
from support.control import PASSWORD, ControlRig

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "JUNK")
#: One path of every form that is routed, and some that are not.
PATHS = (
    "/api/v1/users", "/api/v1/users/admin", "/api/v1/groups/admin/members/ann", "/api/v1/tokens/1",
    "/api/v1/node", "/api/v1/nothing", "/api/v1", "/api", "/metrics", "/docs", "/openapi.json",
    "/api/v1/session/password",
)  # fmt: skip


def url(path: str) -> str:
    return f"http://127.0.0.1:8000{path}"


# ---- 3, 4: one gate for every path and verb


@pytest.mark.parametrize("method", METHODS)
def test_3_4_nothing_is_answered_without_a_token_whatever_the_verb(
    rig: ControlRig, method: str
) -> None:
    for path in PATHS:
        answer = rig.call(None, method, url(path))
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"


def test_3_4_what_is_public_is_public_to_get_only(rig: ControlRig) -> None:
    for path in PUBLIC_PAGES:
        assert rig.call(None, "GET", url(path)).status_code != 401, path
        for method in METHODS[1:]:
            assert rig.call(None, method, url(path)).status_code == 401, (method, path)
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert rig.call(None, method, "/session").status_code == 401, method


def test_4_a_websocket_is_refused(rig: ControlRig) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/api/v1/users", "headers": [], "query_string": b""}
    rig.run(rig.app(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ---- 5, 6, 7, 13: where a request says it comes from, and what it calls the path


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example", "x-forwarded-for": "10.0.0.1"},
        {"host": "127.0.0.1.evil.example:8000"},
        {"host": "127.0.0.1:8000/api/docs"},
        {"host": "127.0.0.1:8000?x"},
        {"host": "127.0.0.1#evil"},
        {"host": "evil@127.0.0.1"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_5_6_a_foreign_host_or_origin_is_refused_whoever_asks(
    rig: ControlRig, headers: dict[str, str]
) -> None:
    admin = rig.user("admin", admin=True)
    assert rig.call(admin, "GET", "/users", headers=headers).status_code == 403
    sign_in = {"user": "admin", "password": PASSWORD}
    assert rig.call(None, "POST", "/session", sign_in, headers=headers).status_code == 403


def test_5_a_page_may_be_linked_to_from_anywhere_under_our_own_name(rig: ControlRig) -> None:
    linked = {"sec-fetch-site": "cross-site"}
    assert rig.call(None, "GET", url("/api/docs"), headers=linked).status_code == 200
    foreign = {"host": "evil.example"}
    assert rig.call(None, "GET", url("/api/docs"), headers=foreign).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/api/docs/../v1/users", "/api/docs/%2e%2e/v1/users", "//api/v1/users", "/api/v1//users",
     "/api/v1/users/", "/api/v1/session/../users", "/healthz/../api/v1/users", "/API/V1/USERS",
     "/api/v1/users;x", "/healthz;/api/v1/users", "/api/docs%2f..%2fv1%2fusers"],
)  # fmt: skip
def test_7_another_spelling_of_a_path_opens_nothing(rig: ControlRig, path: str) -> None:
    answer = rig.run(_raw(rig, path))
    assert answer == 401


async def _raw(rig: ControlRig, path: str) -> int:
    """The status for a path that no client library has tidied up."""
    status = 0

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    from urllib.parse import unquote

    scope = {
        "type": "http", "method": "GET", "path": unquote(path), "raw_path": path.encode(),
        "query_string": b"", "headers": [(b"host", b"127.0.0.1:8000")], "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "scheme": "http",
        "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await rig.app(scope, receive, send)
    return status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_13_a_form_cannot_pass_for_json(rig: ControlRig, kind: str) -> None:
    body = json.dumps({"user": "admin", "password": PASSWORD}).encode()
    rig.user("admin", admin=True)
    answer = rig.call(None, "POST", "/session", content=body, headers={"content-type": kind})
    assert answer.status_code == 415
    told = f"content-type: got {kind or 'none'}; accepted: application/json"
    assert answer.json()["detail"] == told


@pytest.mark.parametrize(
    "body", [b'{"name": "a", "name": "b"}', b'{"name": "a", "x": [{"k": 1, "\\u006b": 2}]}']
)
def test_a_name_given_twice_is_refused_by_name(rig: ControlRig, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = rig.call(rig.user("ann"), "POST", "/groups", content=body, headers=headers)
    assert answer.status_code == 400
    name = "name" if b"k" not in body else "k"
    assert answer.json()["detail"] == f"{name}: given twice; accepted: each name once"


# ---- 8: objects of others


def test_8_what_is_of_a_group_that_one_may_not_read_is_not_there(rig: ControlRig) -> None:
    ann, bob = rig.user("ann"), rig.user("bob")
    token_id = rig.call(ann, "GET", "/tokens").json()["items"][0]["id"]
    asked = [
        ("GET", "/groups/ann", None),
        ("PATCH", "/groups/ann", {"description": "mine"}),
        ("DELETE", "/groups/ann", None),
        ("GET", "/groups/ann/members", None),
        ("PUT", "/groups/ann/members/bob", {"level": "read"}),
        ("DELETE", "/groups/ann/members/ann", None),
        ("POST", "/tokens", {"level": "read", "group": "ann"}),
        ("GET", "/audit?group=ann", None),
        ("DELETE", f"/tokens/{token_id}", None),
    ]
    for method, path, body in asked:
        there = rig.call(bob, method, path, body)
        other = path.replace("ann", "nobody").replace(str(token_id), "999999")
        missing = rig.call(
            bob, method, other, json.loads(json.dumps(body).replace("ann", "nobody"))
        )
        assert (there.status_code, missing.status_code) == (404, 404), (method, path)
    assert [g["name"] for g in rig.call(bob, "GET", "/groups").json()["items"]] == ["bob"]
    assert [g["group"] for g in rig.call(bob, "GET", "/node").json()["groups"]] == ["bob"]


# ---- 9: giving oneself more


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/groups", {"name": "g", "quota": {"cpu": 99}}, "quota"),
        ("POST", "/groups", {"name": "g", "group_id": 1}, "group_id"),
        ("PATCH", "/groups/ann", {"name": "admin"}, "name"),
        ("PATCH", "/groups/ann", {"quota_cpu": 99}, "quota_cpu"),
        ("PUT", "/groups/ann/members/ann", {"level": "manage", "is_admin": True}, "is_admin"),
        ("PUT", "/session/password", {"current": "x", "new": "y", "is_admin": True}, "is_admin"),
        ("POST", "/tokens", {"level": "manage", "user_id": 1}, "user_id"),
        ("POST", "/session", {"user": "ann", "password": "x", "role": "admin"}, "role"),
    ],
)
def test_9_a_field_that_is_not_ones_own_to_set_is_refused_by_name(
    rig: ControlRig, method: str, path: str, body: Any, field: str
) -> None:
    answer = rig.call(rig.user("ann"), method, path, body)
    assert answer.status_code == 400
    assert {"field": field, "problem": "not known here"} in answer.json()["errors"]


def test_9_nobody_gives_themselves_a_level(rig: ControlRig) -> None:
    rig.user("ann")
    bob = rig.user("bob")
    rig.share("ann", "bob", "modify")
    for method, path, body in (
        ("PUT", "/groups/ann/members/bob", {"level": "manage"}),
        ("PATCH", "/users/bob", {"is_admin": True}),
        ("POST", "/users", {"name": "eve", "password": PASSWORD, "is_admin": True}),
        ("PUT", "/groups/bob/quota", {"cpu": 1000}),
    ):
        assert rig.call(bob, method, path, body).status_code == 403
    token = rig.call(bob, "POST", "/tokens", {"level": "manage", "group": "ann"}).json()["token"]
    assert rig.call(token, "GET", "/groups/ann").json()["level"] == "modify"


# ---- 11, 12: guessed, forged and revoked tokens


def test_11_a_thousand_wrong_tokens_are_limited_and_right_ones_are_not(rig: ControlRig) -> None:
    ann = rig.user("ann")
    codes = [rig.call(f"mc_{n}", "GET", "/session").status_code for n in range(1000)]
    assert codes == [401] * MAX_GUESSES + [429] * (1000 - MAX_GUESSES)
    limited = rig.call("mc_x", "GET", "/session")
    assert 0 < int(limited.headers["retry-after"]) <= GUESS_WINDOW_S
    assert rig.call(ann, "GET", "/session").status_code == 200


@pytest.mark.parametrize(
    "value",
    ["Bearer \xe9\xff", "Bearer \u20ac".encode().decode("latin-1"), "Bearer", "Bearer ", "Basic x",
     "Bearer a b", "bearer\tx", "", "\xa0"],
    ids=ascii,
)  # fmt: skip
def test_11_a_malformed_or_non_ascii_token_is_401_and_no_failure(
    rig: ControlRig, value: str
) -> None:
    request = rig.http.build_request("GET", "/session")
    request.headers.raw.append((b"authorization", value.encode("latin-1")))
    request.headers = type(request.headers)(
        [*request.headers.raw, (b"authorization", value.encode("latin-1"))]
    )
    assert rig.run(rig.http.send(request)).status_code == 401


def _part(record: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(record).encode()).decode().rstrip("=")


def test_12_a_forged_token_is_nobodys(rig: ControlRig) -> None:
    ann = rig.user("ann")
    body = _part({"sub": "ann", "is_admin": True})
    forged = [
        f"{_part({'alg': 'none'})}.{body}.",
        f"{_part({'alg': 'HS256', 'crit': ['x'], 'x': 1})}.{body}.{_part({})}",
        ann[:-1],
        ann + "a",
        ann.swapcase(),
    ]
    assert {rig.call(token, "GET", "/session").status_code for token in forged} == {401}
    two = [("authorization", f"Bearer {ann}"), ("authorization", f"Bearer {ann}")]
    request = rig.http.build_request("GET", "/session", headers=two)
    assert rig.run(rig.http.send(request)).status_code == 401


def test_12_a_token_in_the_address_or_a_cookie_is_none(rig: ControlRig) -> None:
    ann = rig.user("ann")
    for path, headers in (
        (f"/session?token={ann}", {}),
        (f"/session?access_token={ann}", {}),
        ("/session", {"cookie": f"token={ann}; session={ann}"}),
        ("/session", {"x-api-key": ann}),
    ):
        assert rig.call(None, "GET", path, headers=headers).status_code == 401


# ---- 15, 30, 33, 35, 36: what comes in and goes out


def test_15_every_answer_keeps_browsers_from_harm(rig: ControlRig) -> None:
    admin = rig.user("admin", admin=True)
    for token, path in ((None, "/users"), (admin, "/users"), (admin, "/nothing"), (None, "/x")):
        headers = rig.call(token, "GET", path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_30_what_nobody_foresaw_shows_an_id_and_no_more(
    rig: ControlRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann = rig.user("ann")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret at /srv/data/modelcloud.db")

    monkeypatch.setattr("modelcloud.control.access.groups.listing", broken)
    with caplog.at_level(logging.ERROR):
        answer = rig.call(ann, "GET", "/groups")
    assert answer.status_code == 500
    assert "/srv" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["error_id"] in caplog.text
    assert "secret at /srv/data/modelcloud.db" in caplog.text


def test_33_a_body_is_counted_whatever_it_says_of_its_size(rig: ControlRig) -> None:
    async def pieces() -> Any:
        for _ in range(2):
            yield b"x" * (MAX_BODY * 2 // 3)

    told = rig.call(rig.user("ann"), "POST", "/groups", content=b"x" * (MAX_BODY + 1))
    assert told.status_code == 413
    headers = {"content-type": "application/json"}
    for path in ("/groups", "/session"):
        ann = rig.token("ann")
        headers["authorization"] = f"Bearer {ann}"
        answer = rig.run(rig.http.post(path, content=pieces(), headers=headers))
        assert answer.status_code == 413


def test_32_a_body_that_does_not_come_is_not_waited_for(
    rig: ControlRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_S", 0.05)

    async def stalled() -> Any:
        yield b"{"
        await rig.loop.create_future()

    headers = {"content-type": "application/json"}

    async def ask() -> int:
        status: list[int] = []
        body = stalled()

        async def receive() -> Any:
            return {"type": "http.request", "body": await body.__anext__(), "more_body": True}

        async def send(message: Any) -> None:
            status.append(message.get("status", 0))

        request = rig.http.build_request("POST", "/session", headers=headers)
        scope = {
            "type": "http", "method": "POST", "path": "/api/v1/session", "query_string": b"",
            "raw_path": b"/api/v1/session", "headers": request.headers.raw, "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "scheme": "http",
            "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await rig.app(scope, receive, send)
        return status[0]

    assert rig.run(ask()) == 408


@pytest.mark.parametrize(
    "text",
    ['{"name": NaN}', '{"name": "g", "x": Infinity}', '{"cpu": 1e999}', '{"name": "\\ud800"}',
     "{", "", "[]", "null", '"x"', "\xff", "[" * 250_000, '{"a":' * 100_000],
    ids=lambda text: ascii(text[:20]),
)  # fmt: skip
def test_35_36_what_is_no_proper_json_is_400(rig: ControlRig, text: str) -> None:
    headers = {"content-type": "application/json"}
    ann = rig.user("ann")
    answer = rig.call(ann, "POST", "/groups", content=text.encode("latin-1"), headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_38_39_names_and_passwords_do_not_reach_the_log_as_they_came(
    rig: ControlRig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="modelcloud"):
        rig.user("ann")
        attempts = itertools.product(
            ("ann", "x\n\x1b[31mroot signed in"), (PASSWORD, "hunter2 hunter2")
        )
        for user, password in attempts:
            rig.call(None, "POST", "/session", {"user": user, "password": password})
    assert "hunter2" not in caplog.text
    assert PASSWORD not in caplog.text
    assert "\x1b" not in caplog.text


# ---- what is not known


@pytest.mark.parametrize(
    ("path", "name", "accepted"),
    [
        ("/services?foo=1", "'foo'", "cursor, group, limit, q, state"),
        ("/services/x/logs?since=1", "'since'", "after, before, follow, lines, q, replica"),
        ("/audit?limit=1&Outcome=ok", "'Outcome'", "outcome"),
        ("/session?a=1", "'a'", "none"),
    ],
)
def test_a_query_parameter_that_is_not_known_is_refused_by_name(
    rig: ControlRig, path: str, name: str, accepted: str
) -> None:
    answer = rig.call(rig.user("admin", admin=True), "GET", path)
    assert answer.status_code == 400, answer.text
    assert name in answer.json()["detail"]
    assert accepted in answer.json()["detail"]


def test_the_audit_log_is_asked_by_outcome_and_address(rig: ControlRig) -> None:
    admin, ann = rig.user("admin", admin=True), rig.user("ann")
    assert rig.call(ann, "GET", "/users").status_code == 403
    assert rig.call(admin, "POST", "/groups", {"name": "team"}).is_success

    def asked(query: str) -> set[str]:
        found = rig.call(admin, "GET", f"/audit?{query}").json()["items"]
        return {entry["outcome"] for entry in found}

    assert asked("outcome=refused") == {"refused"}
    assert asked("outcome=ok&peer=127.0.0.1") == {"ok"}
    assert asked("peer=192.0.2.1") == set()
    assert rig.call(admin, "GET", "/audit?outcome=fine").status_code == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "team", "description": "a\0b"}, "description"),
        ({"name": "te\0am"}, "name"),
        ({"name": "team", "des\0cription": ""}, "des\0cription"),
    ],
)
def test_a_text_with_a_nul_is_refused_on_every_database(
    rig: ControlRig, body: dict[str, str], field: str
) -> None:
    answer = rig.call(rig.user("ann"), "POST", "/groups", body)
    assert answer.status_code == 400
    assert answer.json()["detail"] == f"{field}: got a text with a NUL; accepted: texts without"
    assert "error_id" not in answer.json()


@pytest.mark.parametrize("memory", [1, (16 << 20) - 1])
def test_an_instance_type_in_which_nothing_runs_is_refused(rig: ControlRig, memory: int) -> None:
    admin = rig.user("admin", admin=True)
    answer = rig.call(admin, "POST", "/instance-types", {"name": "tiny", "memory": memory})
    assert answer.status_code == 400
    assert "accepted: 16777216 bytes or more, or 0 for no limit" in answer.json()["detail"]
    for enough in (0, 16 << 20):
        made = rig.call(admin, "POST", "/instance-types", {"name": f"t{enough}", "memory": enough})
        assert (made.status_code, made.headers["etag"]) == (201, '"1"')


def test_whoever_may_get_may_ask_for_the_head(rig: ControlRig) -> None:
    ann = rig.user("ann")
    for path in ("/groups", "/groups/ann", url("/healthz")):
        whole, head = (rig.call(ann, method, path) for method in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert rig.call(None, "HEAD", "/groups").status_code == 401
    assert rig.call(ann, "HEAD", "/nothing").status_code == 404
