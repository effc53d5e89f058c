"""On the platform, what breaks costs only itself: updates, workers, gateways, the control plane."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest

from modelcloud.errors import PreconditionFailed, StoreUnavailable
from modelcloud.node.brake import BRAKED_STEP_S, LIMIT
from modelcloud.node.control import SILENT_S
from support.load import failures, load, mixed, stalls
from support.online import SERVICE, Online, again, lost, online, steady
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

RATE = 50.0
STALL_S = 1.0
MEMORY = 128 << 20
UPDATES = 30
CANARY = {"name": "canary", "steps": [{"percent": 50, "watch_s": 1}]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Online]:
    with online(tmp_path_factory.mktemp("faults"), "--load-timeout", "6") as found:
        found.deploy(found.register(), replicas=2)
        found.admin.create_instance_type("tiny", memory=MEMORY)
        yield found


@contextmanager
def nothing_lost(site: Online) -> Iterator[None]:
    """Load during the block, of which no request fails, is answered wrongly, or stalls."""
    with load(site.up.port, site.path, rate=RATE) as running:
        since = steady(running)
        yield
        steady(running)
    assert lost(running.samples) == []
    assert stalls(running.samples, lambda sample: sample.done > since, STALL_S) == []


@contextmanager
def full_strength(site: Online, version: int) -> Iterator[None]:
    """Both workers of a version are routed at any moment of the block."""
    seen: list[Any] = []
    ending = threading.Event()

    def look() -> None:
        while not ending.wait(0.05):
            record = site.deployment(version)
            if record["ready"] != 2 or record["state"] != "serving":
                seen.append(record)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        ending.set()
        looking.join()
    assert seen == []


# ---- updates


class Bad(msgspec.Struct, frozen=True):
    """A version that does not come up.

    Attributes:
        says: what its rollout says.
        options: it is deployed with.
        instance_type: likewise.
        files: beside the model, with their content.
        requirements: its own; their folder is made unusable once they were fulfilled.
    """

    says: str
    options: dict[str, Any] = {}
    instance_type: str = "unlimited"
    files: dict[str, str] = {}
    requirements: str = ""


RAISES = '{"command": "misbehave", "inputs": {"how": "raise"}}'
DIFFERS = '{"command": "echo", "inputs": {"value": 1}, "expected": {"value": 2}}'
BAD = {
    "load raises": Bad("there are no weights", {"fail": "raise"}),
    "load hangs": Bad("6 s", {"fail": "hang"}),
    "load spins": Bad("6 s", {"fail": "spin"}),
    "load stops its process": Bad("stopped by a signal", {"fail": "stop"}),
    "load exits": Bad("status 9", {"fail": "exit"}),
    "load is killed": Bad("SIGKILL", {"fail": "kill"}),
    "load takes too much memory": Bad("128 MiB that its instance type", {"fail": "hoard"}, "tiny"),
    "a module is missing": Bad("no_such_module", {"fail": "import"}),
    "the warm-up fails": Bad("misbehave answered 500", files={"warmup.jsonl": RAISES}),
    "a golden answer differs": Bad("golden", files={"golden.jsonl": DIFFERS}),
    "the environment cannot be built": Bad("cannot be built", requirements="six"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_update_that_does_not_come_up_changes_nothing_and_says_why(
    site: Online, what: str
) -> None:
    bad, envs = BAD[what], site.up.data / "envs"
    for name, content in bad.files.items():
        (site.model / name).write_text(content)
    version = site.register(**({"requirements": bad.requirements} if bad.requirements else {}))
    for name in bad.files:
        (site.model / name).unlink()
    if bad.requirements:
        shutil.rmtree(envs)
        envs.touch()
    how: dict[str, Any] = {"options": bad.options, "instance_type": bad.instance_type}
    workers = site.up.pids("worker")
    with nothing_lost(site), full_strength(site, 1):
        ended = site.done(site.begin(version, replaces=1, **how), "failed")
    assert bad.says in ended["reason"]
    said = [line["text"] for line in site.admin.logs(SERVICE, lines=50)["lines"]]
    assert any(bad.says in line for line in said), said
    site.settle()
    assert site.up.pids("worker") == workers, "the serving workers were replaced"
    site.done(site.begin(version, **how), "failed")
    record = site.deployment(version)
    assert (record["state"], record["status"]) == ("failed", "Failed")
    assert bad.says in record["reason"]
    site.admin.undeploy(SERVICE, version)
    if bad.requirements:
        envs.unlink()


def test_a_version_of_which_one_worker_cannot_load_is_not_promoted(site: Online) -> None:
    version = site.register()
    flags = site.model.parent / "flags"
    flags.mkdir()
    with nothing_lost(site), full_strength(site, 1):
        begun = site.begin(version, replaces=1, options={"fail": f"second:{flags / 'taken'}"})
        ended = site.done(begun, "failed")
    assert "FileExistsError" in ended["reason"]
    assert (flags / "taken").is_dir(), "the other one had loaded"
    site.settle()


def test_a_request_that_is_under_way_is_answered_by_the_version_it_came_to(site: Online) -> None:
    version = site.register()
    answers: list[httpx.Response] = []

    def ask() -> None:
        url = f"{site.up.url}/{SERVICE}/1/sleep"
        answers.append(httpx.post(url, json={"s": 3}, timeout=60))

    asking = threading.Thread(target=ask)
    asking.start()
    site.done(site.begin(version, replaces=1))
    assert site.up.post(site.path, {}).json()["answer"] == version
    assert answers == [], "it was not waited for"
    asking.join()
    assert [answer.headers["x-model-version"] for answer in answers] == ["1"]
    assert answers[0].json() == {"answer": 1}
    site.done(site.begin(1, replaces=version))
    site.settle()


# ---- at once


def test_of_updates_at_once_the_last_one_wins_and_who_waits_for_another_is_told_so(
    site: Online,
) -> None:
    answers: dict[int, httpx.Response] = {}

    def update(number: int, load_s: float) -> threading.Thread:
        body = {"options": {"answer": number, "load_s": load_s}}
        token = {"authorization": f"Bearer {site.admin.token}"}

        def post() -> None:
            answers[number] = httpx.post(
                f"{site.up.url}/{SERVICE}/setup", json=body, headers=token, timeout=60
            )

        thread = threading.Thread(target=post)
        thread.start()
        return thread

    with load(site.up.port, site.path, rate=RATE) as running:
        steady(running)
        earlier = update(70, 30)
        wait_for("it to load", lambda: site.rollouts()[-1]["step"] == "loading")
        later = update(71, 0)
        earlier.join()
        later.join()
        steady(running)
        back = site.admin.update(SERVICE, 1, {"answer": 1, "load_s": 0})
        site.done(back)
    assert failures(running.samples) == []
    assert {sample.answer for sample in running.samples} == {1, 71}
    assert (answers[70].status_code, answers[71].status_code) == (409, 200)
    winner = answers[71].json()["rollout"]
    assert answers[70].json()["error"] == f"rollout {winner} took its place"
    assert "superseded" in {row["state"] for row in site.rollouts()}
    site.settle()


def test_thirty_updates_in_a_few_seconds_lose_nothing_and_the_version_never_goes_back(
    site: Online,
) -> None:
    first = site.register()
    site.deploy(first, replaces=1)
    most = 0
    with load(site.up.port, site.path, rate=RATE) as running:
        steady(running)
        begun = []
        for number in range(1, UPDATES + 1):
            begun.append(site.admin.update(SERVICE, first, {"answer": first + number / 100}))
            most = max(most, len(site.up.pids("worker")))
        ended = site.done(begun[-1])
        steady(running)
    assert failures(running.samples) == []
    assert mixed(running.samples) == [], "it went back"
    assert running.samples[-1].answer == first + UPDATES / 100
    ids = {update["rollout"]["id"] for update in begun}
    assert len(ids) == UPDATES
    states = {row["id"]: row["state"] for row in site.rollouts() if row["id"] in ids}
    assert set(states.values()) <= {"succeeded", "superseded"}
    assert states[ended["id"]] == "succeeded"
    assert most <= 8, "more than two candidates of two workers"
    site.done(site.begin(1, replaces=first, options={}))
    site.settle()


def test_who_edits_what_another_has_changed_meanwhile_is_told_so(site: Online) -> None:
    seen = site.deployment(1)["revision"]
    site.admin.scale(SERVICE, 1, 1, revision=seen)
    with pytest.raises(PreconditionFailed):
        site.admin.scale(SERVICE, 1, 3, revision=seen)
    site.admin.scale(SERVICE, 1, 2)
    wait_for("two replicas", lambda: site.full_strength(1))
    site.settle()


# ---- processes


@pytest.mark.parametrize(("strategy", "phase"), [("blue_green", "loading"), (CANARY, "watching")])
def test_a_control_plane_killed_in_an_update_goes_on_with_it(
    site: Online, strategy: Any, phase: str
) -> None:
    version = site.register()
    with nothing_lost(site):
        begun = site.begin(version, replaces=1, strategy=strategy, options={"load_s": 0.5})
        wait_for("the phase", lambda: phase in site.phases())
        site.up.kill_control()
        site.done(begun)
        site.settle()
        site.done(site.begin(1, replaces=version))
    site.settle()


def test_a_killed_worker_costs_no_request_and_is_replaced(site: Online) -> None:
    with nothing_lost(site):
        for _ in range(3):
            workers = set(site.up.pids("worker"))
            os.kill(min(workers), signal.SIGKILL)
            wait_for("another", lambda w=workers: set(site.up.pids("worker")) - w  # type: ignore[misc]
                     and site.full_strength(1))  # fmt: skip
    site.settle()


def test_a_killed_gateway_is_back_with_all_addresses(site: Online) -> None:
    with load(site.up.port, site.path, rate=RATE) as running:
        steady(running)
        (victim,) = site.up.pids("gateway")
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_for("another", lambda: site.up.pids("gateway") not in ([], [victim]))
        back = time.monotonic()
        steady(running)
    failed = lost(running.samples)
    # It takes along what its connections carried; a connection opened later waits.
    assert all(sample.kept_alive or sample.sent <= killed for sample in failed), failed
    assert [sample for sample in failed if sample.sent > back + STALL_S] == []
    assert not any(sample.error.startswith("404") for sample in failed)
    site.settle()


def test_a_control_plane_that_keeps_dying_is_started_slowly_and_costs_no_prediction(
    site: Online,
) -> None:
    with nothing_lost(site):
        for _ in range(LIMIT):
            wait_for("a control plane", lambda: site.up.pids("control"))
            dead = site.up.pids("control")
            site.up.kill_control()
            wait_for("it to be gone", lambda d=dead: site.up.pids("control") != d)  # type: ignore[misc]
        braked = time.monotonic()
        wait_for("another try", lambda: site.up.pids("control"))
        assert time.monotonic() - braked > BRAKED_STEP_S / 2
        again(site.admin.services)
    site.settle()


@pytest.mark.slow
def test_a_control_plane_that_hangs_is_replaced_and_costs_no_prediction(site: Online) -> None:
    with nothing_lost(site):
        (hung,) = site.up.pids("control")
        os.kill(hung, signal.SIGSTOP)
        wait_for("another one", lambda: site.up.pids("control") not in ([], [hung]), 2 * SILENT_S)
        again(site.admin.services)
    assert "was silent" in site.up.output
    site.settle()


# ---- what the system runs out of


def test_a_disk_that_takes_no_more_holds_up_changes_and_no_prediction(site: Online) -> None:
    """Stands for a full disk: what node and control plane write to files fails."""
    (control,) = site.up.pids("control")
    with nothing_lost(site):
        with limited(site.up.process.pid, 4096), limited(control, 4096):
            with pytest.raises(StoreUnavailable):
                site.admin.update(SERVICE, 1, {"answer": 2})
            with pytest.raises(StoreUnavailable):
                site.admin.create_group("team")
        site.admin.create_group("team")
    assert site.up.pids("control") == [control]
    site.settle()


@contextmanager
def limited(pid: int, size: int) -> Iterator[None]:
    """A process whose files may not grow beyond `size` bytes during the block."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
