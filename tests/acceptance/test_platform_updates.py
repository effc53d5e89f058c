"""What is online is changed while it is asked, and no request is lost.

On a started platform, from outside; each test has a service of its own. An open-loop client sends
on schedule; any answer but a 200 counts as lost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from modelcloud.errors import Conflict
from support.load import Sample, failures, load, mixed, steady
from support.served import Served, Shop, shop
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

RATE = 80.0
REPLICAS = 2

#: Fails or is slow as it is told to, but never when it is warmed up.
ON_TRIAL = """
import random, time
import modelcloud
from modelcloud.data_types import number

@modelcloud.setup(options={
    "answer": number(default=1), "errors": number(default=0), "slow_s": number(default=0),
})
def setup(options):
    return options

@modelcloud.command("ask", inputs={"x": number(default=0)}, outputs={"answer": number})
def ask(model, inputs):
    if inputs["x"]:
        time.sleep(model["slow_s"])
        if random.random() < model["errors"]:
            raise ValueError("on trial")
    return {"answer": model["answer"]}
"""


@pytest.fixture(scope="module")
def rented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("updates"), "--drain", "5") as running:
        yield running


@pytest.fixture
def served(rented: Shop) -> Iterator[Served]:
    """A service of the obedient model, gone after the test."""
    service = rented.service()
    yield service
    service.admin.undeploy(service.name)


@pytest.fixture
def trial(rented: Shop) -> Iterator[Served]:
    """Version 1 of a model that is well, gone after the test."""
    service = rented.service(ON_TRIAL)
    service.deploy(service.answering(1), replicas=REPLICAS)
    yield service
    service.admin.undeploy(service.name)


def after(samples: list[Sample], since: float) -> set[tuple[int, int]]:
    """Versions and generations that answered what was sent since then."""
    return {(s.version, s.generation) for s in samples if s.sent > since}


# ---- replace


@pytest.mark.parametrize("strategy", ["blue_green", "rolling", "recreate"])
@pytest.mark.parametrize("place", ["ask", "1/ask"])
def test_a_version_takes_the_place_of_another_and_of_its_address_without_a_loss(
    served: Served, strategy: str, place: str
) -> None:
    served.online(replicas=REPLICAS)
    second = served.answering(2, options={"load_s": 1})
    with load(served.up.port, f"/{served.name}/{place}", rate=RATE) as running:
        steady(running)
        served.deploy(second, replaces=1, strategy=strategy)
        switched = time.monotonic()
        steady(running)
    assert failures(running.samples) == []
    assert after(running.samples, switched) == {(2, 2)}
    assert {s.answer for s in running.samples} == {1, 2}
    if strategy != "rolling":
        assert mixed(running.samples) == [], "the version went back"
    for word in ("", 1, 2):
        answer = served.predict(word)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "2")
    assert [d["answers"] for d in served.admin.deployments(served.name)] == [[1, 2]]


def test_a_version_that_was_replaced_has_its_address_back_when_it_is_deployed_anew(
    served: Served,
) -> None:
    served.online()
    served.deploy(served.answering(2), replaces=1)
    with load(served.up.port, f"/{served.name}/1/ask", rate=RATE) as running:
        steady(running)
        served.deploy(1)
        back = time.monotonic()
        steady(running)
    assert failures(running.samples) == []
    settled = [s for s in running.samples if s.sent > back + 0.5]
    assert {s.version for s in settled} == {1}
    assert {s.version for s in running.samples} == {1, 2}
    assert served.predict(2).headers["x-model-version"] == "2"


@pytest.mark.parametrize("strategy", ["blue_green", "rolling", "recreate"])
def test_what_takes_the_place_brings_its_replicas_policy_and_warm_time(
    served: Served, strategy: str
) -> None:
    served.online()
    with load(served.up.port, f"/{served.name}/ask", rate=RATE) as running:
        for number, replicas in ((2, 3), (3, 1)):
            served.deploy(
                served.answering(number), replaces=number - 1, strategy=strategy,
                replicas=replicas, dispatch="round_robin", keep_warm_s=0,
            )  # fmt: skip
            workers = served.pids(number)
            assert len(workers) == replicas
            asked = [served.ask().json()["pid"] for _ in range(3 * replicas)]
            if strategy != "rolling":  # it takes effect once the last one is replaced
                assert {*asked} == workers
            wait_for("the others to end", lambda n=number, r=replicas:  # type: ignore[misc]
                     len(served.deployment(n)["workers"]) == r)  # fmt: skip
            record = served.deployment(number)
            assert (record["replicas"], record["keep_warm_s"]) == (replicas, 0)
            assert record["dispatch"] == {"policy": "round_robin", "key": ""}
    assert failures(running.samples) == []


# ---- canary


def test_a_canary_that_is_well_takes_the_share_of_each_step_and_then_all(trial: Served) -> None:
    steps = [{"percent": 20, "watch_s": 3}, {"percent": 60, "watch_s": 3}]
    with load(trial.up.port, f"/predict/{trial.name}", rate=RATE) as running:
        steady(running)
        trial.deploy(trial.answering(2), replaces=1, strategy={"name": "canary", "steps": steps})
        switched = time.monotonic()
        steady(running)
    assert failures(running.samples) == []
    assert after(running.samples, switched) == {(2, 2)}
    lines = trial.admin.logs(trial.name, lines=500)["lines"]
    for number, step in enumerate(steps, 1):
        (said,) = (ln for ln in lines if f"step {number} of 2: {step['percent']} %" in ln["text"])
        began = monotonic_of(said["at"])
        during = [s for s in running.samples if began + 0.5 < s.sent < began + 2.8]
        share = sum(s.version == 2 for s in during) / len(during)
        assert abs(share - step["percent"] / 100) < 0.2, (step, len(during), share)
    assert any("20 %: " in ln["text"] and "0.0% errors" in ln["text"] for ln in lines)


def monotonic_of(at: str) -> float:
    """A time of a log, on the clock of samples."""
    moment = datetime.fromisoformat(at.replace("Z", "+00:00"))  # which Python 3.10 does not read
    return moment.timestamp() - time.time() + time.monotonic()


@pytest.mark.parametrize(
    ("options", "limits", "words"),
    [
        ({"errors": 0.8}, {"max_error_rate": 0.2}, "answers were errors (the limit is 20.0%)"),
        ({"slow_s": 0.15}, {"max_p99_ms": 75}, "ms (the limit is 75 ms)"),
    ],
    ids=["errors", "slow"],
)
def test_a_canary_that_breaks_a_limit_goes_back_by_itself(
    trial: Served, options: dict[str, Any], limits: dict[str, Any], words: str
) -> None:
    workers = trial.pids(1)
    strategy = {"name": "canary", "steps": [{"percent": 15, "watch_s": 60}], "min_requests": 10,
                **limits}  # fmt: skip
    candidate = trial.answering(2, options=options)
    with load(trial.up.port, f"/predict/{trial.name}", rate=40.0) as running:
        steady(running)
        since = time.monotonic()
        begun = trial.begin(candidate, replaces=1, strategy=strategy)
        rollout = begun["rollout"]
        while rollout["finished_at"] is None:
            rollout = trial.admin.rollout(rollout["id"])
            record = trial.deployment(1)
            serving = {w["pid"] for w in record["workers"] if w["state"] == "serving"}
            assert workers <= serving, "the old version was not at full strength"
        ended = time.monotonic()
        steady(running)
    assert rollout["state"] == "failed"
    assert "at 15 % of the requests, " in rollout["reason"]
    assert words in rollout["reason"]
    assert any(words in line for line in trial.log())
    meanwhile = [s for s in running.samples if since < s.sent < ended]
    by_candidate = [s for s in meanwhile if s.error or s.version == 2]
    assert 0 < len(by_candidate) < 0.4 * len(meanwhile)
    assert {*failures(running.samples)} <= {*by_candidate}
    assert bool(failures(running.samples)) is ("errors" in options)
    assert {(s.error, s.version) for s in running.samples if s.sent > ended} == {("", 1)}
    assert trial.deployment(1)["current"] == {"generation": 1, "revision": 0, "version": 1}


# ---- options


def modelcloud(served: Served, *arguments: object) -> str:
    """What the command line says."""
    admin = served.admin
    done = subprocess.run(
        [sys.executable, "-m", "modelcloud.cli.main", *map(str, arguments)],
        env={**os.environ, "MODELCLOUD_URL": admin.url, "MODELCLOUD_TOKEN": admin.token or "",
             "NO_COLOR": "1"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_options_are_updated_by_every_way_there_is(served: Served) -> None:
    served.online(replicas=REPLICAS)
    setup = f"{served.up.url}/{served.name}/setup"
    with load(served.up.port, f"/{served.name}/ask", rate=RATE) as running:
        steady(running)

        served.done(served.admin.update(served.name, 1, {"answer": 11}))
        assert served.ask().json()["answer"] == 11
        assert served.admin.update(served.name, 1, {"answer": 11})["changed"] is False

        modelcloud(served, "update", served.name, 1, "-o", "answer=12")
        assert served.ask().json()["answer"] == 12

        for headers, status in (({}, 401), ({"authorization": "Bearer nonsense"}, 401)):
            refused = served.up.client.post(setup, json={"answer": 13}, headers=headers)
            assert refused.status_code == status
        token = served.admin.create_token("ci", level="modify", group="admin")["token"]
        headers = {"authorization": f"Bearer {token}"}
        answer = served.up.client.post(setup, json={"answer": 13}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["success"] is True
        assert served.ask().json()["answer"] == 13
        steady(running)
    assert failures(running.samples) == []
    assert mixed(running.samples) == []
    options = {o["name"]: o["value"] for o in served.up.client.get(setup).json()["options"]}
    assert options["answer"] == 13
    assert served.deployment(1)["options"] == {"answer": 13}
    reader = served.admin.create_token("eye", level="read", group="admin")["token"]
    refused = served.up.client.post(setup, json={}, headers={"authorization": f"Bearer {reader}"})
    assert refused.status_code == 403


def test_an_update_that_fails_leaves_what_serves(served: Served) -> None:
    served.online(replicas=REPLICAS)
    workers = served.pids(1)
    with load(served.up.port, f"/{served.name}/ask", rate=RATE) as running:
        steady(running)
        begun = served.admin.update(served.name, 1, {"answer": 2, "fail": "raise"})
        ended = served.done(begun, "failed")
        steady(running)
    assert "there are no weights" in ended["reason"]
    assert any("there are no weights" in line for line in served.log())
    assert failures(running.samples) == []
    assert {s.answer for s in running.samples} == {1}
    record = served.deployment(1)
    assert (record["status"], record["options"]) == ("Serving", {})
    assert served.pids(1) == workers


# ---- back


def test_a_rollback_to_what_is_warm_is_one_switch_and_starts_nothing(served: Served) -> None:
    served.online(replicas=REPLICAS)
    workers = served.pids(1)
    served.deploy(served.answering(2), replaces=1)
    newer = served.pids(2)
    with load(served.up.port, f"/{served.name}/ask", rate=RATE) as running:
        steady(running)
        ended = served.done(served.admin.rollback(served.name, 2))
        switched = time.monotonic()
        steady(running)
    assert failures(running.samples) == []
    assert after(running.samples, switched) == {(1, 1)}
    assert ended["kind"] == "rollback"
    assert ended["to"] == {"generation": 1, "version": 1, "revision": 0}
    assert served.pids(1) == workers, "it was started anew"
    known = {worker["pid"] for worker in served.deployment(1)["workers"]}
    assert known <= workers | newer


def test_a_rollback_to_what_is_gone_starts_it_anew(served: Served) -> None:
    served.online(replicas=REPLICAS, keep_warm_s=0)
    workers = served.pids(1)
    served.deploy(served.answering(2), replaces=1)
    wait_for("the old ones to end", lambda: len(served.deployment(2)["workers"]) == REPLICAS)
    with load(served.up.port, f"/{served.name}/ask", rate=RATE) as running:
        steady(running)
        served.done(served.admin.rollback(served.name, 2))
        switched = time.monotonic()
        steady(running)
    assert failures(running.samples) == []
    assert after(running.samples, switched) == {(1, 3)}
    assert not served.pids(1) & workers


# ---- more, fewer, none


def test_replicas_come_and_go_under_load(served: Served) -> None:
    served.online(dispatch="round_robin")
    with load(served.up.port, f"/{served.name}/ask", rate=RATE) as running:
        for replicas in (3, 1, 2):
            steady(running)
            served.admin.scale(served.name, 1, replicas)
            wait_for("so many", lambda r=replicas: len(ready(served)) == r)  # type: ignore[misc]
            asked = {served.ask().json()["pid"] for _ in range(3 * replicas)}
            assert asked == ready(served)
        steady(running)
    assert failures(running.samples) == []
    assert {s.generation for s in running.samples} == {1}, "scaling is no update"
    assert len(served.admin.rollouts(service=served.name)) == 1


def ready(served: Served) -> set[int]:
    """Processes of version 1, once none is on its way in or out."""
    workers = served.deployment(1)["workers"]
    settled = all(worker["state"] == "serving" for worker in workers)
    return {worker["pid"] for worker in workers} if settled else set()


def test_what_is_stopped_answers_nothing_until_it_is_started_with_what_it_had(
    served: Served,
) -> None:
    served.online()
    served.done(served.admin.update(served.name, 1, {"answer": 7}))
    served.admin.stop(served.name, 1)
    wait_for("it to be offline", lambda: served.deployment(1)["state"] == "stopped")
    record = served.deployment(1)
    assert (record["status"], record["workers"], record["reason"]) == (
        "Offline", [], "stopped by admin",
    )  # fmt: skip
    assert served.predict(1).status_code == 404
    served.done(served.admin.start(served.name, 1))
    assert served.predict(1).json()["data"]["answer"] == 7
    with pytest.raises(Conflict, match="is online; redeploy renews it"):
        served.admin.start(served.name, 1)


def test_what_is_redeployed_is_renewed_under_load(served: Served) -> None:
    served.online(replicas=REPLICAS)
    before = served.pids(1)
    with load(served.up.port, f"/{served.name}/ask", rate=RATE) as running:
        steady(running)
        served.done(served.admin.redeploy(served.name, 1))
        switched = time.monotonic()
        steady(running)
    assert failures(running.samples) == []
    assert after(running.samples, switched) == {(1, 2)}
    assert not before & served.pids(1)


# ---- how many, and which


def test_six_versions_are_online_at_most_and_a_seventh_is_refused_in_words(
    served: Served,
) -> None:
    served.online(versions=6)
    assert [served.predict(n).json()["data"]["answer"] for n in range(1, 7)] == [*range(1, 7)]
    seventh = served.answering(7)
    with pytest.raises(Conflict, match=r"6 versions of .* are online \(1, 2, 3, 4, 5, 6\)"):
        served.begin(seventh)
    served.deploy(seventh, replaces=3)
    assert served.predict(3).json()["data"]["answer"] == 7
    served.admin.undeploy(served.name, 6)
    wait_for("it to be gone", lambda: served.predict(6).status_code == 404)
    served.deploy(3)
    assert served.predict(3).json()["data"]["answer"] == 3


def test_what_is_disabled_or_online_already_is_not_deployed(served: Served) -> None:
    served.online()
    off = served.answering(2, enabled=False)
    with pytest.raises(Conflict, match="is disabled; enable it first"):
        served.begin(off)
    with pytest.raises(Conflict, match="is disabled; enable it first"):
        served.begin(off, replaces=1)
    with pytest.raises(Conflict, match="online already"):
        served.begin(1)
    served.admin.edit_version(served.name, off, enabled=True)
    served.deploy(off)
    with pytest.raises(Conflict, match=r"version 3 .* does not serve.* serving: 1, 2"):
        served.begin(1, replaces=3)
