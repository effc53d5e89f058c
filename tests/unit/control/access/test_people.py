"""Users, groups and who shares what: the rules that are more than a level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from modelcloud.control.access.permissions import Actor, Level, Refused
from modelcloud.control.common.revisions import Expected
from modelcloud.control.services import services
from modelcloud.store.store import Store
from modelcloud.store.tables import Group, Service
from support.control import PASSWORD, ControlRig


@pytest.fixture
def rig(database_url: str) -> Iterator[ControlRig]:
    """In place of the one of SQLite only: these rules hold on both databases."""
    with ControlRig(Store(database_url)) as made:
        yield made


def add_service(rig: ControlRig, name: str, group: str, created_by: str = "x") -> None:
    def work(tx: Any) -> None:
        found = tx.query(Group).filter_by(name=group).one()
        tx.add(
            Service(
                name=name, group_id=found.id, sticky=None, created_by=created_by, created_at=0.0
            )
        )

    rig.do(work)


def detail(answer: Any) -> str:
    return str(answer.json()["detail"])


def test_every_user_has_a_group_of_their_own_and_goes_with_it(rig: ControlRig) -> None:
    admin, ann = rig.user("admin", admin=True), rig.user("ann")
    assert rig.call(ann, "GET", "/groups/ann").json()["level"] == "manage"
    add_service(rig, "m261", "ann")
    refused = rig.call(admin, "DELETE", "/users/ann")
    assert refused.status_code == 409
    assert "m261" in detail(refused)
    rig.do(lambda tx: tx.query(Service).delete() and None)
    assert rig.call(ann, "DELETE", "/groups/ann").status_code == 409
    assert rig.call(admin, "DELETE", "/users/ann").status_code == 204
    assert rig.call(admin, "GET", "/groups/ann").status_code == 404


def test_the_last_administrator_who_can_sign_in_stays(rig: ControlRig) -> None:
    admin = rig.user("admin", admin=True)
    rig.user("ann", admin=True)
    assert rig.call(admin, "PATCH", "/users/ann", {"disabled": True}).status_code == 200
    for method, body in (
        ("DELETE", None),
        ("PATCH", {"is_admin": False}),
        ("PATCH", {"disabled": True}),
    ):
        assert rig.call(admin, method, "/users/admin", body).status_code == 409
    assert rig.call(admin, "GET", "/users/admin").json()["is_admin"] is True


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "x" * 64, "a\n", "<img>", "../x"])
def test_a_name_is_letters_digits_underscores_and_dashes(rig: ControlRig, name: str) -> None:
    admin = rig.user("admin", admin=True)
    for path, body in (
        ("/users", {"name": name, "password": PASSWORD}),
        ("/groups", {"name": name}),
        ("/instance-types", {"name": name}),
    ):
        assert rig.call(admin, "POST", path, body).status_code == 400


def test_users_and_groups_share_their_names_in_whatever_case(rig: ControlRig) -> None:
    admin = rig.user("admin", admin=True)
    assert rig.call(admin, "POST", "/groups", {"name": "Lab"}).status_code == 201
    for path, body in (
        ("/groups", {"name": "lab"}),
        ("/groups", {"name": "ADMIN"}),
        ("/users", {"name": "lab", "password": PASSWORD}),
        ("/users", {"name": "Admin", "password": PASSWORD}),
    ):
        assert rig.call(admin, "POST", path, body).status_code == 409, body


def test_a_level_holds_from_the_next_request_on(rig: ControlRig) -> None:
    ann, bob = rig.user("ann"), rig.user("bob")
    place = "/groups/ann/members/bob"
    seen = []
    for level in ("read", "manage", None):
        if level is None:
            rig.call(ann, "DELETE", place)
        else:
            rig.call(ann, "PUT", place, {"level": level})
        seen.append((
            rig.call(bob, "GET", "/groups/ann").status_code,
            rig.call(bob, "PATCH", "/groups/ann", {"description": "x"}).status_code,
        ))  # fmt: skip
    assert seen == [(200, 403), (200, 200), (404, 404)]


def test_a_user_keeps_their_own_group_whoever_shares_it(rig: ControlRig) -> None:
    ann, bob = rig.user("ann"), rig.user("bob")
    assert rig.call(ann, "PUT", "/groups/ann/members/bob", {"level": "manage"}).is_success
    assert rig.call(bob, "DELETE", "/groups/ann/members/ann").status_code == 409
    taken = rig.call(bob, "PUT", "/groups/ann/members/ann", {"level": "read"})
    assert taken.status_code == 409


def test_an_edit_of_what_was_changed_meanwhile_is_refused(rig: ControlRig) -> None:
    ann = rig.user("ann")
    read = rig.call(ann, "GET", "/groups/ann").headers["etag"]
    first = rig.call(
        ann, "PATCH", "/groups/ann", {"description": "one"}, headers={"if-match": read}
    )
    assert first.status_code == 200
    lost = rig.call(ann, "PATCH", "/groups/ann", {"description": "two"}, headers={"if-match": read})
    assert lost.status_code == 412
    again = {"if-match": first.headers["etag"]}
    assert rig.call(ann, "PATCH", "/groups/ann", {"description": "two"}, headers=again).is_success
    assert rig.call(ann, "GET", "/groups/ann").json()["description"] == "two"


def test_a_quota_is_replaced_as_a_whole_and_shown(rig: ControlRig) -> None:
    admin = rig.user("admin", admin=True)
    rig.call(admin, "PUT", "/groups/admin/quota", {"cpu": 2, "replicas": 4})
    answer = rig.call(admin, "PUT", "/groups/admin/quota", {"memory": 1 << 34})
    assert answer.json()["quota"] == {"cpu": None, "memory": 1 << 34, "gpu": None, "replicas": None}
    groups = rig.call(admin, "GET", "/node").json()["groups"]
    assert groups[0]["quota"]["memory"] == 1 << 34
    for wrong in ({"cpu": -1}, {"cpu": "2"}, {"memory": 1.5}, {"gpus": 1}):
        assert rig.call(admin, "PUT", "/groups/admin/quota", wrong).status_code == 400


def test_a_list_is_read_a_page_at_a_time(rig: ControlRig) -> None:
    ann = rig.user("ann")
    for number in range(5):
        rig.call(ann, "POST", "/groups", {"name": f"g{number}"})
    names, cursor = [], ""
    while True:
        page = rig.call(ann, "GET", f"/groups?limit=2{cursor}").json()
        names += [group["name"] for group in page["items"]]
        assert len(page["items"]) <= 2
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert names == ["ann", "g0", "g1", "g2", "g3", "g4"]
    for wrong in ("limit=0", "limit=501", "cursor=x", "cursor=-1", "cursor=1e3"):
        assert rig.call(ann, "GET", f"/groups?{wrong}").status_code == 400


def test_the_audit_log_tells_who_did_what_and_who_was_refused(rig: ControlRig) -> None:
    admin, ann = rig.user("admin", admin=True), rig.user("ann")
    rig.user("bob")
    rig.call(ann, "PUT", "/groups/ann/members/bob", {"level": "read"})
    rig.call(ann, "PUT", "/groups/ann/quota", {"cpu": 100})
    rig.call(None, "POST", "/session", {"user": "ann", "password": "wrong password"})
    newest = rig.call(admin, "GET", "/audit").json()["items"]
    told = [(e["actor"], e["action"], e["name"], e["outcome"], e["detail"]) for e in newest]
    assert told == [
        ("ann", "session.create", "ann", "refused", ""),
        ("ann", "quotas.manage", "ann", "refused", ""),
        ("ann", "groups.share", "ann", "ok", "bob: read"),
    ]
    assert {e["peer"] for e in newest} == {"127.0.0.1"}
    of_group = rig.call(ann, "GET", "/audit?group=ann&action=groups.share").json()["items"]
    assert of_group == newest[2:]
    moment = newest[0]["at"]
    assert rig.call(admin, "GET", f"/audit?since={moment}").json()["items"] == newest[:1]
    assert rig.call(admin, "GET", f"/audit?until={moment}").json()["items"] == newest[1:]
    assert rig.call(admin, "GET", "/audit?since=yesterday").status_code == 400


def test_a_group_under_a_name_that_was_free_again_does_not_show_what_was_before(
    rig: ControlRig,
) -> None:
    root, ann, ben = rig.user("root", admin=True), rig.user("ann"), rig.user("ben")
    rig.call(ann, "POST", "/groups", {"name": "lab"})
    rig.call(ann, "PATCH", "/groups/lab", {"description": "of Ann's"})
    assert rig.call(ann, "DELETE", "/groups/lab").status_code == 204
    assert rig.call(ben, "POST", "/groups", {"name": "lab"}).status_code == 201
    seen = rig.call(ben, "GET", "/audit?group=lab").json()["items"]
    assert [(entry["actor"], entry["action"]) for entry in seen] == [("ben", "groups.create")]
    assert len(rig.call(root, "GET", "/audit?group=lab").json()["items"]) == 4


def test_who_is_named_as_somebody_before_owns_nothing_of_theirs(rig: ControlRig) -> None:
    root, _ = rig.user("root", admin=True), rig.user("ann")
    rig.call(root, "POST", "/groups", {"name": "lab"})
    add_service(rig, "m261", "lab", created_by="ann")
    assert rig.call(root, "DELETE", "/users/ann").status_code == 204
    rig.user("ann")
    lab = rig.do(lambda tx: tx.query(Group).filter_by(name="lab").one().id)
    actor = Actor(user_id=3, name="ann", levels={lab: Level.MODIFY})
    with pytest.raises(Refused):
        rig.do(lambda tx: services.delete(tx, actor, "m261", Expected()))
    created_by = rig.do(lambda tx: services.one(tx, actor, "m261").created_by)
    assert created_by == "ann (deleted)"


def test_a_change_that_fails_leaves_nothing_behind_not_even_in_the_audit_log(
    rig: ControlRig,
) -> None:
    admin = rig.user("admin", admin=True)
    rig.user("ann")
    refused = rig.call(admin, "POST", "/users", {"name": "ANN", "password": PASSWORD})
    assert refused.status_code == 409
    assert rig.call(admin, "GET", "/audit").json()["items"] == []
    assert len(rig.call(admin, "GET", "/users").json()["items"]) == 2


def test_an_instance_type_is_made_changed_and_removed_by_administrators(rig: ControlRig) -> None:
    admin, ann = rig.user("admin", admin=True), rig.user("ann")
    made = rig.call(admin, "POST", "/instance-types", {"name": "tiny", "cpu": 0.5, "memory": 2**28})
    assert made.json() == {
        "name": "tiny", "description": "", "cpu": 0.5, "memory": 2**28, "gpu": 0.0, "revision": 1,
    }  # fmt: skip
    assert rig.call(admin, "POST", "/instance-types", {"name": "tiny"}).status_code == 409
    changed = rig.call(admin, "PATCH", "/instance-types/tiny", {"gpu": 0.5}).json()
    assert (changed["cpu"], changed["gpu"]) == (0.5, 0.5)
    assert rig.call(ann, "GET", "/instance-types").json()["items"] == [changed]
    assert rig.call(admin, "DELETE", "/instance-types/tiny").status_code == 204
    assert rig.call(ann, "GET", "/instance-types/tiny").status_code == 404
