"""What is taken of a folder that changes while it is read is one model, or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from modelcloud.artifacts import snapshot
from modelcloud.artifacts.snapshot import Snapshot
from modelcloud.errors import ModelLoadError
from modelcloud.monitors.publish import exchange
from modelcloud.serve import timestamp
from modelcloud.serve.timestamp import folder_of, take_whole, unfinished
from modelcloud.serve.watch import INTERVAL_S, look_at

STAMP = "fluid_time_file"
PARTS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write(folder, 1)
    return folder


def write(folder: Path, number: int) -> None:
    """A model whose every file holds its number."""
    folder.mkdir(exist_ok=True)
    for part in range(PARTS):
        (folder / f"weights{part}").write_text(str(number))
    (folder / "model.onnx").write_text(str(number))
    (folder / STAMP).touch()


def numbers(taken: Snapshot) -> set[str]:
    return {(taken.folder / name).read_text() for name in taken.files}


def take(folder: Path) -> Snapshot:
    taken, stamp = take_whole(str(folder), folder.parent / "staged", folder / STAMP)
    assert stamp, "the timestamp was seen"
    return taken


def test_every_file_but_the_timestamp_is_taken(folder: Path) -> None:
    first = take(folder)
    assert len(first.files) == PARTS + 1
    (folder / STAMP).write_text("later")
    assert take(folder).digest == first.digest


def test_a_timestamp_elsewhere_is_no_part_of_the_model_and_a_like_name_is(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / STAMP).touch()
    taken, _ = take_whole(str(folder), tmp_path / "staged", tmp_path / STAMP)
    assert STAMP in taken.files


def test_a_folder_that_is_exchanged_all_the_time_is_never_read_as_a_mix(folder: Path) -> None:
    ending = threading.Event()

    def produce() -> None:
        number = 1
        while not ending.is_set():
            number += 1
            following = folder.parent / "next"
            write(following, number)
            exchange(following, folder)
            shutil.rmtree(following)
            ending.wait(0.02)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        seen = set()
        for _ in range(30):
            with contextlib.suppress(ModelLoadError):  # it changed each time that it was read
                (number,) = numbers(take(folder))
                seen.add(number)
    finally:
        ending.set()
        producer.join()
    assert len(numbers(take(folder))) == 1
    assert len(seen) > 1


def test_a_file_written_while_the_folder_is_read_has_it_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 0
    original = snapshot.take

    def written_to(target: str, into: Path, **given: object) -> Snapshot:
        nonlocal times
        times += 1
        taken = original(target, into, **given)  # type: ignore[arg-type]
        if times < 3:
            write(folder, times + 1)
        return taken

    monkeypatch.setattr(timestamp, "take", written_to)
    assert numbers(take(folder)) == {"3"}
    times = -100
    with pytest.raises(ModelLoadError, match=f"accepted: a model whose {STAMP} is touched once"):
        take(folder)


def test_what_cannot_be_taken_of_a_folder_that_stands_still_is_said_at_once(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelLoadError, match="holds no model"):
        take(folder)


def test_a_file_that_is_younger_than_the_timestamp_shows_a_model_on_its_way(folder: Path) -> None:
    stamp, weights = folder / STAMP, folder / "weights0"
    assert unfinished(str(folder), stamp) == ""
    later = stamp.stat().st_ctime_ns
    while weights.stat().st_ctime_ns <= later:
        weights.write_text("2")
    assert unfinished(str(folder), stamp) == str(weights)
    os.utime(weights, (1, 1))
    assert unfinished(str(folder), stamp) == "", "it was only moved here, or its mode changed"
    weights.write_text("2")
    while stamp.stat().st_ctime_ns <= weights.stat().st_ctime_ns:
        stamp.touch()
    assert unfinished(str(folder), stamp) == ""
    stamp.unlink()
    assert unfinished(str(folder), stamp) == ""


def test_a_link_to_a_folder_is_followed_anew_each_time(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(folder)
    assert numbers(take(link)) == {"1"}
    write(tmp_path / "second", 2)
    link.unlink()
    link.symlink_to(tmp_path / "second")
    assert numbers(take(link)) == {"2"}


@pytest.mark.parametrize("target", ["m", "m/model.py", "m/model.py:predict"])
def test_the_folder_of_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    Path("m/model.py").touch()
    assert folder_of(target) == Path("m")


def test_a_change_is_noticed_within_a_second(folder: Path) -> None:
    assert 2 * INTERVAL_S < 1.0
    before = look_at(folder / STAMP)
    os.utime(folder / STAMP)
    assert look_at(folder / STAMP) != before
    assert look_at(folder / "gone") == {}
