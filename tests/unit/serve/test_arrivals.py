"""A model that arrives with its timestamp file begins an update; anything else does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelcloud.errors import UpdateFailed
from modelcloud.rollout.records import RolloutState
from support.loops import on_a_loop
from support.serving import World

STAMP = "fluid_time_file"


def touch(path: Path) -> None:
    """Touch it so that its times differ from all before."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.touch()
    while path.stat().st_mtime_ns <= before:
        os.utime(path)


async def following(tmp_path: Path) -> tuple[World, Path]:
    world = World(tmp_path, timestamp_file=STAMP)
    await world.serve()
    return world, world.folder / STAMP


@on_a_loop
async def test_only_a_new_timestamp_and_another_model_begin_an_update(tmp_path: Path) -> None:
    world, stamp = await following(tmp_path)
    (world.folder / "weights.bin").write_text("2")
    assert await world.updates.begin_arrived() is None, "no timestamp says that it is whole"
    touch(stamp)
    begun = await world.updates.begin_arrived()
    assert begun is not None
    serving = await world.reconciler.wait(begun.id, 5.0)
    assert serving.state is RolloutState.SUCCEEDED
    assert (Path(serving.target.snapshot) / "weights.bin").read_text() == "2"
    assert not (Path(serving.target.snapshot) / STAMP).exists()
    assert await world.updates.begin_arrived() is None, "it was taken"
    touch(stamp)
    assert await world.updates.begin_arrived() is None, "it is the model that serves"


@on_a_loop
async def test_a_broken_model_is_tried_again_when_the_timestamp_changes_again(
    tmp_path: Path,
) -> None:
    world, stamp = await following(tmp_path)
    world.model.unlink()
    touch(stamp)
    with pytest.raises(UpdateFailed, match="no such file"):
        await world.updates.begin_arrived()
    assert await world.updates.begin_arrived() is None
    world.model.write_text("version = 2\n")
    touch(stamp)
    assert await world.updates.begin_arrived() is not None


@on_a_loop
async def test_a_model_with_younger_files_waits_for_its_timestamp(tmp_path: Path) -> None:
    world, stamp = await following(tmp_path)
    touch(stamp)
    while world.model.stat().st_ctime_ns <= stamp.stat().st_ctime_ns:
        world.model.write_text("version = 2\n")
    with pytest.raises(UpdateFailed, match=f"younger than {STAMP}"):
        await world.updates.begin_arrived()
    while stamp.stat().st_ctime_ns <= world.model.stat().st_ctime_ns:
        touch(stamp)
    assert await world.updates.begin_arrived() is not None


@on_a_loop
async def test_files_at_a_model_path_may_be_others_each_time(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    world = World(tmp_path, timestamp_file=STAMP, model_path=str(tmp_path / "weights"))
    await world.serve()
    touch(world.folder / STAMP)
    assert await world.updates.begin_arrived() is not None


@on_a_loop
async def test_the_model_on_its_way_comes_up_before_the_next(tmp_path: Path) -> None:
    world, stamp = await following(tmp_path)
    world.model.write_text("version = 2\n")
    touch(stamp)
    first = await world.updates.begin_arrived()
    world.model.write_text("version = 3\n")
    touch(stamp)
    second = await world.updates.begin_arrived()
    assert first is not None
    assert second is not None
    assert world.reconciler.rollout(first.id).state is RolloutState.SUCCEEDED
