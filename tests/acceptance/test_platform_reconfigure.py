"""Options that a model takes while it serves, and the route by which it is asked, under load.

On a started platform, from outside.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from support.load import failures, load, steady
from support.served import Served, Shop, shop
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

#: Answers what it was configured with, and refuses what it is told to refuse.
CONFIGURED = """
import os

class Scaler:
    def __init__(self, model_path):
        self.scale = 1
        self._model_init()

    def _model_init(self):
        pass

    def reconfigure(self, config):
        self.scale = config["scale"]
        if self.scale == 666 or os.getpid() == config.get("not_in"):
            raise ValueError("no such scale")

    def _model_inference(self, param_dict):
        return {"scaled": param_dict.get("x", 0) * self.scale}
"""


@pytest.fixture(scope="module")
def rented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("reconfigure"), "--drain", "5") as running:
        yield running


@pytest.fixture
def served(rented: Shop) -> Iterator[Served]:
    """Two workers of a model that scales by 1, at the route `scale`."""
    one = rented.service(CONFIGURED)
    one.admin.create_service(one.name, "admin", route=f"routes/{one.name}")
    one.deploy(one.register(), replicas=2, options={"config": {"scale": 1}})
    yield one
    one.admin.delete_service(one.name)


def change(served: Served, state: str = "succeeded", **config: Any) -> dict[str, Any]:
    """Update the option alone."""
    accepted = served.admin.update(served.name, 1, {"config": config})
    return served.done(accepted, state)


def scaled(served: Served) -> int:
    answer = served.up.client.post(f"{served.up.url}/routes/{served.name}", json={"x": 1})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == 1, answer.text
    return int(answer.json()["result"]["scaled"])


def test_options_alone_change_ten_times_in_the_same_processes_without_a_failed_request(
    served: Served,
) -> None:
    pids, generation = served.pids(1), served.deployment(1)["current"]["generation"]
    with load(served.up.port, f"/routes/{served.name}", rate=100.0) as running:
        for scale in range(2, 12):
            ended = change(served, scale=scale)
            assert (ended["reconfigures"], ended["to"]["generation"]) == (True, generation)
            assert {scaled(served) for _ in range(6)} == {scale}
        steady(running)
    assert failures(running.samples) == []
    assert all(sample.answer == 1 for sample in running.samples), "each is a status of 1"
    record = served.deployment(1)
    assert (served.pids(1), record["options"]) == (pids, {"config": {"scale": 11}})
    assert record["current"]["generation"] == generation
    back = served.done(served.admin.rollback(served.name, 1))
    assert (back["kind"], back["reconfigures"]) == ("rollback", True)
    assert (scaled(served), served.pids(1)) == (10, pids)
    assert served.deployment(1)["options"] == {"config": {"scale": 10}}


def test_a_worker_killed_afterwards_comes_back_with_the_new_options(served: Served) -> None:
    change(served, scale=5)
    before = served.pids(1)
    with load(served.up.port, f"/routes/{served.name}", rate=50.0) as running:
        killed = next(iter(before))
        os.kill(killed, signal.SIGKILL)
        wait_for("it to be replaced", lambda: served.deployment(1)["ready"] == 2
                 and killed not in served.pids(1))  # fmt: skip
        assert {scaled(served) for _ in range(20)} == {5}
    assert failures(running.samples) == []
    assert len(served.pids(1) & before) == 1


@pytest.mark.parametrize("only_the_second", [False, True])
def test_options_that_a_worker_refuses_leave_all_of_them_as_they_were(
    served: Served, only_the_second: bool
) -> None:
    change(served, scale=3)
    pids = served.pids(1)
    with load(served.up.port, f"/routes/{served.name}", rate=50.0) as running:
        steady(running)
        config = {"scale": 4, "not_in": max(pids)} if only_the_second else {"scale": 666}
        ended = change(served, "failed", **config)
        assert "reconfigure raised ValueError: no such scale" in ended["reason"]
        steady(running)
    assert failures(running.samples) == []
    assert {scaled(served) for _ in range(20)} == {3}
    assert served.pids(1) == pids
    assert served.deployment(1)["options"] == {"config": {"scale": 3}}
    assert change(served, scale=7)["reconfigures"]
    assert scaled(served) == 7
    assert any("no such scale" in line for line in served.log(1))


def test_a_worker_that_cannot_be_put_back_is_replaced_by_one_with_the_old_options(
    served: Served,
) -> None:
    served.write("model.py", CONFIGURED.replace('config["scale"]\n', 'config["scale"]\n'
        '        if config["scale"] == 1 and hasattr(self, "broken"):\n'
        '            raise RuntimeError("broken for good")\n'
        '        if config["scale"] == 9:\n'
        "            self.broken = True\n"
        '            raise ValueError("half done")\n'))  # fmt: skip
    served.deploy(served.register(), replaces=1, options={"config": {"scale": 1}})
    before = served.pids(2)
    with load(served.up.port, f"/routes/{served.name}", rate=50.0) as running:
        accepted = served.admin.update(served.name, 2, {"config": {"scale": 9}})
        ended = served.done(accepted, "failed")
        assert "half done" in ended["reason"]
        wait_for("both to be there", lambda: served.deployment(2)["ready"] == 2)
        assert {scaled(served) for _ in range(20)} == {1}
    assert failures(running.samples) == []
    assert len(served.pids(2) & before) == 1


def test_what_is_more_than_such_options_is_a_new_generation(served: Served) -> None:
    pids = served.pids(1)
    renewed = served.done(served.admin.redeploy(served.name, 1))
    assert not renewed["reconfigures"]
    assert not pids & served.pids(1)
    pids = served.pids(1)
    canary = {"name": "canary", "steps": [{"percent": 100, "watch_s": 0.1}]}
    accepted = served.admin.update(served.name, 1, {"config": {"scale": 2}}, strategy=canary)
    assert not served.done(accepted)["reconfigures"]
    assert not pids & served.pids(1)
    assert scaled(served) == 2


def test_a_route_takes_json_in_the_body_of_a_get_and_its_method_alone(served: Served) -> None:
    client, url = served.up.client, f"{served.up.url}/routes/{served.name}"
    for asked in (
        client.request("GET", url, json={"x": 2}),
        client.get(url, params={"x": "2"}),
        client.post(url, json={"x": 2}),
    ):
        assert asked.status_code == 200
        assert asked.json()["status"] == 1
        assert asked.headers["x-model-version"] == "1"
    assert client.request("GET", url, json={"x": 2}).json()["result"] == {"scaled": 2}
    assert client.get(url).json()["result"] == {"scaled": 0}, (
        "a GET calls it, and describes nothing"
    )
    served.admin.edit_service(served.name, method="GET")
    refused = client.post(url, json={"x": 2})
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert client.head(url).status_code == 200
    assert client.options(url).headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.request("GET", url, json={"x": 3}).json()["result"] == {"scaled": 3}
