"""What nothing refers to any more is removed, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete

from modelcloud.artifacts.environment import build
from modelcloud.config import PlatformConfig
from modelcloud.control import identity
from modelcloud.control.observe.deployment_log import DeploymentLog
from modelcloud.control.services.registration import Registration
from modelcloud.control.sweep import Sweep
from modelcloud.engines.fake import FakeEngine
from modelcloud.errors import Conflict, StoreUnavailable
from modelcloud.store.tables import Platform, Version
from modelcloud.types import GenerationSpec
from support.control import standing_of
from support.platform import PlatformRig

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

KEPT, ASKED, GONE = "six==1.16.0\n", "six==1.15.0\n", "six==1.14.0\n"


class World:
    """A data folder with three environments, artifacts and logs, of which one version has one."""

    def __init__(self, rig: PlatformRig, data: Path) -> None:
        self.rig = rig
        self.data = data
        self.used: list[GenerationSpec] = []
        self.logs = DeploymentLog(data / "logs")
        registration = Registration(
            rig.store,
            FakeEngine(),
            standing_of(PlatformConfig(data=str(data))),
            write=self.logs.write,
            in_use=lambda: self.used,
            clock=rig.state.clock,
        )
        self.sweep = Sweep(
            rig.store,
            registration,
            identity=identity.Identity(rig.store, data),
            in_use=lambda: self.used,
            envs=data / "envs",
            logs=self.logs,
            data=data,
        )
        rig.run(registration.start())
        identity.write(data, "ours")
        rig.do(lambda tx: tx.add(Platform(id="ours", created_at=0)))
        rig.user("ann")
        rig.service("m261", group="ann", requirements=KEPT)
        rig.do(lambda tx: setattr(tx.get_one(Version, 1), "artifact", self.artifact(tx)))
        for requirements in (KEPT, ASKED, GONE):
            build(requirements, "", data / "envs", lambda _: None)
        for use in (data / "envs").glob("*.use"):
            os.utime(use, (0, 0))  # all were asked for long ago
        (data / "artifacts" / ("b" * 64)).mkdir()
        for service in ("m261", "gone"):
            self.logs.write(service, "a step")
            for version in (1, 2):
                (data / "logs" / service / f"{version}.log").touch()

    def artifact(self, tx: Session) -> str:
        from modelcloud.store.tables import Artifact

        digest = "a" * 64
        (self.data / "artifacts" / digest).mkdir()
        tx.add(Artifact(digest=digest, size=1, files=1, created_at=0))
        tx.flush()
        return digest

    def there(self) -> tuple[int, list[str], list[str]]:
        """How many environments; the artifacts; the logs of workers."""
        envs = sum(entry.is_dir() for entry in (self.data / "envs").iterdir())
        artifacts = sorted(entry.name[0] for entry in (self.data / "artifacts").iterdir())
        logs = sorted(str(p.relative_to(self.data / "logs")) for p in self.data.rglob("?.log"))
        return envs, artifacts, logs


@pytest.fixture
def world(platform: PlatformRig, tmp_path: Path) -> Iterator[World]:
    made = World(platform, tmp_path / "data")
    yield made
    made.logs.close()


def test_what_versions_and_workers_need_stays_and_all_else_goes(world: World) -> None:
    world.used = [
        GenerationSpec(
            service="m261", generation=2, version=2, target="m.py", snapshot="", digest="b" * 64,
            requirements=ASKED,
        )
    ]  # fmt: skip
    world.rig.run(world.sweep.sweep())
    assert world.there() == (2, ["a", "b"], ["m261/1.log", "m261/2.log"])
    world.used = []
    world.rig.run(world.sweep.sweep())
    assert world.there() == (1, ["a"], ["m261/1.log"])
    world.rig.do(lambda tx: tx.execute(delete(Version)))
    world.rig.run(world.sweep.sweep())
    assert world.there() == (0, [], [])


def test_without_a_store_nothing_is_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(work: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.rig.store, "read", away)
    with pytest.raises(StoreUnavailable):
        world.rig.run(world.sweep.sweep())
    assert world.there() == (
        3, ["a", "b"], ["gone/1.log", "gone/2.log", "m261/1.log", "m261/2.log"]
    )  # fmt: skip
    monkeypatch.undo()


@pytest.mark.parametrize("stored", ["another's", None])
def test_with_a_store_that_is_not_the_folders_own_nothing_is_removed(
    world: World, stored: str | None
) -> None:
    def change(tx: Session) -> None:
        tx.execute(delete(Platform))
        if stored is not None:
            tx.add(Platform(id=stored, created_at=0))

    world.rig.do(change)
    before = world.there()
    with pytest.raises(Conflict, match="Nothing was changed"):
        world.rig.run(world.sweep.sweep())
    assert world.there() == before
