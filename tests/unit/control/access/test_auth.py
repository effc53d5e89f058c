"""Signing in, staying so, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelcloud.config import PlatformConfig
from modelcloud.control.access import passwords
from modelcloud.control.access.auth import LONGEST_NAME, MAX_SESSIONS, SESSION_S
from modelcloud.control.access.password_guesses import (
    OF_ADDRESS,
    OF_USER,
    USER_WINDOW_S,
    PasswordGuesses,
)
from modelcloud.errors import TooManyRequests
from modelcloud.serve.access import GUESS_WINDOW_S, MAX_GUESSES
from modelcloud.store.store import Store
from modelcloud.store.tables import Token
from support.control import PASSWORD, ControlRig

WRONG = "the user name or the password is wrong"


@pytest.fixture
def rig(database_url: str) -> Iterator[ControlRig]:
    """In place of the one of SQLite only: these rules hold on both databases."""
    with ControlRig(Store(database_url)) as made:
        yield made


def sign_in(rig: ControlRig, user: str, password: str) -> tuple[int, dict[str, object]]:
    answer = rig.call(None, "POST", "/session", {"user": user, "password": password})
    return answer.status_code, answer.json()


def status(rig: ControlRig, token: str | None) -> int:
    return rig.call(token, "GET", "/session").status_code


def test_a_password_becomes_a_session_until_it_is_signed_out(rig: ControlRig) -> None:
    rig.user("ann")
    code, session = sign_in(rig, "ann", PASSWORD)
    assert code == 201
    token = str(session["token"])
    assert rig.call(token, "GET", "/session").json()["user"] == "ann"
    assert rig.call(token, "DELETE", "/session").status_code == 204
    assert status(rig, token) == 401


def test_a_wrong_name_and_a_wrong_password_are_told_apart_by_nobody(
    rig: ControlRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.user("ann")
    checked = []
    verify = passwords.is_password

    def counted(hashed: str, password: str) -> bool:
        checked.append(hashed)
        return verify(hashed, password)

    monkeypatch.setattr(passwords, "is_password", counted)
    answers = [sign_in(rig, name, "not the password") for name in ("ann", "nobody")]
    assert answers[0] == answers[1]
    assert answers[0][0] == 401
    assert answers[0][1]["detail"] == WRONG
    assert len(checked) == 2, "a missing user costs the same work"


def test_who_signs_in_as_nobody_is_in_the_audit_log_by_a_name_that_can_be_shown(
    rig: ControlRig,
) -> None:
    for name in ("eve", "two\nlines\x1b[31m", "x" * 100):
        assert sign_in(rig, name, "wrong password")[0] == 401
    admin = rig.user("admin", admin=True)
    found = rig.call(admin, "GET", "/audit?action=session.create").json()["items"]
    assert [entry["name"] for entry in found] == [
        "x" * LONGEST_NAME + "…", "two\\nlines\\x1b[31m", "eve",
    ]  # fmt: skip
    for entry in found:
        assert entry["actor"] == entry["name"]
        assert (entry["outcome"], entry["peer"]) == ("refused", "127.0.0.1")
        assert entry["detail"] == "no such user, or disabled"


def test_wrong_passwords_for_one_user_from_one_address_are_limited(rig: ControlRig) -> None:
    rig.user("ann")
    codes = [sign_in(rig, "ann", "wrong password")[0] for _ in range(MAX_GUESSES + 1)]
    assert codes == [401] * MAX_GUESSES + [429]
    assert sign_in(rig, "ann", PASSWORD)[0] == 429, "a right one tells nothing either"
    rig.now += GUESS_WINDOW_S
    assert sign_in(rig, "ann", PASSWORD)[0] == 201


def sign_in_from(rig: ControlRig, address: str, user: str, password: str) -> int:
    """Through the proxy that `behind_proxy` trusts."""
    body = {"user": user, "password": password}
    headers = {"x-forwarded-for": address}
    return rig.call(None, "POST", "/session", body, headers=headers).status_code


@pytest.fixture
def behind_proxy(database_url: str) -> Iterator[ControlRig]:
    config = PlatformConfig(data="/nonexistent", trusted_proxies=("127.0.0.1",))
    with ControlRig(Store(database_url), config=config) as made:
        made.user("ann")
        made.user("bob")
        yield made


def test_a_stranger_locks_out_neither_a_user_elsewhere_nor_others_at_the_same_address(
    behind_proxy: ControlRig,
) -> None:
    rig = behind_proxy
    for _ in range(MAX_GUESSES + 1):
        code = sign_in_from(rig, "198.51.100.1", "ann", "wrong password")
    assert code == 429
    assert sign_in_from(rig, "198.51.100.1", "ann", PASSWORD) == 429
    assert sign_in_from(rig, "203.0.113.9", "ann", PASSWORD) == 201
    assert sign_in_from(rig, "198.51.100.1", "bob", PASSWORD) == 201
    entry = rig.call(rig.user("admin", admin=True), "GET", "/audit?name=bob&actor=bob").json()
    assert [e["peer"] for e in entry["items"]] == ["198.51.100.1"]


def test_without_the_flag_a_forwarded_address_is_nobodys(rig: ControlRig) -> None:
    rig.user("ann")
    codes = [
        sign_in_from(rig, f"198.51.100.{n}", "ann", "wrong password")
        for n in range(MAX_GUESSES + 1)
    ]
    assert codes[-1] == 429


def test_many_users_from_one_address_and_one_user_from_many_are_limited() -> None:
    now = 0.0
    guesses = PasswordGuesses(lambda: now)

    def tries(user: str, peer: str) -> bool:
        try:
            guesses.begin(user, peer)
        except TooManyRequests:
            return False
        return True

    assert sum(tries(f"user{n}", "a") for n in range(2 * OF_ADDRESS)) == OF_ADDRESS
    assert sum(tries("ann", f"peer{n}") for n in range(2 * OF_USER)) == OF_USER
    alone = 0
    for _ in range(int(USER_WINDOW_S)):
        now += 1.0
        alone += tries("bob", "b")
    assert alone < OF_USER, "one address does not lock a user out"
    assert tries("bob", "c")


def test_right_passwords_count_against_nobody(rig: ControlRig) -> None:
    rig.user("ann")
    assert {sign_in(rig, "ann", PASSWORD)[0] for _ in range(MAX_GUESSES + 2)} == {201}


def test_a_session_ends_after_twelve_hours_however_much_it_is_used(rig: ControlRig) -> None:
    ann = rig.user("ann")
    rig.now += SESSION_S - 60
    assert status(rig, ann) == 200
    rig.now += 61
    assert status(rig, ann) == 401


def test_the_oldest_session_ends_when_there_are_too_many(rig: ControlRig) -> None:
    first = rig.user("ann")
    tokens = [str(sign_in(rig, "ann", PASSWORD)[1]["token"]) for _ in range(MAX_SESSIONS)]
    assert status(rig, first) == 401
    assert status(rig, tokens[0]) == 200


def test_a_user_who_is_disabled_or_deleted_is_out_at_once(rig: ControlRig) -> None:
    admin, ann = rig.user("admin", admin=True), rig.user("ann")
    token = rig.token("ann", "read")
    assert rig.call(admin, "PATCH", "/users/ann", {"disabled": True}).is_success
    assert [status(rig, t) for t in (ann, token)] == [401, 401]
    assert sign_in(rig, "ann", PASSWORD)[1]["detail"] == WRONG
    assert rig.call(admin, "PATCH", "/users/ann", {"disabled": False}).is_success
    assert [status(rig, t) for t in (ann, token)] == [401, 200], "sessions do not come back"
    assert rig.call(admin, "DELETE", "/users/ann").is_success
    assert status(rig, token) == 401


def test_a_new_password_ends_other_sessions_and_no_tokens(rig: ControlRig) -> None:
    ann = rig.user("ann")
    other, token = rig.token("ann", kind="session"), rig.token("ann", "read")
    body = {"current": PASSWORD, "new": "a new password"}
    assert rig.call(ann, "PUT", "/session/password", body).status_code == 204
    assert [status(rig, t) for t in (ann, other, token)] == [200, 401, 200]
    assert sign_in(rig, "ann", PASSWORD)[0] == 401
    assert sign_in(rig, "ann", "a new password")[0] == 201


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"current": "another one", "new": "a new password"}, 403),
        ({"current": PASSWORD, "new": "too short"}, 400),
        ({"current": PASSWORD, "new": PASSWORD}, 400),
        ({"current": PASSWORD, "new": "with a\ttab in it"}, 400),
        ({"current": PASSWORD, "new": "x" * 257}, 400),
    ],
)
def test_a_password_that_may_not_be_set_is_refused_without_repeating_it(
    rig: ControlRig, body: dict[str, str], code: int
) -> None:
    answer = rig.call(rig.user("ann"), "PUT", "/session/password", body)
    assert answer.status_code == code
    assert body["new"] not in answer.text
    assert sign_in(rig, "ann", PASSWORD)[0] == 201


def test_who_must_change_the_password_does_so_before_anything_else(rig: ControlRig) -> None:
    admin = rig.user("admin", admin=True)
    new = {"name": "ann", "password": "given to her", "must_change_password": True}
    assert rig.call(admin, "POST", "/users", new).json()["must_change_password"] is True
    code, session = sign_in(rig, "ann", "given to her")
    assert (code, session["must_change_password"]) == (201, True)
    ann = str(session["token"])
    refused = rig.call(ann, "GET", "/groups")
    assert refused.status_code == 403
    assert "change your password first" in refused.json()["detail"]
    assert status(rig, ann) == 200
    body = {"current": "given to her", "new": "my own password"}
    assert rig.call(ann, "PUT", "/session/password", body).status_code == 204
    assert rig.call(ann, "GET", "/groups").status_code == 200


def test_when_a_token_was_last_used_is_kept_once_a_minute(rig: ControlRig) -> None:
    ann = rig.user("ann")
    token_id = rig.call(ann, "GET", "/tokens").json()["items"][0]["id"]

    def used() -> float:
        found = rig.do(lambda tx: tx.get(Token, token_id))
        assert found is not None
        assert found.last_used_at is not None
        return found.last_used_at

    first = used()
    rig.now += 30
    status(rig, ann)
    assert used() == first
    rig.now += 31
    status(rig, ann)
    assert used() > first + 60


def test_the_password_and_the_token_stand_nowhere_in_the_store(rig: ControlRig) -> None:
    ann = rig.user("ann")
    token = rig.call(ann, "POST", "/tokens", {"level": "read"}).json()["token"]
    dump = rig.do(lambda tx: repr([
        tuple(row) for table in reversed(Token.metadata.sorted_tables)
        for row in tx.execute(table.select())
    ]))  # fmt: skip
    assert "ann" in dump
    assert not any(secret in dump for secret in (PASSWORD, ann, token))
