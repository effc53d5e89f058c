"""Tokens made for a purpose open what they say, never more than their user may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelcloud.control.access import passwords, tokens
from modelcloud.control.access.permissions import Action, Actor, Level, Resource, allowed
from modelcloud.store.store import Store
from support.control import ControlRig


@pytest.fixture
def rig(database_url: str) -> Iterator[ControlRig]:
    """In place of the one of SQLite only: these rules hold on both databases."""
    with ControlRig(Store(database_url)) as made:
        yield made


def closed_group(rig: ControlRig, owner: str, group: str) -> int:
    rig.call(owner, "POST", "/groups", {"name": group})
    rig.call(owner, "PATCH", f"/groups/{group}", {"public_predictions": False})
    from modelcloud.store.tables import Group

    return rig.do(lambda tx: tx.query(Group).filter_by(name=group).one().id)


def predicts(rig: ControlRig, group_id: int, token: str) -> bool:
    found = rig.do(lambda tx: tokens.predictors(tx, rig.state.wall()))
    return passwords.digest(token) in found.digests[group_id]


def test_a_token_is_shown_once_and_revoked_at_once(rig: ControlRig) -> None:
    ann = rig.user("ann")
    body = {"name": "ci", "level": "modify", "group": "ann", "expires_in_s": 3600}
    made = rig.call(ann, "POST", "/tokens", body).json()
    token = made.pop("token")
    assert rig.call(token, "GET", "/groups/ann").json()["level"] == "modify"
    listed = rig.call(ann, "GET", "/tokens").json()["items"]
    assert listed[0].pop("last_used_at") is not None
    made.pop("last_used_at")
    assert listed[0] == made
    assert rig.call(ann, "DELETE", f"/tokens/{made['id']}").status_code == 204
    assert rig.call(token, "GET", "/groups/ann").status_code == 401


def test_a_token_expires(rig: ControlRig) -> None:
    rig.user("ann")
    token = rig.token("ann", "read", expires_in_s=60)
    assert rig.call(token, "GET", "/groups").status_code == 200
    rig.now += 61
    assert rig.call(token, "GET", "/groups").status_code == 401


def test_a_token_makes_no_other_and_signs_nobody_out(rig: ControlRig) -> None:
    rig.user("ann", admin=True)
    token = rig.token("ann")
    for method, path, body in (
        ("POST", "/tokens", {"level": "manage"}),
        ("GET", "/tokens", None),
        ("PUT", "/session/password", {"current": "x" * 10, "new": "y" * 10}),
        ("DELETE", "/session", None),
    ):
        assert rig.call(token, method, path, body).status_code == 403


def test_a_token_never_opens_more_than_its_user_may_at_that_moment(rig: ControlRig) -> None:
    ann, bob = rig.user("ann"), rig.user("bob")
    rig.share("ann", "bob", "manage")
    token = rig.call(bob, "POST", "/tokens", {"level": "manage", "group": "ann"}).json()["token"]
    change = ("PATCH", "/groups/ann", {"description": "x"})
    assert rig.call(token, *change).status_code == 200
    assert rig.call(token, "GET", "/groups/bob").status_code == 404, "bound to one group"
    rig.call(ann, "PUT", "/groups/ann/members/bob", {"level": "read"})
    assert rig.call(token, *change).status_code == 403
    rig.call(ann, "DELETE", "/groups/ann/members/bob")
    assert rig.call(token, "GET", "/groups/ann").status_code == 404


def test_a_token_is_bound_only_to_a_group_that_one_may_see(rig: ControlRig) -> None:
    rig.user("ann")
    bob = rig.user("bob")
    for group in ("ann", "nothing"):
        answer = rig.call(bob, "POST", "/tokens", {"level": "read", "group": group})
        assert answer.status_code == 404


def test_who_may_predict_where_a_token_is_needed(rig: ControlRig) -> None:
    ann, bob = rig.user("ann"), rig.user("bob")
    admin = rig.user("admin", admin=True)
    lab = closed_group(rig, ann, "lab")
    rig.share("lab", "bob", "read")
    may = {
        "manager": rig.token("ann", "predict"),
        "reader": rig.token("bob", "manage", "lab"),
        "administrator": rig.token("admin", "predict"),
    }
    may_not = {
        "session": ann,
        "another group": rig.token("ann", "manage", "ann"),
        "stranger": (rig.user("eve"), rig.token("eve"))[1],
    }
    assert all(predicts(rig, lab, token) for token in may.values())
    assert not any(predicts(rig, lab, token) for token in may_not.values())
    rig.call(ann, "DELETE", "/groups/lab/members/bob")
    assert not predicts(rig, lab, may["reader"])
    rig.call(admin, "PATCH", "/users/ann", {"disabled": True})
    assert not predicts(rig, lab, may["manager"])
    assert predicts(rig, lab, may["administrator"])
    assert rig.call(bob, "GET", "/session").status_code == 200


def test_public_groups_have_no_list_of_tokens_and_the_next_expiry_is_known(
    rig: ControlRig,
) -> None:
    ann = rig.user("ann")
    rig.token("ann", "predict", expires_in_s=100)
    assert rig.do(lambda tx: tokens.predictors(tx, rig.state.wall())) == ({}, None)
    lab = closed_group(rig, ann, "lab")
    found = rig.do(lambda tx: tokens.predictors(tx, rig.state.wall()))
    assert found.digests.keys() == {lab}
    assert found.until == pytest.approx(rig.state.wall() + 100, abs=60)


@pytest.mark.parametrize("action", Action)
def test_an_action_is_refused_to_who_has_nothing_to_do_with_it(action: Action) -> None:
    stranger = Actor(user_id=1, name="ann", levels={2: Level.MANAGE})
    about = Resource(group_id=1, owners=frozenset({"bob"}), user_id=2)
    free = {Action.READ_ACCOUNT, Action.READ_INSTANCE, Action.CREATE_GROUP}
    assert allowed(stranger, action, about) == (action in free)
    assert not allowed(None, action, about)


def test_one_deletes_with_modify_what_one_deployed_and_nothing_else() -> None:
    ann = Actor(user_id=1, name="ann", levels={1: Level.MODIFY})
    for action in (Action.STOP, Action.DELETE):
        assert allowed(ann, action, Resource(group_id=1, owners=frozenset({"ann"})))
        assert not allowed(ann, action, Resource(group_id=1, owners=frozenset({"ann", "bob"})))
        assert not allowed(ann, action, Resource(group_id=1))
