"""Which version answers which request: weights, keys, labels, numbers, copies, and which worker.

On a started platform, from outside; each test has a service of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from support.load import failures, load, stalls
from support.markdown import ROOT
from support.served import Served, Shop, shop
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

EXAMPLES = ROOT / "examples"
#: Requests that may wait for a worker of one version.
QUEUE = 100
#: Longer than any answer that nothing holds up.
HELD_UP_S = 1.0

#: The example of the third seed: what is sent, and the form of what comes back.
SEED_REQUEST = (
    '{"type":"libsvm","feature_num":"524","data":{"insts":"0 1:0 2:1.0 3:565 4:9 5:6 6:47200.0 '
    '7:15 8:0.48 9:1959200.0 10:-65535.0 11:0.0 12:0.6447333333333334 524:-65535.0"}}'
)


@pytest.fixture(scope="module")
def rented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("routing")
    arguments = ("--root", EXAMPLES, "--gateways", "2", "--max-queue", str(QUEUE), "--drain", "1")
    with shop(folder, *arguments) as running:
        yield running


@pytest.fixture
def served(rented: Shop) -> Iterator[Served]:
    """A service of the obedient model, gone after the test."""
    service = rented.service()
    yield service
    service.admin.undeploy(service.name)


def answered_by(answer: httpx.Response) -> int:
    """The version that gave it."""
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-model-version"])


# ---- weights


@pytest.mark.parametrize("way", ["predict", "ask"])
def test_requests_fall_to_versions_by_weight_and_to_none_with_weight_0(
    served: Served, way: str
) -> None:
    served.online(versions=3)
    served.admin.set_traffic(served.name, weights={"1": 1, "2": 3, "3": 0})
    asked = 800
    seen = Counter(answered_by(getattr(served, way)()) for _ in range(asked))
    # Five standard deviations of a binomial distribution around a quarter.
    assert abs(seen[1] - asked / 4) < 5 * (asked * 3 / 16) ** 0.5, seen
    assert seen.keys() == {1, 2}
    assert answered_by(getattr(served, way)(3)) == 3, "it is asked for by its number all the same"


def test_a_new_version_beside_others_gets_no_request_unasked(served: Served) -> None:
    served.online(versions=2)
    assert {answered_by(served.predict()) for _ in range(50)} == {1}


@pytest.mark.parametrize("way", ["stop", "undeploy"])
def test_the_requests_of_a_version_that_leaves_go_to_the_others(served: Served, way: str) -> None:
    served.online(versions=2)
    served.admin.set_traffic(served.name, weights={"1": 1, "2": 1})
    with load(served.up.port, f"/predict/{served.name}", rate=100.0) as running:
        wait_for("both to answer", lambda: len({s.version for s in running.samples}) == 2)
        getattr(served.admin, way)(served.name, 1)
        left = time.monotonic()
        wait_for("some answers", lambda: sum(s.sent > left for s in running.samples) > 100)
    assert failures(running.samples) == []
    assert {sample.version for sample in running.samples if sample.sent > left} == {2}
    assert served.predict(1).status_code == 404


Sent = Callable[[Served, str], httpx.Response]
STICKY: dict[str, tuple[dict[str, str], Sent]] = {
    "header": (
        {"kind": "header", "name": "X-Client"},
        lambda served, key: served.predict(**{"x-client": key}),
    ),
    "cookie": (
        {"kind": "cookie", "name": "client"},
        lambda served, key: served.predict(cookie=f"theme=dark; client={key}"),
    ),
    "body": (
        {"kind": "body", "name": "client"},
        lambda served, key: served.predict("", {"x": 1, "client": key}),
    ),
}

#: Takes any field, so that a client may name itself in the body.
LENIENT = """
import os
import modelcloud
from modelcloud.data_types import number, text

@modelcloud.command(
    "ask", inputs={"x": number(default=0), "client": text(default="")}, outputs={"pid": number}
)
def ask(model, inputs):
    return {"pid": os.getpid()}
"""


def test_a_key_keeps_a_client_at_one_version_and_a_third_one_takes_only_its_share(
    rented: Shop,
) -> None:
    served = rented.service(LENIENT)
    for _ in range(2):
        served.deploy(served.register())
    third = served.register()
    keys = [f"client-{n}" for n in range(150)]
    for sticky, send in STICKY.values():
        served.admin.set_traffic(served.name, sticky=sticky, weights={"1": 1, "2": 1})
        before = {key: answered_by(send(served, key)) for key in keys}
        assert {*before.values()} == {1, 2}
        again = {key: answered_by(send(served, key)) for key in random.sample(keys, len(keys))}
        assert again == before
        if third not in {d["version"] for d in served.admin.deployments(served.name)}:
            served.deploy(third)
        assert {key: answered_by(send(served, key)) for key in keys} == before
        served.admin.set_traffic(served.name, weights={"3": 1})
        after = {key: answered_by(send(served, key)) for key in keys}
        moved = {key for key in keys if after[key] != before[key]}
        assert {after[key] for key in moved} == {third}
        third_of = len(keys) / 3
        assert abs(len(moved) - third_of) < 5 * (third_of * 2 / 3) ** 0.5
        served.admin.set_traffic(served.name, weights={"3": 0})
    served.admin.undeploy(served.name)


# ---- addresses


def test_a_version_is_reached_by_each_of_its_addresses(served: Served) -> None:
    served.online(versions=2)
    served.admin.set_traffic(
        served.name, weights={"1": 1, "2": 0}, labels={"stable": 1, "canary": 2}
    )
    for word, version in {"": 1, 1: 1, 2: 2, "stable": 1, "canary": 2}.items():
        for answer in (served.predict(word), served.ask(word)):
            assert answered_by(answer) == version
        assert served.predict(word).json()["data"]["answer"] == version
        assert served.ask(word).json()["answer"] == version
    for wrong in (served.ask(3), served.ask("beta"), served.ask(command="nothing")):
        assert wrong.status_code == 404
        assert "nothing at" in wrong.json()["error"]


def test_a_label_is_moved_under_load_and_is_nowhere_else_once_that_is_answered(
    served: Served,
) -> None:
    served.online(versions=2)
    moves: list[tuple[float, float, int]] = []  # asked for, answered, to which version
    served.admin.set_traffic(served.name, labels={"stable": 1})
    with load(served.up.port, f"/{served.name}/stable/ask", rate=200.0) as running:
        for n in range(10):
            enough = len(running.samples) + 40
            wait_for("some answers", lambda e=enough: len(running.samples) >= e)  # type: ignore[misc]
            asked, to = time.monotonic(), 2 - n % 2
            served.admin.set_traffic(served.name, labels={"stable": to})
            moves.append((asked, time.monotonic(), to))
            assert answered_by(served.ask("stable")) == to
    assert failures(running.samples) == []
    for (_, since, to), (until, _, _) in pairwise(moves):
        between = [s for s in running.samples if since < s.sent and s.done < until]
        assert {sample.version for sample in between} == {to}


def test_a_label_and_a_weight_that_a_deployment_brings_hold_once_its_rollout_has_ended(
    served: Served,
) -> None:
    served.online()
    for number in range(2, 7):
        served.deploy(served.answering(number), label="latest", weight=10.0**number)
        assert answered_by(served.ask("latest")) == number
    seen = Counter(answered_by(served.predict()) for _ in range(50))
    assert seen[6] > 30
    for number in range(7, 10):
        served.deploy(served.answering(number), replaces=number - 1, label=f"v{number}")
        assert answered_by(served.predict(f"v{number}")) == number


def test_a_token_opens_predictions_from_when_it_is_shown_until_it_is_revoked(
    served: Served,
) -> None:
    served.online()
    admin = served.admin
    admin.edit_group("admin", public_predictions=False)
    try:
        assert served.predict().status_code == 401
        assert served.predict().json()["code"] == 401
        for _ in range(10):
            made = admin.create_token("client", level="read", group="admin")
            bearer = {"authorization": f"Bearer {made['token']}"}
            assert served.predict(**bearer).status_code == 200
            admin.revoke_token(made["id"])
            assert served.predict(**bearer).status_code == 401
    finally:
        admin.edit_group("admin", public_predictions=True)
    assert served.predict().status_code == 200


# ---- the wrapped form

FAILING = """
import time
from modelcloud.errors import InvalidInput

class InferenceService:
    def __init__(self, model_path):
        pass

    def process_request(self, request):
        if request.get("wait"):
            time.sleep(request["wait"])
        if request.get("wrong"):
            raise InvalidInput("data.insts", "nothing", "rows")
        if request.get("fail"):
            raise ValueError("the weights are in /secret")
        return {"insts": [0.5]}
"""


def test_answers_are_wrapped_as_in_the_third_seed(rented: Shop) -> None:
    served = rented.service()
    served.deploy(served.register(path=str(EXAMPLES / "m261")))
    headers = {"content-type": "application/json"}
    place = f"{served.up.url}/predict/{served.name}/1"
    answer = served.up.client.post(place, content=SEED_REQUEST, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.startswith('{"message": "SUCCESS", "code": 0, "data": {"insts":')
    assert [*answer.json()] == ["message", "code", "data"]
    (score,) = answer.json()["data"]["insts"]
    assert 0 < score < 1
    wrong = json.loads(SEED_REQUEST) | {"feature_num": "523"}
    refused = served.predict(1, wrong)
    assert refused.status_code == 400
    assert (refused.json()["code"], refused.json()["data"]) == (400, None)
    assert "feature_num: got '523'; accepted: 524" in refused.json()["message"]
    served.admin.undeploy(served.name)


def test_what_goes_wrong_is_wrapped_too_with_a_code_and_a_message(rented: Shop) -> None:
    served = rented.service(FAILING)
    served.deploy(served.register())

    def refused(answer: httpx.Response, status: int) -> str:
        assert answer.status_code == status
        body = answer.json()
        assert (body["code"], body["data"]) == (status, None)
        assert "secret" not in answer.text
        return str(body["message"])

    assert refused(served.predict(1, {"wrong": True}), 400) == (
        "data.insts: got nothing; accepted: rows"
    )
    failed = served.predict(1, {"fail": True})
    assert "raised an exception" in refused(failed, 500)
    assert failed.json()["id"] in " ".join(served.log(1)), "the log has it under that id"
    assert f"/predict/{served.name}/2" in refused(served.predict(2), 404)
    broken = served.up.client.post(f"{served.up.url}/predict/{served.name}", content=b"{")
    assert refused(broken, 400)
    assert refused(served.up.client.put(f"{served.up.url}/predict/{served.name}"), 405)
    statuses = asyncio.run(_at_once(served, {"wait": 0.5}, 3 * QUEUE))
    full = [answer for answer in statuses if answer.status_code != 200]
    assert 0 < len(full) < len(statuses)
    for answer in full:
        assert "waiting" in refused(answer, 503) or "full" in answer.text
        assert int(answer.headers["retry-after"]) > 0
    served.admin.undeploy(served.name)


async def _at_once(served: Served, body: object, number: int) -> list[httpx.Response]:
    """The answers to so many requests that are all under way together."""
    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(timeout=httpx.Timeout(3.0), limits=limits) as client:

        async def one() -> httpx.Response | None:
            try:
                return await client.post(f"{served.up.url}/predict/{served.name}", json=body)
            except httpx.TimeoutException:  # it waits its turn, and that is enough to know
                return None

        found = await asyncio.gather(*(one() for _ in range(number)))
    return [answer for answer in found if answer is not None]


@pytest.mark.parametrize(
    ("example", "main", "runtime", "inputs", "command"),
    [
        ("fib", "", "decorated", {"n": 10}, "fib"),
        ("pisqrt", "server.py:pisqrt", "function", {"a": 4}, "pisqrt"),
        ("inference_service", "", "inference_service",
         {"type": "libsvm", "data": {"insts": "0 1:0.5"}}, "predict"),
        ("algopkg/AlgoExample", "", "algo_backend", {"scores": [0.2, 0.9]}, "predict"),
    ],
)  # fmt: skip
def test_every_way_of_writing_a_model_is_asked_at_the_same_addresses(
    rented: Shop, example: str, main: str, runtime: str, inputs: dict[str, Any], command: str
) -> None:
    served = rented.service()
    options = {"model": "big"} if example == "fib" else {}
    version = served.register(path=str(EXAMPLES / example), main=main, options=options)
    assert served.admin.version(served.name, version)["runtime"] == runtime
    served.deploy(version)
    plain = served.ask(command=command, body=inputs)
    assert plain.status_code == 200, plain.text
    for word in ("", version):
        wrapped = served.predict(word, inputs)
        assert wrapped.json() == {"message": "SUCCESS", "code": 0, "data": plain.json()}
    served.admin.undeploy(served.name)


# ---- shadows

#: Answers as it is told to, or not at all once it is asked for more than the warm-up does.
TRIAL = """
import os, time
import modelcloud
from modelcloud.data_types import number, text

@modelcloud.setup(options={"answer": number(default=1), "fail": text(default="")})
def setup(options):
    return options

@modelcloud.command("ask", inputs={"x": number(default=0)}, outputs={"answer": number})
def ask(model, inputs):
    if inputs["x"] and model["fail"] == "raise":
        raise ValueError("on trial")
    if inputs["x"] and model["fail"] == "hang":
        time.sleep(3600)
    return {"answer": model["answer"]}
"""


def test_copies_of_requests_are_compared_in_the_metrics_of_the_version_on_trial(
    rented: Shop,
) -> None:
    served = rented.service(TRIAL)
    for answer in (1, 1, 2):  # version 2 answers as version 1 does, version 3 otherwise
        served.deploy(served.answering(answer))
    served.admin.set_traffic(served.name, shadow={"2": 1.0, "3": 0.5})
    asked = 200
    for _ in range(asked):
        assert answered_by(served.predict()) == 1

    def complete(metrics: dict[str, Any]) -> bool:
        compared: int = metrics["shadow_same"] + metrics["shadow_different"]
        return bool(0 < compared == metrics["shadowed"])

    same = served.metrics_once(2, lambda m: complete(m) and m["shadowed"] >= 0.9 * asked)
    assert (same["shadow_same"], same["shadow_different"]) == (same["shadowed"], 0)
    other = served.metrics_once(3, complete)
    assert abs(other["shadowed"] - asked / 2) < 5 * (asked / 4) ** 0.5
    assert (other["shadow_same"], other["shadow_different"]) == (0, other["shadowed"])
    plain = served.metrics_once(1, lambda m: m["requests"] >= asked)
    assert (plain["requests"], plain["shadowed"]) == (asked, 0)
    served.admin.undeploy(served.name)


@pytest.mark.parametrize("fail", ["raise", "hang"])
def test_a_version_on_trial_that_fails_touches_no_client(rented: Shop, fail: str) -> None:
    served = rented.service(TRIAL)
    served.deploy(served.answering(1))
    trial = served.answering(2, options={"fail": fail})
    served.deploy(trial)
    with load(served.up.port, f"/predict/{served.name}", rate=100.0) as running:
        wait_for("steady traffic", lambda: len(running.samples) >= 200)
        since = time.monotonic()
        served.admin.set_traffic(served.name, shadow={str(trial): 1.0})
        wait_for("traffic with copies", lambda: len(running.samples) >= 700)
    assert failures(running.samples) == []
    assert {sample.version for sample in running.samples} == {1}
    late = stalls(running.samples, lambda sample: sample.sent > since, HELD_UP_S)
    assert late == []
    if fail == "raise":
        seen = served.metrics_once(trial, lambda m: m["shadowed"] > 0)
        assert seen["shadow_different"] > 0
        assert (seen["requests"], seen["errors"], seen["shadow_same"]) == (0, 0, 0)
    assert served.metrics(1)["errors"] == 0
    served.admin.undeploy(served.name)


# ---- which worker

BY_HEADER = {"policy": "consistent_hash", "key": "header:X-Client"}


def test_each_dispatch_policy_chooses_workers_in_its_way(served: Served) -> None:
    for number, dispatch in enumerate(("round_robin", "random", BY_HEADER), 1):
        served.deploy(served.answering(number), replicas=3, dispatch=dispatch)

    def chosen(version: int, requests: int, **headers: str) -> list[int]:
        """The process that answered each of some requests, one after the other."""
        asked = (served.ask(version, **headers) for _ in range(requests))
        return [int(answer.json()["pid"]) for answer in asked]

    in_turn = chosen(1, 30)
    assert {*in_turn} == served.pids(1)
    assert all(pid == in_turn[n % 3] for n, pid in enumerate(in_turn)), "not in turn"

    by_chance = chosen(2, 90)
    counted = Counter(by_chance)
    assert counted.keys() == served.pids(2)
    assert min(counted.values()) > 30 - 5 * (90 * 2 / 9) ** 0.5
    assert any(pid != by_chance[n % 3] for n, pid in enumerate(by_chance)), "in turn"

    of_keys = {key: {*chosen(3, 3, **{"x-client": key})} for key in map(str, range(40))}
    assert all(len(pids) == 1 for pids in of_keys.values()), "a key went to two workers"
    assert set.union(*of_keys.values()) == served.pids(3)


def test_the_least_loaded_worker_is_asked_while_another_is_busy(served: Served) -> None:
    served.deploy(served.answering(1), replicas=2)
    with load(served.up.port, f"/{served.name}/sleep", {"s": 0.5}, rate=1.5) as busy:
        wait_for("long calls", lambda: len(busy.samples) >= 1)
        took = []
        while len(busy.samples) < 5:
            began = time.monotonic()
            assert answered_by(served.ask()) == 1
            took.append(time.monotonic() - began)
    assert sorted(took)[len(took) * 9 // 10] < 0.25, "requests waited behind a long call"
    assert failures(busy.samples) == []
