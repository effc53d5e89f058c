"""Versions are put online, replaced, renewed, taken offline: from the API to the node."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select

from modelcloud.store.tables import Deployment, InstanceType, RolloutRow, Service
from support.platform import SIGNATURE, PlatformRig

ALL = "/services/m261/deployments"


@pytest.fixture
def ann(platform: PlatformRig) -> str:
    token = platform.user("ann")
    platform.service("m261", group="ann", versions=8)
    return token


def routes(rig: PlatformRig) -> dict[str, Any]:
    (service,) = rig.node.engine.routing.services
    return {route.deployment: route for route in service.deployments}


def test_a_deployed_version_serves_with_what_was_asked_for(platform: PlatformRig, ann: str) -> None:
    accepted = platform.deploy(ann, "m261", 1, replicas=2, options={"depth": 3}, label="stable")
    assert accepted["deployment"]["state"] == "pending"
    assert accepted["rollout"]["kind"] == "initial"
    record = platform.deployment(ann, "m261", 1)
    assert (record["state"], record["status"], record["ready"]) == ("serving", "Serving", 2)
    assert record["options"] == {"depth": 3}
    assert record["labels"] == ["stable"]
    spec = platform.node.engine.desired.generations[0].spec
    assert spec.deployment == "m261/1"
    assert spec.snapshot == "/data/artifacts/m2611"
    # What is kept holds no path: the data folder may be elsewhere at the next start.
    kept = platform.do(
        lambda tx: [*tx.scalars(select(RolloutRow.target)), *tx.scalars(select(Deployment.facts))]
    )
    assert "m2611" in str(kept)
    assert "/data" not in str(kept)
    assert spec.options == {"depth": 3}
    assert (spec.resources.cpu, spec.verify, spec.port) == (1.0, True, 8080)
    rollout = platform.rollout(ann, accepted["rollout"]["id"])
    assert (rollout["state"], rollout["percent"]) == ("succeeded", 100)
    assert rollout["to"] == {"generation": 1, "revision": 0, "version": 1}
    assert any("asked for by ann" in line for _, line in platform.log)


def test_six_versions_may_be_online_and_the_seventh_is_refused(
    platform: PlatformRig, ann: str
) -> None:
    for version in range(1, 7):
        platform.deploy(ann, "m261", version)
    answer = platform.call(ann, "POST", ALL, {"version": 7, "instance_type": "small"})
    assert answer.status_code == 409
    assert "6 versions of 'm261' are online (1, 2, 3, 4, 5, 6)" in answer.json()["detail"]
    platform.act(ann, "m261", 2, "stop")
    platform.deploy(ann, "m261", 7)
    assert platform.call(ann, "POST", ALL + "/2/start").status_code == 409
    platform.act(ann, "m261", 7, "delete")
    platform.act(ann, "m261", 2, "start")
    assert platform.deployment(ann, "m261", 2)["status"] == "Serving"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"version": 9}, 404, "no version 9"),
        ({"version": 2, "instance_type": "huge"}, 400, "accepted: small"),
        ({"version": 2, "replicas": 65}, 400, "replicas"),
        ({"version": 2, "replicas": 0}, 400, "replicas"),
        ({"version": 2, "options": {"deep": 1}}, 400, "accepted: depth"),
        ({"version": 2, "options": {"depth": "x"}}, 400, "depth"),
        ({"version": 2, "strategy": "sideways"}, 400, "strategy"),
        ({"version": 2, "dispatch": "consistent_hash"}, 400, "header:NAME"),
        ({"version": 2, "dispatch": "sideways"}, 400, "least_loaded"),
        ({"version": 2, "label": "7"}, 400, "label"),
        ({"version": 2, "label": "redoc"}, 400, "label"),
        ({"version": 2, "weight": -1}, 400, "weight"),
        ({"version": 1}, 409, "online already"),
        ({"version": 2, "mode": "replace"}, 400, "replaces"),
        ({"version": 2, "mode": "replace", "replaces": 3}, 409, "serving: 1"),
        ({"version": 2, "surprise": 1}, 400, "surprise"),
    ],
)
def test_what_does_not_fit_is_refused_with_words(
    platform: PlatformRig, ann: str, body: dict[str, Any], status: int, words: str
) -> None:
    platform.deploy(ann, "m261", 1)
    wants = len(platform.node.engine.wants)
    answer = platform.call(ann, "POST", ALL, {"instance_type": "small", **body})
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert len(platform.node.engine.wants) == wants


def test_an_option_without_a_default_is_asked_for_before_anything_starts(
    platform: PlatformRig, ann: str
) -> None:
    options = [{"name": "model", "type": "text", "description": None}]
    platform.service("fib", group="ann", signature={**SIGNATURE, "options": options})
    body = {"version": 1, "instance_type": "small"}
    answer = platform.call(ann, "POST", "/services/fib/deployments", body)
    assert (answer.status_code, "model" in answer.text) == (400, True)
    platform.deploy(ann, "fib", 1, options={"model": "big"})
    assert platform.deployment(ann, "fib", 1)["status"] == "Serving"


def test_a_disabled_version_and_a_web_application_without_a_port_are_refused(
    platform: PlatformRig, ann: str
) -> None:
    platform.service("off", group="ann", enabled=False)
    platform.service(
        "site", group="ann", signature={"commands": [{"name": "x", "wholeSite": True}]}
    )
    body = {"version": 1, "instance_type": "small"}
    answer = platform.call(ann, "POST", "/services/off/deployments", body)
    assert (answer.status_code, "disabled" in answer.text) == (409, True)
    answer = platform.call(ann, "POST", "/services/site/deployments", body)
    assert (answer.status_code, "port" in answer.text) == (409, True)


def test_what_exceeds_the_node_has_failed_with_its_sums_and_starts_nothing(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, replicas=6)
    wants = len(platform.node.engine.wants)
    accepted = platform.deploy(ann, "m261", 2, replicas=3)
    sums = "cpu: 3 asked for + 6 in use = 9, the node has 8"
    assert accepted["rollout"]["state"] == "failed"
    assert sums in accepted["rollout"]["reason"]
    record = platform.deployment(ann, "m261", 2)
    assert (record["state"], record["status"]) == ("failed", "Failed")
    assert sums in record["reason"]
    assert any(sums in line for service, line in platform.log if service == "m261")
    assert len(platform.node.engine.wants) == wants
    # What failed takes no place: there is room for what fits, and for itself once there is more.
    platform.deploy(ann, "m261", 3, replicas=2)
    platform.act(ann, "m261", 1, "stop")
    platform.act(ann, "m261", 2, "redeploy")
    assert platform.deployment(ann, "m261", 2)["status"] == "Serving"


def test_a_groups_quota_binds_deploy_and_scale(platform: PlatformRig, ann: str) -> None:
    root = platform.user("root", admin=True)
    assert platform.call(root, "PUT", "/groups/ann/quota", {"replicas": 3}).status_code == 200
    platform.deploy(ann, "m261", 1, replicas=2)
    accepted = platform.deploy(ann, "m261", 2, replicas=2)
    assert "replicas: 2 asked for + 2 in use = 4, group ann has 3" in accepted["rollout"]["reason"]
    answer = platform.call(ann, "POST", f"{ALL}/1/scale", {"replicas": 4})
    assert (answer.status_code, "group ann has 3" in answer.text) == (409, True)
    platform.act(ann, "m261", 1, "scale", {"replicas": 3})
    assert platform.deployment(ann, "m261", 1)["ready"] == 3


def test_a_type_that_does_not_limit_what_a_quota_bounds_exceeds_it(
    platform: PlatformRig, ann: str
) -> None:
    platform.do(lambda tx: tx.add(InstanceType(name="unlimited", cpu=0.0, memory=0)))
    platform.deploy(ann, "m261", 1, instance_type="unlimited")  # no quota, and the node has room
    assert platform.deployment(ann, "m261", 1)["status"] == "Serving"
    root = platform.user("root", admin=True)
    assert platform.call(root, "PUT", "/groups/ann/quota", {"cpu": 0.2}).status_code == 200
    accepted = platform.deploy(ann, "m261", 2, instance_type="unlimited")
    words = "over quota: cpu: without limit asked for, group ann has 0.2"
    assert (accepted["rollout"]["state"], accepted["rollout"]["reason"]) == ("failed", words)
    assert platform.deployment(ann, "m261", 2)["reason"] == words
    scaled = platform.call(ann, "POST", f"{ALL}/1/scale", {"replicas": 2})
    assert (scaled.status_code, scaled.json()["detail"]) == (409, words)


def test_a_version_is_replaced_and_its_address_goes_on_answering(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, options={"depth": 2}, replicas=2)
    platform.deploy(
        ann, "m261", 7, mode="replace", replaces=1, label="stable", dispatch="round_robin"
    )
    record = platform.deployment(ann, "m261", 7)
    assert (record["id"], record["answers"], record["labels"]) == (1, [1, 7], ["stable"])
    assert (record["options"], record["replicas"]) == ({"depth": 2}, 2)
    assert routes(platform)["m261/1"].versions == (1, 7)
    assert platform.node.engine.deployments["m261/1"].dispatch.policy.value == "round_robin"
    answer = platform.call(ann, "GET", f"{ALL}/1")
    assert (answer.status_code, "version 7 has replaced it" in answer.text) == (404, True)
    platform.deploy(ann, "m261", 1)  # takes its address over
    assert routes(platform)["m261/1"].versions == (7,)
    assert routes(platform)["m261/2"].versions == (1,)


def test_a_replacement_that_fails_leaves_the_old_version_serving(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, replicas=2)
    body = {"version": 2, "mode": "replace", "replaces": 1, "replicas": 4}
    accepted = platform.call(ann, "POST", ALL, body).json()
    platform.until(lambda: bool(platform.node.engine.workers(2)), loads=False)

    async def fail() -> None:
        platform.node.engine.fail(platform.node.engine.workers(2)[0], "setup raised ValueError")

    platform.run(fail())
    platform.settle()
    record = platform.deployment(ann, "m261", 1)
    assert (record["status"], record["ready"], record["replicas"]) == ("Serving", 2, 2)
    rollout = platform.rollout(ann, accepted["rollout"]["id"])
    assert (rollout["state"], rollout["reason"]) == ("failed", "setup raised ValueError")
    assert any("failed: setup raised ValueError" in line for _, line in platform.log)
    over = platform.deploy(ann, "m261", 2, mode="replace", replaces=1, replicas=9)
    assert over["rollout"]["state"] == "failed"
    assert platform.deployment(ann, "m261", 1)["status"] == "Serving"


def test_a_new_version_takes_no_traffic_unless_it_is_asked_for(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1)
    platform.deploy(ann, "m261", 2)
    platform.deploy(ann, "m261", 3, weight=0.5)
    weights = {key: route.weight for key, route in routes(platform).items()}
    assert weights == {"m261/1": 1.0, "m261/2": 0.0, "m261/3": 0.5}


def test_stop_keeps_the_values_and_start_brings_them_back(platform: PlatformRig, ann: str) -> None:
    platform.deploy(ann, "m261", 1, options={"depth": 4})
    platform.act(ann, "m261", 1, "stop")
    record = platform.deployment(ann, "m261", 1)
    assert (record["state"], record["status"]) == ("stopped", "Offline")
    assert record["reason"] == "stopped by ann"
    assert platform.node.engine.workers() == []
    assert platform.node.engine.routing.services == ()
    assert platform.act(ann, "m261", 1, "stop")["changed"] is False
    platform.act(ann, "m261", 1, "start")
    record = platform.deployment(ann, "m261", 1)
    assert (record["status"], record["options"]) == ("Serving", {"depth": 4})
    assert platform.node.engine.desired.generations[0].spec.options == {"depth": 4}


def test_a_deleted_deployment_goes_with_its_last_worker_and_delete_all_takes_the_rest(
    platform: PlatformRig, ann: str
) -> None:
    for version in (1, 2, 3):
        platform.deploy(ann, "m261", version, label=f"v{version}")
    platform.act(ann, "m261", 1, "delete")
    assert sorted(platform.rows()) == [2, 3]
    assert platform.call(ann, "DELETE", ALL).status_code == 200
    platform.settle()
    assert platform.rows() == {}
    assert platform.node.engine.workers() == []
    assert platform.call(ann, "GET", ALL).json()["items"] == []
    assert len(platform.call(ann, "GET", "/rollouts?service=m261").json()["items"]) == 3


def test_an_update_merges_options_and_says_when_nothing_changes(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, options={"depth": 2})
    assert platform.act(ann, "m261", 1, "update", {"options": {"depth": 2}})["changed"] is False
    platform.act(ann, "m261", 1, "update", {"options": {"depth": 5}})
    record = platform.deployment(ann, "m261", 1)
    assert (record["options"], record["current"]["generation"]) == ({"depth": 5}, 2)
    tag = platform.call(ann, "GET", f"{ALL}/1").headers["etag"]
    platform.act(ann, "m261", 1, "scale", {"replicas": 2})
    answer = platform.call(
        ann, "POST", f"{ALL}/1/update", {"options": {"depth": 6}}, headers={"if-match": tag}
    )
    assert answer.status_code == 412


def test_a_rollback_goes_to_the_warm_generation_and_takes_the_row_with_it(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, options={"depth": 2})
    platform.deploy(ann, "m261", 2, mode="replace", replaces=1, options={})
    accepted = platform.act(ann, "m261", 2, "rollback")
    assert accepted["rollout"]["to"] == {"generation": 1, "revision": 0, "version": 1}
    record = platform.deployment(ann, "m261", 1)
    assert (record["options"], record["current"]) == (
        {"depth": 2},
        {"generation": 1, "revision": 0, "version": 1},
    )


def test_a_rollback_to_what_is_no_longer_warm_is_a_new_generation(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, keep_warm_s=0.0)
    platform.deploy(ann, "m261", 2, mode="replace", replaces=1)
    accepted = platform.act(ann, "m261", 2, "rollback")
    assert accepted["rollout"]["to"] == {"generation": 3, "revision": 0, "version": 1}
    assert platform.deployment(ann, "m261", 1)["status"] == "Serving"
    platform.deploy(ann, "m261", 3, mode="replace", replaces=1)
    platform.deploy(ann, "m261", 1)
    answer = platform.call(ann, "POST", f"{ALL}/3/rollback")
    assert (answer.status_code, "version 1" in answer.text) == (409, True)


@pytest.mark.parametrize("keep_warm_s", [0.0, 60.0])
def test_the_version_that_a_rollback_leads_to_stays(
    platform: PlatformRig, ann: str, keep_warm_s: float
) -> None:
    platform.deploy(ann, "m261", 1, keep_warm_s=keep_warm_s)
    platform.deploy(ann, "m261", 2, mode="replace", replaces=1)
    refused = platform.call(ann, "DELETE", "/services/m261/versions/1")
    assert refused.status_code == 409
    assert "is what the deployment of version 2 would go back to" in refused.json()["detail"]
    assert platform.act(ann, "m261", 2, "rollback")["rollout"]["to"]["version"] == 1
    platform.act(ann, "m261", 1, "delete")
    assert not platform.rows()


def test_a_rollback_recalls_the_update_on_its_way(platform: PlatformRig, ann: str) -> None:
    platform.deploy(ann, "m261", 1)
    begun = platform.call(ann, "POST", f"{ALL}/1/update", {"options": {"depth": 9}}).json()
    platform.until(lambda: bool(platform.node.engine.workers(2)), loads=False)
    recalled = platform.act(ann, "m261", 1, "rollback")
    assert recalled["rollout"]["id"] == begun["rollout"]["id"]
    assert platform.rollout(ann, begun["rollout"]["id"])["state"] == "rolled_back"
    record = platform.deployment(ann, "m261", 1)
    assert (record["options"], record["current"]["generation"]) == ({}, 1)


def test_a_newer_update_supersedes_an_older_one_that_still_loads(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1)
    first = platform.call(ann, "POST", f"{ALL}/1/update", {"options": {"depth": 2}}).json()
    second = platform.call(ann, "POST", f"{ALL}/1/update", {"options": {"depth": 3}}).json()
    platform.settle()
    assert platform.rollout(ann, first["rollout"]["id"])["state"] == "superseded"
    assert platform.rollout(ann, second["rollout"]["id"])["state"] == "succeeded"
    assert platform.deployment(ann, "m261", 1)["options"] == {"depth": 3}


def test_scaling_while_a_replacement_is_on_its_way_is_not_undone_by_it(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1)
    body = {"version": 2, "mode": "replace", "replaces": 1}
    assert platform.call(ann, "POST", ALL, body).status_code == 202
    platform.until(lambda: bool(platform.node.engine.workers(2)), loads=False)
    assert platform.call(ann, "POST", f"{ALL}/1/scale", {"replicas": 3}).status_code == 202
    platform.settle()
    record = platform.deployment(ann, "m261", 2)
    assert (record["replicas"], record["ready"]) == (3, 3)


def test_the_same_idempotency_key_deploys_once(platform: PlatformRig, ann: str) -> None:
    body = {"version": 1, "instance_type": "small"}
    headers = {"idempotency-key": "k1"}
    first = platform.call(ann, "POST", ALL, body, headers=headers)
    platform.settle()
    again = platform.call(ann, "POST", ALL, body, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    other = platform.call(ann, "POST", ALL, {**body, "version": 2}, headers=headers)
    assert other.status_code == 422


def test_levels_bind_every_verb(platform: PlatformRig, ann: str) -> None:
    platform.deploy(ann, "m261", 1)
    people = {level: platform.user(level) for level in ("read", "modify", "manage")}
    for level in people:
        platform.share("ann", level, level)
    outsider = platform.user("outsider")
    verbs = ("redeploy", "stop", "start", "update", "rollback", "scale")
    bodies: dict[str, Any] = {"update": {"options": {}}, "scale": {"replicas": 1}}
    for verb in verbs:
        body = bodies.get(verb)
        assert platform.call(outsider, "POST", f"{ALL}/1/{verb}", body).status_code == 404
        assert platform.call(people["read"], "POST", f"{ALL}/1/{verb}", body).status_code == 403
    assert platform.call(people["read"], "GET", f"{ALL}/1").status_code == 200
    assert platform.call(people["read"], "DELETE", f"{ALL}/1").status_code == 403
    assert platform.call(people["modify"], "POST", f"{ALL}/1/stop").status_code == 403
    assert platform.call(people["modify"], "DELETE", f"{ALL}/1").status_code == 403
    assert platform.call(people["modify"], "DELETE", ALL).status_code == 403
    platform.deploy(people["modify"], "m261", 2)
    platform.deploy(people["modify"], "m261", 3, mode="replace", replaces=1)
    platform.act(people["modify"], "m261", 3, "delete")
    platform.act(people["manage"], "m261", 2, "delete")
    assert platform.rows() == {}


def test_who_replaces_a_version_owns_the_new_one_once_it_serves(
    platform: PlatformRig, ann: str
) -> None:
    ada, ben = platform.user("ada"), platform.user("ben")
    for name in ("ada", "ben"):
        platform.share("ann", name, "modify")
    platform.deploy(ada, "m261", 1)

    def owner(version: int) -> str:
        return str(platform.deployment(ann, "m261", version)["deployed_by"])

    body = {"version": 2, "mode": "replace", "replaces": 1}
    assert platform.call(ben, "POST", ALL, body).status_code == 202
    platform.until(lambda: bool(platform.node.engine.workers(2)), loads=False)
    assert owner(1) == "ada"
    platform.act(ada, "m261", 1, "rollback")  # which recalls it
    assert owner(1) == "ada"
    platform.deploy(ben, "m261", 2, mode="replace", replaces=1)
    assert owner(2) == "ben"
    platform.act(ada, "m261", 2, "update", {"options": {"depth": 2}})
    assert owner(2) == "ben"
    assert platform.call(ada, "POST", f"{ALL}/2/stop").status_code == 403
    platform.act(ben, "m261", 2, "stop")
    platform.act(ada, "m261", 2, "start")
    assert owner(2) == "ben"
    platform.act(ben, "m261", 2, "delete")


def test_with_a_rollback_the_version_is_its_first_owners_again(
    platform: PlatformRig, ann: str
) -> None:
    ada, ben = platform.user("ada"), platform.user("ben")
    for name in ("ada", "ben"):
        platform.share("ann", name, "modify")
    platform.deploy(ada, "m261", 1)
    platform.deploy(ben, "m261", 2, mode="replace", replaces=1)
    platform.act(ben, "m261", 2, "rollback")
    assert platform.call(ben, "DELETE", f"{ALL}/1").status_code == 403
    platform.act(ada, "m261", 1, "delete")


def test_who_takes_up_anothers_deployment_owns_it_only_by_managing_the_group(
    platform: PlatformRig, ann: str
) -> None:
    ada, ben = platform.user("ada"), platform.user("ben")
    for name in ("ada", "ben"):
        platform.share("ann", name, "modify")
    platform.deploy(ada, "m261", 1)
    for taker, owner in ((ben, "ada"), (ada, "ada"), (ann, "ann"), (ada, "ann")):
        platform.act(ann, "m261", 1, "stop")
        assert platform.deploy(taker, "m261", 1)["deployment"]["deployed_by"] == owner
        assert platform.deployment(ann, "m261", 1)["deployed_by"] == owner


def test_a_version_that_failed_or_is_offline_is_deployed_anew_with_other_values(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, replicas=9)
    assert platform.deployment(ann, "m261", 1)["status"] == "Failed"
    platform.deploy(ann, "m261", 1, replicas=2)
    record = platform.deployment(ann, "m261", 1)
    assert (record["id"], record["status"], record["ready"]) == (1, "Serving", 2)
    platform.act(ann, "m261", 1, "stop")
    platform.deploy(ann, "m261", 1, options={"depth": 8}, keep_warm_s=5)
    record = platform.deployment(ann, "m261", 1)
    assert (record["id"], record["replicas"], record["options"]) == (1, 1, {"depth": 8})


def test_with_its_service_everything_of_it_ends(platform: PlatformRig, ann: str) -> None:
    platform.deploy(ann, "m261", 1)
    platform.deploy(ann, "m261", 2)
    platform.do(lambda tx: tx.execute(delete(Service)) and None)
    platform.run(platform.reconcilers.refresh("m261"))
    platform.settle()
    assert platform.node.engine.workers() == []
    assert platform.node.deployments() == []
    assert platform.node.engine.routing.services == ()


def test_a_worker_that_is_lost_for_good_shows_as_failed(platform: PlatformRig, ann: str) -> None:
    platform.deploy(ann, "m261", 1)

    async def lose() -> None:
        platform.node.engine.kill(platform.node.engine.workers()[0])
        platform.node.engine.hang(platform.node.engine.workers()[0])
        platform.node.engine.acknowledge()

    platform.run(lose())
    platform.settle()
    record = platform.deployment(ann, "m261", 1)
    assert (record["status"], record["reason"]) == ("Failed", "0 of 1 workers ready")
    listed = platform.call(ann, "GET", "/services").json()["items"]
    assert listed[0]["status"] == "Failed"


def test_what_is_in_use_is_told_as_it_was_asked_for(platform: PlatformRig, ann: str) -> None:
    root = platform.user("root", admin=True)
    slim = {"name": "slim", "cpu": 0.4}
    assert platform.call(root, "POST", "/instance-types", slim).status_code == 201
    platform.deploy(ann, "m261", 1, instance_type="slim", replicas=3)
    node = platform.call(ann, "GET", "/node").json()
    assert node["in_use"]["cpu"] == node["groups"][0]["in_use"]["cpu"] == 1.2


def test_a_scale_is_measured_by_what_is_on_its_way(platform: PlatformRig, ann: str) -> None:
    root = platform.user("root", admin=True)
    twice = {"name": "twice", "cpu": 2, "memory": 0, "gpu": 0}
    assert platform.call(root, "POST", "/instance-types", twice).status_code == 201
    assert platform.call(root, "PUT", "/groups/ann/quota", {"cpu": 4}).status_code == 200
    platform.deploy(ann, "m261", 1)
    body = {"version": 2, "mode": "replace", "replaces": 1, "instance_type": "twice"}
    assert platform.call(ann, "POST", ALL, body).status_code == 202
    answer = platform.call(ann, "POST", f"{ALL}/1/scale", {"replicas": 3})
    assert (answer.status_code, "cpu: 6 asked for" in answer.text) == (409, True), answer.text
    assert platform.call(ann, "POST", f"{ALL}/1/scale", {"replicas": 2}).status_code == 202
    platform.settle()
    assert platform.deployment(ann, "m261", 2)["replicas"] == 2


def test_a_version_deployed_anew_is_sent_no_copies_unasked(platform: PlatformRig, ann: str) -> None:
    for version in (1, 2):
        platform.deploy(ann, "m261", version)
    traffic = "/services/m261/traffic"
    assert platform.call(ann, "PUT", traffic, {"shadow": {"2": 0.5}}).status_code == 200
    platform.act(ann, "m261", 2, "stop")
    platform.deploy(ann, "m261", 2)
    assert platform.deployment(ann, "m261", 2)["shadow"] == 0


def test_a_start_that_exceeds_a_quota_says_so_and_not_why_it_was_offline(
    platform: PlatformRig, ann: str
) -> None:
    platform.deploy(ann, "m261", 1, replicas=5)
    platform.act(ann, "m261", 1, "stop")
    platform.deploy(ann, "m261", 2, replicas=5)
    platform.act(ann, "m261", 1, "start")
    record = platform.deployment(ann, "m261", 1)
    assert (record["status"], record["state"]) == ("Failed", "failed")
    assert "5 asked for + 5 in use = 10" in record["reason"]
    assert platform.rows()[1] == (1, "online", "failed")
