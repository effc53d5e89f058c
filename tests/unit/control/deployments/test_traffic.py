"""Weights, labels, copies and what keeps clients: set in one step, or refused with words."""

from __future__ import annotations

from typing import Any

import pytest

from support.platform import PlatformRig

TRAFFIC = "/services/m261/traffic"


@pytest.fixture
def ann(platform: PlatformRig) -> str:
    """Who has versions 1 and 2 online, and version 3 not."""
    token = platform.user("ann")
    platform.service("m261", group="ann", versions=3)
    platform.deploy(token, "m261", 1)
    platform.deploy(token, "m261", 2)
    return token


def routed(rig: PlatformRig) -> Any:
    (service,) = rig.node.engine.routing.services
    return service


def test_it_is_set_in_one_step_and_reaches_the_node(platform: PlatformRig, ann: str) -> None:
    body = {
        "weights": {"1": 3, "2": 1},
        "labels": {"stable": 1, "canary": 2},
        "shadow": {"2": 0.25},
        "sticky": {"kind": "header", "name": "x-user"},
    }
    answer = platform.call(ann, "PUT", TRAFFIC, body)
    assert answer.status_code == 200, answer.text
    revision = answer.json()["revision"]
    assert platform.call(ann, "GET", TRAFFIC).json() == {**body, "revision": revision}
    first, second = routed(platform).deployments
    assert (first.weight, first.labels, first.shadow) == (3.0, ("stable",), 0.0)
    assert (second.weight, second.labels, second.shadow) == (1.0, ("canary",), 0.25)
    assert routed(platform).sticky.name == "x-user"


def test_a_label_moves_in_one_step_and_the_rest_stays(platform: PlatformRig, ann: str) -> None:
    platform.call(
        ann, "PUT", TRAFFIC, {"labels": {"stable": 1}, "sticky": {"kind": "body", "name": "u"}}
    )
    platform.call(ann, "PUT", TRAFFIC, {"labels": {"stable": 2}})
    assert [d.labels for d in routed(platform).deployments] == [(), ("stable",)]
    assert routed(platform).sticky is not None
    platform.call(ann, "PUT", TRAFFIC, {"sticky": None})
    assert routed(platform).sticky is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"weights": {"3": 1}}, "versions 1, 2"),
        ({"weights": {"x": 1}}, "versions 1, 2"),
        ({"weights": {"1": -1}}, "weights"),
        ({"weights": {"1": 0, "2": 0}}, "at least one of them above 0"),
        ({"labels": {"stable": 3}}, "versions 1, 2"),
        ({"labels": {"7": 1}}, "label"),
        ({"shadow": {"9": 0.5}}, "versions 1, 2"),
        ({"shadow": {"1": 1.5}}, "shadow"),
        ({"sticky": {"kind": "moon", "name": "x"}}, "sticky"),
        ({"sticky": {"kind": "header", "name": "bad name"}}, "sticky.name"),
        ({"sticky": {"kind": "cookie", "name": "a;b"}}, "sticky.name"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    platform: PlatformRig, ann: str, body: dict[str, Any], words: str
) -> None:
    before = platform.call(ann, "GET", TRAFFIC).json()
    answer = platform.call(ann, "PUT", TRAFFIC, body)
    assert (answer.status_code, words in answer.text) == (400, True), answer.text
    assert platform.call(ann, "GET", TRAFFIC).json() == before


def test_a_copy_to_the_only_version_is_refused(platform: PlatformRig, ann: str) -> None:
    platform.act(ann, "m261", 2, "stop")
    answer = platform.call(ann, "PUT", TRAFFIC, {"shadow": {"1": 0.5}})
    assert (answer.status_code, "only version" in answer.text) == (400, True)


def test_an_edit_on_what_is_no_longer_there_is_refused(platform: PlatformRig, ann: str) -> None:
    tag = platform.call(ann, "GET", TRAFFIC).headers["etag"]
    headers = {"if-match": tag}
    body = {"weights": {"2": 2}}
    assert platform.call(ann, "PUT", TRAFFIC, body, headers=headers).status_code == 200
    assert platform.call(ann, "PUT", TRAFFIC, body, headers=headers).status_code == 412


def test_a_label_that_a_rollout_moved_is_an_edit_too(platform: PlatformRig, ann: str) -> None:
    tag = platform.call(ann, "GET", TRAFFIC).headers["etag"]
    body = {"mode": "replace", "replaces": 2, "label": "canary"}
    platform.deploy(ann, "m261", 3, **body)
    answer = platform.call(ann, "PUT", TRAFFIC, {"labels": {}}, headers={"if-match": tag})
    assert answer.status_code == 412


def test_who_may_only_read_does_not_move_traffic(platform: PlatformRig, ann: str) -> None:
    bob = platform.user("bob")
    assert platform.call(bob, "GET", TRAFFIC).status_code == 404
    platform.share("ann", "bob", "read")
    assert platform.call(bob, "GET", TRAFFIC).status_code == 200
    assert platform.call(bob, "PUT", TRAFFIC, {"weights": {"2": 2}}).status_code == 403


def test_tokens_reach_the_node_when_they_are_made_revoked_and_expired(
    platform: PlatformRig, ann: str
) -> None:
    assert routed(platform).tokens is None
    platform.call(ann, "PATCH", "/groups/ann", {"public_predictions": False})
    platform.settle()
    assert routed(platform).tokens == ()
    made = platform.call(ann, "POST", "/tokens", {"level": "predict", "group": "ann"}).json()
    platform.settle()
    assert len(routed(platform).tokens) == 1
    platform.call(ann, "DELETE", f"/tokens/{made['id']}")
    platform.settle()
    assert routed(platform).tokens == ()
    body = {"level": "predict", "group": "ann", "expires_in_s": 1}
    platform.call(ann, "POST", "/tokens", body)
    platform.until(lambda: len(routed(platform).tokens) == 1)
    platform.until(lambda: routed(platform).tokens == ())
