"""Whatever happens to the store costs no prediction, and nobody guesses what was in it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from modelcloud.errors import StoreUnavailable
from support.load import Load, load
from support.online import SERVICE, Online, again, lost, online, steady
from support.server import wait_for
from support.up import start_up

pytestmark = pytest.mark.xdist_group("acceptance")

LOCKED_S = 30.0
#: A transaction waits for its turn, and then for the lock; the answer comes right after that.
ANSWERED_S = 25.0
#: What SQLite keeps a store in.
FILES = ("modelcloud.db", "modelcloud.db-wal", "modelcloud.db-shm")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Online]:
    with online(tmp_path) as found:
        found.deploy(found.register(), replicas=2)
        found.register()
        yield found


@contextmanager
def locked(site: Online) -> Iterator[None]:
    """The store, by another program."""
    database = site.up.data / "modelcloud.db"
    with closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def aside(site: Online) -> Iterator[None]:
    """The store's files are not where they were."""
    away = site.up.data / "away"
    away.mkdir()
    there = [name for name in FILES if (site.up.data / name).exists()]
    for name in there:
        (site.up.data / name).rename(away / name)
    yield
    for name in there:
        (away / name).rename(site.up.data / name)


def refused(site: Online) -> httpx.Response:
    """What somebody who wants to deploy is told."""
    token = site.admin.token
    return httpx.post(
        f"{site.up.api}/api/v1/services/{SERVICE}/deployments",
        json={"version": 2, "mode": "new", "instance_type": "unlimited", "replicas": 1},
        headers={"authorization": f"Bearer {token}"},
        timeout=ANSWERED_S,
    )


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 503
    assert "store" in answer.json()["detail"].lower()


def predicts(site: Online, running: Load) -> None:
    steady(running)
    assert lost(running.samples) == []
    assert site.up.predict(SERVICE, {}).status_code == 200


@pytest.mark.slow
def test_a_store_that_is_locked_for_long_holds_up_rollouts_and_no_prediction(
    site: Online,
) -> None:
    with load(site.up.port, site.path, rate=50) as running:
        begun = site.begin(2, replaces=1, options={"load_s": 2})
        wait_for("it to load", lambda: site.rollouts()[-1]["step"] == "loading")
        with locked(site):
            until = time.monotonic() + LOCKED_S
            before = site.rows("SELECT * FROM audit"), site.rollouts()
            while time.monotonic() < until:
                assert_unavailable(refused(site))
                assert site.admin.services(), "what is known can still be read"
            assert (site.rows("SELECT * FROM audit"), site.rollouts()) == before
            assert {sample.version for sample in running.samples} == {1}, "told what is not kept"
            predicts(site, running)
        site.done(begun)
        site.settle()
        steady(running)
    assert lost(running.samples) == []
    assert running.samples[-1].version == 2


def test_a_store_whose_file_is_gone_is_said_to_be_gone_and_is_not_made_anew(site: Online) -> None:
    with load(site.up.port, site.path, rate=50) as running:
        with aside(site):
            assert_unavailable(refused(site))
            with pytest.raises(StoreUnavailable):
                site.admin.services()
            site.up.kill_control()  # whoever starts now knows nothing
            wait_for("it to be back", lambda: "answers again" in site.up.output)
            assert_unavailable(refused(site))
            ready = httpx.get(f"{site.up.api}/readyz")
            assert ready.status_code == 503
            assert not (site.up.data / "modelcloud.db").exists()
            predicts(site, running)
        site.settle()
        site.done(again(lambda: site.begin(2, replaces=1)))
        steady(running)
    assert lost(running.samples) == []
    assert running.samples[-1].version == 2


def test_a_damaged_store_is_left_as_it_is_and_costs_no_prediction(site: Online) -> None:
    database = site.up.data / "modelcloud.db"
    with load(site.up.port, site.path, rate=50) as running:
        steady(running)
        for name in FILES:
            path = site.up.data / name
            if path.exists():
                with path.open("r+b") as file:
                    file.write(b"\xa5" * path.stat().st_size)
        assert_unavailable(refused(site))
        site.up.kill_control()
        wait_for("it to be back", lambda: "answers again" in site.up.output)
        assert_unavailable(refused(site))
        predicts(site, running)
    assert lost(running.samples) == []
    site.stop()
    damaged = database.read_bytes()
    refusing = start_up(site.up.data)
    assert refusing.wait() == 1
    refusing.client.close()
    assert "damaged" in refusing.output
    assert "Predictions at" not in refusing.output
    assert database.read_bytes() == damaged
