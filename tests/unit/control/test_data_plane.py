"""What a gateway forwards of a service is answered as serve mode answers it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelcloud.dataplane.messages import AdminResponse
from support.platform import PlatformRig


@pytest.fixture
def ann(platform: PlatformRig) -> str:
    token = platform.user("ann")
    platform.service("m261", group="ann", versions=2, port=9000)
    platform.deploy(token, "m261", 1, options={"depth": 2})
    return token


def json(answer: AdminResponse) -> Any:
    return msgspec.json.decode(answer.body)


def test_a_service_is_described_below_its_name_and_at_its_own_port(
    platform: PlatformRig, ann: str
) -> None:
    below, at_root = platform.forward("GET", "/m261/meta"), platform.forward("GET", "/", port=9000)
    assert (below.status, json(below)["service"], json(below)["status"]) == (200, "m261", "RUNNING")
    assert json(at_root)["version"] == json(below)["version"] == 1
    assert platform.forward("GET", "/readyz", port=9000).status == 200
    assert json(platform.forward("GET", "/healthcheck", port=9000)) == {"status": "RUNNING"}
    setup = json(platform.forward("GET", "/m261/setup"))
    assert [option["name"] for option in setup["options"]] == ["depth"]


def test_the_docs_page_stands_where_it_is_asked_for(platform: PlatformRig, ann: str) -> None:
    page = platform.forward("GET", "/m261/redoc").body.decode()
    assert 'src="/m261/redoc/init.js"' in page
    assert b'url: "/m261/docs.json"' in platform.forward("GET", "/m261/redoc/init.js").body
    assert b'url: "/docs.json"' in platform.forward("GET", "/redoc/init.js", port=9000).body
    document = json(platform.forward("GET", "/m261/docs.json"))
    assert document["servers"] == [{"url": "/m261"}]
    assert sorted(document["paths"]) == ["/meta", "/predict", "/setup"]
    whole = json(platform.forward("GET", "/docs.json", port=9000))
    assert {"/rollback", "/rollouts", "/predict"} <= whole["paths"].keys()
    assert platform.forward("GET", "/m261/redoc/../x").status == 404


def test_a_change_needs_a_token_of_who_may(platform: PlatformRig, ann: str) -> None:
    body = b'{"depth": 3}'
    anonymous = platform.forward("POST", "/m261/setup", body=body)
    assert anonymous.status == 401
    assert ("www-authenticate", "Bearer") in anonymous.headers
    assert platform.forward("POST", "/m261/setup", token="mc_wrong", body=body).status == 401
    bob = platform.user("bob")
    hidden = platform.forward("POST", "/m261/setup", token=bob, body=body)
    assert (hidden.status, json(hidden)) == (404, {"error": "nothing at /m261/setup"})
    assert platform.forward("POST", "/setup", token=bob, body=body, port=9000).status == 404
    platform.share("ann", "bob", "read")
    assert platform.forward("POST", "/m261/setup", token=bob, body=body).status == 403
    assert platform.forward("GET", "/rollouts", port=9000).status == 401
    kept = platform.call(ann, "GET", "/audit?group=ann&actor=bob").json()["items"]
    refused = ("deployments.update", "service", "m261", "refused")
    told = [(e["action"], e["kind"], e["name"], e["outcome"]) for e in kept]
    assert told == [refused]
    assert platform.deployment(ann, "m261", 1)["current"]["generation"] == 1


def test_an_update_is_answered_when_it_is_done_or_at_once(platform: PlatformRig, ann: str) -> None:
    done = platform.forward("POST", "/m261/setup", token=ann, body=b'{"depth": 3}')
    assert done.status == 200
    record = json(done)
    assert (record["success"], record["generation"], record["version"]) == (True, 2, 1)
    assert record["chosen"] == "version 1 is the only one online"
    same = json(platform.forward("POST", "/setup", token=ann, body=b'{"depth": 3}', port=9000))
    assert (same["success"], same["changed"], same["rollout"]) == (True, False, None)
    begun = platform.forward(
        "POST", "/m261/setup", token=ann, body=b'{"options": {"depth": 4}}', query="wait=false"
    )
    assert (begun.status, json(begun)["generation"]) == (202, 3)
    platform.settle()
    back = platform.forward("POST", "/rollback", token=ann, port=9000)
    assert (back.status, json(back)["generation"]) == (200, 2)
    listed = json(platform.forward("GET", "/rollouts", token=ann, port=9000))["rollouts"]
    assert [(rollout["kind"], rollout["state"]) for rollout in listed][:1] == [
        ("rollback", "succeeded")
    ]
    one = platform.forward("GET", f"/rollouts/{listed[0]['id']}", token=ann, port=9000)
    assert json(one)["to"] == {"generation": 2, "revision": 0, "version": 1}


def test_an_update_may_be_to_another_registered_version(platform: PlatformRig, ann: str) -> None:
    done = platform.forward("POST", "/m261/setup", token=ann, body=b'{"artifact": "2"}')
    record = json(done)
    assert (done.status, record["success"], record["version"]) == (200, True, 2)
    assert platform.deployment(ann, "m261", 2)["answers"] == [1, 2]
    gone = platform.forward("POST", "/m261/setup", token=ann, body=b'{"artifact": "7"}')
    assert gone.status == 404


def test_a_bad_option_and_other_code_are_refused(platform: PlatformRig, ann: str) -> None:
    answer = platform.forward("POST", "/m261/setup", token=ann, body=b'{"depth": "x"}')
    assert (answer.status, "depth" in json(answer)["error"]) == (400, True)
    answer = platform.forward("POST", "/m261/setup", token=ann, body=b'{"artifact": "x.py"}')
    assert (answer.status, "register a version" in json(answer)["error"]) == (400, True)
    answer = platform.forward("POST", "/m261/setup", token=ann, body=b'{"model_path": "x"}')
    assert (answer.status, "its own files" in json(answer)["error"]) == (400, True)
    assert platform.forward("PUT", "/m261/setup", token=ann).status == 405
    assert platform.forward("GET", "/m261/rollbacks").status == 404
    assert platform.forward("GET", "/unknown/meta").status == 404


def test_the_label_stable_says_which_deployment_is_meant(platform: PlatformRig, ann: str) -> None:
    platform.deploy(ann, "m261", 2, label="stable")
    assert json(platform.forward("GET", "/m261/meta"))["version"] == 2
    platform.call(ann, "PUT", "/services/m261/traffic", {"labels": {}, "weights": {"2": 0.5}})
    assert json(platform.forward("GET", "/m261/meta"))["version"] == 1


def test_reading_is_as_public_as_predicting(platform: PlatformRig, ann: str) -> None:
    platform.call(ann, "PATCH", "/groups/ann", {"public_predictions": False})
    for path in ("/m261/meta", "/m261/setup", "/m261/docs.json", "/m261/redoc"):
        assert platform.forward("GET", path).status == 401
        token = platform.token("ann", "predict", "ann")
        assert platform.forward("GET", path, token=token).status == 200


def test_with_nothing_online_changes_wait_for_something(platform: PlatformRig, ann: str) -> None:
    platform.act(ann, "m261", 1, "stop")
    assert json(platform.forward("GET", "/m261/meta"))["status"] == "INITIALIZING"
    assert platform.forward("POST", "/m261/setup", token=ann, body=b"{}").status == 503
