"""However the platform ends, nothing of it is left, and its next start brings all of it back."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcloud.client import Unreachable
from modelcloud.errors import Conflict, ModelcloudError
from modelcloud.platform import Platform
from support.load import load
from support.marks import MARK, living
from support.online import SERVICE, Online, lost, online, steady
from support.postgres import Postgres
from support.server import DEADLINE_S, wait_for
from support.up import start_up, up

pytestmark = pytest.mark.xdist_group("acceptance")

#: For running requests at the end.
DRAIN_S = 20
CANARY = {"name": "canary", "steps": [{"percent": 50, "watch_s": 3}]}


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Online]:
    """A platform that is at the same address after a restart; its processes are found by a mark."""
    arguments = ("--port", str(free_port()), "--drain", str(DRAIN_S))
    with online(tmp_path, *arguments, **{MARK: str(tmp_path)}) as found:
        for _ in range(2):
            found.register()
        found.deploy(1, replicas=2)
        yield found


class Visitor:
    """Asks for the addresses of a service again and again, on a connection of its own each time.

    Attributes:
        met: status, or the kind of error, and version → the last answer of that kind.
    """

    def __init__(self, *urls: str) -> None:
        self.met: dict[tuple[int | str, str], str] = {}
        self._urls = urls
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def leave(self) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def statuses(self) -> set[int]:
        return {status for status, _ in self.met if isinstance(status, int)}

    def _ask(self) -> None:
        while not self._ending.is_set():
            for url in self._urls:
                try:
                    answer = httpx.post(url, json={}, timeout=60)
                except httpx.TransportError as error:  # noqa: PERF203 — each try is one of its own
                    self.met[type(error).__name__, ""] = str(error)
                else:
                    version = answer.headers.get("x-model-version", "")
                    self.met[answer.status_code, version] = f"{url}: {answer.text}"


@contextmanager
def visited(site: Online, *paths: str) -> Iterator[Visitor]:
    visitor = Visitor(*(site.up.url + path for path in paths))
    try:
        yield visitor
    finally:
        visitor.leave()


def shape(site: Online) -> dict[str, Any]:
    """What must be the same after a restart."""
    kept = ("version", "state", "replicas", "weight", "labels", "answers", "options", "current")
    return {
        "deployments": [
            {name: record[name] for name in kept} for record in site.admin.deployments(SERVICE)
        ],
        "traffic": site.admin.traffic(SERVICE),
        "versions": [v["version"] for v in site.admin.versions(SERVICE)],
        "rollouts": [row["id"] for row in site.rollouts()],
    }


# ---- killed


def test_after_a_kill_nothing_is_left_and_the_next_start_brings_everything_back(
    site: Online, tmp_path: Path
) -> None:
    for _ in range(2):
        site.register()
    site.deploy(2, weight=1, label="next")
    site.deploy(3, replaces=1, label="stable")  # which answers at the address of version 1 too
    site.deploy(4)
    site.admin.stop(SERVICE, 4)
    site.admin.set_traffic(SERVICE, weights={"3": 3, "2": 1})
    site.settle()
    before = shape(site)
    site.up.process.kill()
    site.up.process.wait()
    wait_for("all of it to be gone", lambda: living(str(tmp_path)) == {})
    paths = (f"/predict/{SERVICE}", *(f"/{SERVICE}/{word}/ask" for word in (1, 2, 3, "stable")))
    with visited(site, *paths) as visitor:
        site.start_again()
        site.settle()
    assert shape(site) == before
    assert visitor.statuses <= {200, 503}, visitor.met
    assert {version for status, version in visitor.met if status == 200} == {"2", "3"}
    answers = {
        word: site.up.post(f"/{SERVICE}/{word}/ask", {}).json().get("answer")
        for word in (1, 2, 3, "stable", "next")
    }
    assert answers == {1: 3, 2: 2, 3: 3, "stable": 3, "next": 2}
    assert site.up.post(f"/{SERVICE}/4/ask", {}).status_code == 404


def test_an_update_that_a_kill_broke_off_goes_on_after_the_next_start(
    site: Online, tmp_path: Path
) -> None:
    begun = site.begin(2, replaces=1, options={"load_s": 1})
    wait_for("it to load", lambda: site.rollouts()[-1]["step"] == "loading")
    site.up.process.kill()
    site.up.process.wait()
    wait_for("all of it to be gone", lambda: living(str(tmp_path)) == {})
    with visited(site, f"/{SERVICE}/ask", f"/{SERVICE}/1/ask") as visitor:
        site.start_again()
        site.done(begun)
        site.settle()
    assert visitor.statuses <= {200, 503}, visitor.met
    assert {version for status, version in visitor.met if status == 200} == {"1", "2"}


def test_a_kill_ends_the_build_of_an_environment_too(site: Online, tmp_path: Path) -> None:
    def register() -> None:
        with pytest.raises(Unreachable):  # it dies before it can answer
            site.register(requirements=f"--index-url {silent}\nsix\n")

    with socket.create_server(("127.0.0.1", 0)) as index:  # takes connections, and says nothing
        silent = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        registering = threading.Thread(target=register)
        registering.start()
        wait_for("the build", lambda: any(map(runs_uv, living(str(tmp_path)).values())))
        site.up.process.kill()
        site.up.process.wait()
        wait_for("all of it to be gone", lambda: living(str(tmp_path)) == {})
    registering.join()
    site.start_again()
    site.settle()
    assert [v["version"] for v in site.admin.versions(SERVICE)] == [2, 1]
    assert list((site.up.data / "staging").iterdir()) == []


def runs_uv(command: str) -> bool:
    return Path(command.partition(" ")[0]).name == "uv"


# ---- stopped


def at_loading(site: Online) -> dict[str, Any]:
    begun = site.begin(2, replaces=1, options={"load_s": 3})
    wait_for("it to load", lambda: site.rollouts()[-1]["step"] == "loading")
    return begun


def at_watching(site: Online) -> dict[str, Any]:
    begun = site.begin(2, replaces=1, strategy=CANARY)
    wait_for("the watch", lambda: "watching" in site.phases())
    return begun


def at_shifting(site: Online) -> dict[str, Any]:
    begun = site.begin(2, replaces=1, strategy="rolling", options={"load_s": 2})
    wait_for("the shift", lambda: "shifting" in site.phases())
    return begun


def at_clearing(site: Online) -> dict[str, Any]:
    begun = site.begin(2, replaces=1, strategy="recreate", options={"load_s": 2})
    wait_for("no worker", lambda: site.deployment(1)["ready"] == 0)
    return begun


@pytest.mark.parametrize("at", [at_loading, at_watching, at_shifting, at_clearing])
def test_stopped_at_any_step_it_answers_what_is_under_way_and_goes_on_later(
    site: Online, tmp_path: Path, at: Callable[[Online], dict[str, Any]]
) -> None:
    running: list[httpx.Response] = []

    def ask() -> None:
        url = f"{site.up.url}/{SERVICE}/sleep"
        running.append(httpx.post(url, json={"s": 2}, timeout=60))

    with load(site.up.port, site.path, rate=50) as before:
        steady(before)
        asking = threading.Thread(target=ask)
        asking.start()
        begun = at(site)
    asked = time.monotonic()
    site.up.process.send_signal(signal.SIGTERM)
    assert site.up.wait() == 0, site.up.output
    assert time.monotonic() - asked < DRAIN_S
    asking.join()
    assert [answer.status_code for answer in running] == [200]
    assert lost(before.samples) == []
    assert living(str(tmp_path)) == {}
    site.start_again()
    site.done(begun)
    site.settle()
    assert site.up.post(site.path, {}).json()["answer"] == 2


# ---- not started


@pytest.mark.parametrize("option", ["--port", "--control-port"])
def test_an_address_that_is_taken_is_named_and_nothing_is_started(
    tmp_path: Path, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start_up(tmp_path / "data", option, str(port), **{MARK: str(tmp_path)})
        assert refused.wait() != 0
        refused.client.close()
    assert str(port) in refused.output
    assert "Predictions at" not in refused.output
    wait_for("all of it to be gone", lambda: living(str(tmp_path)) == {})


def test_a_second_platform_on_the_same_folder_is_refused_and_the_first_goes_on(
    site: Online,
) -> None:
    with load(site.up.port, site.path, rate=50) as running:
        steady(running)
        refused = start_up(site.up.data)
        assert refused.wait() != 0
        refused.client.close()
        steady(running)
    assert "in use by another `modelcloud up`" in refused.output
    assert lost(running.samples) == []
    site.settle()


# ---- one platform, one database


def test_a_copy_on_the_same_database_is_refused_and_a_control_plane_takes_it_up_again(
    tmp_path: Path, postgres: Postgres
) -> None:
    database = "--database", postgres.url(postgres.create())
    with up(tmp_path / "data", *database) as first:
        first.kill_control()
        wait_for("the control plane to write again", lambda: wrote(first.admin))
        leftovers = shutil.ignore_patterns("modelcloud-*")
        shutil.copytree(tmp_path / "data", tmp_path / "copy", ignore=leftovers)
        copy = start_up(tmp_path / "copy", *database)
        assert copy.process.wait(DEADLINE_S) == 1
        assert "in use by another platform (modelcloud up, process" in copy.output
        copy.client.close()
    with up(tmp_path / "copy", *database) as second:
        assert second.admin.services() == []


def wrote(platform: Platform) -> bool:
    try:
        platform.create_group("written")
    except Conflict:  # an earlier try did, and its answer was lost
        return True
    except ModelcloudError:
        return False
    return True
