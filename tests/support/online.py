"""A platform with versions of one model, and what must be true of it once all is quiet."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from modelcloud.errors import ModelcloudError
from modelcloud.platform import Platform
from support.load import Load, Sample, failures
from support.models import obedient
from support.server import DEADLINE_S, wait_for
from support.up import Up, start_up

T = TypeVar("T")

SERVICE = "m"
#: What a deployment may be once nothing of it is under way.
SETTLED = {"serving", "stopped", "failed"}


class Online:
    """A platform, and the one service of it that a test is about.

    Attributes:
        up: the running platform; another one after a restart.
        model: folder that versions are registered from; read anew each time.
    """

    def __init__(self, start: Callable[[], Up], model: Path) -> None:
        self.model = model
        self._start = start
        self.up = start()

    def stop(self) -> None:
        """End it by SIGTERM; that must give status 0."""
        assert self.up.stop() == 0, self.up.output

    def close(self) -> None:
        """End it, however it stands."""
        self.up.process.kill()
        self.up.wait()
        self.up.client.close()
        self.up.admin.close()

    def start_again(self) -> None:
        """Start it on the same folder, once it has ended."""
        self.close()
        self.up = self._start()
        self.up.wait_serving()

    def restart(self) -> None:
        """End it in peace and start it on the same folder."""
        self.stop()
        self.start_again()

    @property
    def admin(self) -> Platform:
        return self.up.admin

    @property
    def path(self) -> str:
        """Where the command that answers with the option `answer` is."""
        return f"/{SERVICE}/ask"

    def register(self, **fields: Any) -> int:
        """A new version of what the folder holds; its number is also what it answers."""
        number = 1 + max((v["version"] for v in self._versions()), default=0)
        options = {"answer": number, **fields.pop("options", {})}
        made = self.admin.register(
            SERVICE, path=str(self.model), group="admin", options=options, **fields
        )
        assert made["version"] == number
        return number

    def deploy(self, version: int, **fields: Any) -> dict[str, Any]:
        """Bring it online, and wait; returns the rollout."""
        return self.done(self.begin(version, **fields))

    def begin(self, version: int, **fields: Any) -> dict[str, Any]:
        """Ask for it; what was kept warm would only be in the way of counting workers."""
        fields = {"instance_type": "unlimited", "keep_warm_s": 0, **fields}
        return self.admin.deploy(SERVICE, version, **fields)

    def done(self, accepted: dict[str, Any], state: str = "succeeded") -> dict[str, Any]:
        """The rollout once it ended, and ended like this."""
        ended = self.admin.wait(accepted["rollout"]["id"], timeout_s=DEADLINE_S)
        assert ended["state"] == state, ended
        return ended

    def deployment(self, version: int) -> dict[str, Any]:
        return self.admin.deployment(SERVICE, version)

    def full_strength(self, version: int) -> bool:
        record = self.deployment(version)
        return record["ready"] == record["replicas"] and not record["degraded"]

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What the store itself holds, whoever runs or does not."""
        place = f"file:{self.up.data / 'modelcloud.db'}?mode=ro"
        with closing(sqlite3.connect(place, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    def rollouts(self) -> list[dict[str, Any]]:
        """Rows of all rollouts, oldest first."""
        return self.rows("SELECT id, state, step, kind, reason FROM rollouts ORDER BY id")

    def phases(self) -> set[str]:
        """Those that deployments with a rollout on its way are kept at."""
        found = [json.loads(row["facts"]) for row in self.rows("SELECT facts FROM deployments")]
        return {facts["flight"]["phase"] for facts in found if facts.get("flight")}

    def untrue(self) -> str:
        """What of the platform does not agree; empty once it is at one truth."""
        unfinished = [r for r in self.rollouts() if r["state"] in {"pending", "running"}]
        if unfinished:
            return f"rollouts are not over: {unfinished}"
        deployments = self.admin.deployments(SERVICE)
        claimed: list[int] = []
        for record in deployments:
            workers = [worker["pid"] for worker in record["workers"]]
            claimed += workers
            if record["state"] not in SETTLED:
                return f"deployment {record['id']} is {record['state']}"
            wanted = record["replicas"] if record["state"] == "serving" else 0
            if record["ready"] != wanted or len(workers) - warm(record) != wanted:
                return f"deployment {record['id']}: {wanted} wanted, there: {record['workers']}"
            current = record["current"]
            if record["state"] == "serving" and current["version"] != record["version"]:
                return f"deployment {record['id']} stands at two versions: {record}"
        if sorted(claimed) != self.up.pids("worker"):
            return f"workers {self.up.pids('worker')}, known: {sorted(claimed)}"
        rows = self.rows("SELECT id, version, wanted, state, facts FROM deployments")
        if {row["id"] for row in rows} != {record["id"] for record in deployments}:
            return f"rows of deleted deployments are left: {rows}"
        for row in rows:
            facts = json.loads(row["facts"])
            serving = facts.get("serving")
            if facts.get("flight") or (serving and serving["version"] != row["version"]):
                return f"deployment {row['id']} is kept as {facts}"
            shown = {record["id"]: record["state"] for record in deployments}[row["id"]]
            if row["state"] != shown:
                return f"deployment {row['id']} is {shown} and kept as {row['state']}"
        return self._misrouted(deployments)

    def settle(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until everything that is kept, decided and running agrees."""
        found = ""

        def agrees() -> bool:
            nonlocal found
            found = again(self.untrue)
            return not found

        try:
            wait_for("one truth", agrees, deadline_s)
        except AssertionError:
            raise AssertionError(f"{found}\n{self.up.output}") from None

    def _misrouted(self, deployments: list[dict[str, Any]]) -> str:
        for record in deployments:
            address = f"{self.up.url}/{SERVICE}/{record['version']}/ask"
            answer = self.up.client.post(address, json={})
            if (record["state"] == "serving") != (answer.status_code == 200):
                return f"{address} answers {answer.status_code}, but is {record['state']}"
            if answer.status_code == 200 and answer.json()["answer"] != record["version"]:
                return f"{address} answers {answer.json()}"
        return ""

    def _versions(self) -> list[dict[str, Any]]:
        if SERVICE not in {service["name"] for service in self.admin.services()}:
            return []
        return self.admin.versions(SERVICE)


def again(ask: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """What `ask` gives once the control plane answers it."""
    found: list[T] = []

    def answered() -> bool:
        try:
            found.append(ask())
        except (ModelcloudError, httpx.TransportError):
            return False
        return True

    wait_for("the control plane to answer", answered, deadline_s)
    return found[-1]


def warm(record: dict[str, Any]) -> int:
    """Workers of a deployment that are kept for a rollback."""
    previous = record["previous"]
    if not (record["keep_warm_s"] and previous):
        return 0
    return sum(w["generation"] == previous["generation"] for w in record["workers"])


def lost(samples: list[Sample]) -> list[Sample]:
    """What was not answered, or by another version than it says."""
    return [*failures(samples), *(s for s in samples if not s.error and s.answer != s.version)]


def steady(running: Load) -> float:
    """Wait for some further traffic; returns when there had been enough."""
    enough = len(running.samples) + 30
    wait_for("steady traffic", lambda: len(running.samples) >= enough)
    return time.monotonic()


@contextmanager
def online(folder: Path, *arguments: str | Path, **env: str) -> Iterator[Online]:
    """A platform that versions of the obedient model may be registered on."""
    model = folder / "model"
    model.mkdir()
    obedient(model)

    def start() -> Up:
        return start_up(folder / "data", "--root", model, *arguments, **env)

    site = Online(start, model)
    try:
        site.up.wait_serving()
        yield site
        site.stop()
    finally:
        site.close()
