"""Pages ask by the functions that answer the API: the same rights, the same errors, at once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from modelcloud.control.access.permissions import Action, Actor
from modelcloud.control.api import deployments, groups, services, users
from modelcloud.control.api.groups import GroupChanges, NewGroup
from modelcloud.control.common.paging import Page
from modelcloud.control.deployments.deployment_forms import DeployBody
from modelcloud.dashboard.asks import Asks
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import Act, problems_of
from modelcloud.errors import Forbidden, InvalidInput, NotFound, PreconditionFailed, Unauthorized
from support.platform import PlatformRig


def asks(platform: PlatformRig, token: str) -> Asks:
    return Asks(platform.state, platform.app.state.auth, token, "127.0.0.1")


def test_an_operation_is_done_as_over_the_api(platform: PlatformRig) -> None:
    ann = asks(platform, platform.user("ann"))
    made = platform.run(ann.call(groups.create_group, body=NewGroup(name="team")))
    assert (made.name, made.level) == ("team", "manage")
    listed = platform.run(ann.call(groups.list_groups, page=Page(1)))
    assert ([g.name for g in listed.items], listed.next is not None) == (["ann"], True)
    platform.service("m261", group="ann")
    body = DeployBody(version=1, instance_type="small")
    accepted = platform.run(ann.call(deployments.deploy, service="m261", body=body))
    platform.settle()
    assert accepted.rollout is not None
    assert platform.run(ann.call(services.get_service, service="m261")).status.value == "Serving"


def test_what_may_not_be_is_refused_and_in_the_audit_log(platform: PlatformRig) -> None:
    ann = asks(platform, platform.user("ann"))
    admin = platform.user("root", admin=True)
    with pytest.raises(Forbidden, match="administrator"):
        platform.run(ann.call(users.list_users))
    entries = platform.call(admin, "GET", "/audit?actor=ann").json()["items"]
    assert [(e["action"], e["outcome"]) for e in entries] == [("users.manage", "refused")]
    platform.service("secret", group="root")
    with pytest.raises(NotFound):
        platform.run(ann.call(services.get_service, service="secret"))


def test_an_edit_on_what_was_changed_since_is_refused(platform: PlatformRig) -> None:
    ann = asks(platform, platform.user("ann"))
    change: dict[str, Any] = {"group": "ann", "body": GroupChanges(description="x")}
    before = platform.run(ann.call(groups.get_group, group="ann")).revision
    platform.run(ann.call(groups.edit_group, on=before, **change))
    with pytest.raises(PreconditionFailed, match="was changed since"):
        platform.run(ann.call(groups.edit_group, on=before, **change))


def test_nothing_of_who_asks_is_kept(platform: PlatformRig) -> None:
    ann = asks(platform, platform.user("ann"))
    platform.run(ann.actor())
    admin = platform.user("root", admin=True)
    platform.call(admin, "PATCH", "/users/ann", {"disabled": True})
    with pytest.raises(Unauthorized):
        platform.run(ann.call(groups.list_groups))


def test_neither_a_token_nor_who_must_change_the_password_asks(platform: PlatformRig) -> None:
    session = platform.user("ann")
    with pytest.raises(Unauthorized, match="session"):
        platform.run(asks(platform, platform.token("ann")).actor())
    admin = platform.user("root", admin=True)
    platform.call(admin, "PATCH", "/users/ann", {"must_change_password": True})
    with pytest.raises(Forbidden, match="change your password first"):
        platform.run(asks(platform, session).actor())


@pytest.mark.parametrize(
    ("level", "action", "owners", "may"),
    [
        ("read", Action.READ, None, True), ("read", Action.DEPLOY, None, False),
        ("modify", Action.DEPLOY, None, True), ("modify", Action.STOP, {"ann"}, True),
        ("modify", Action.STOP, {"ann", "ben"}, False), ("modify", Action.STOP, None, False),
        ("manage", Action.STOP, {"ben"}, True), ("none", Action.READ, None, False),
        ("manage", Action.MANAGE_USERS, None, False),
    ],
)  # fmt: skip
def test_a_page_offers_what_the_operation_would_allow(
    level: str, action: Action, owners: set[str] | None, may: bool
) -> None:
    actor = Actor(user_id=1, name="ann", is_admin=False)
    assert Rights(actor, level).may(action, owners) is may


def test_problems_are_told_by_their_field() -> None:
    assert problems_of(InvalidInput("port", "70000", "1 to 65535")).keys() == {"port"}
    assert problems_of(NotFound("no group 'x'")) == {"": "no group 'x'"}
    with pytest.raises(ValidationError) as caught:
        DeployBody(version=1, replicas=0, weight=-1)
    assert problems_of(caught.value).keys() == {"replicas", "weight"}


def test_an_argument_that_is_no_number_is_no_crash() -> None:
    assert Act({"version": "7"}, {}).number("version") == 7
    for text in ("", "x", "-1", "1e3", "٣", "9" * 20):
        with pytest.raises(InvalidInput):
            Act({"version": text}, {}).number("version")
