"""Whatever goes wrong on a model's way, the server answers on, from one whole model, and it heals.

One server, under load in each test, while remote, disk and monitor fail. That nobody who reads the
model's folder sees a torn one is held by `test_monitor_faults` and `test_monitor_killed`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.disk import filled, small_disk
from support.housing import Served, served
from support.killed import CALLS, first_in, killed_at, look_once
from support.monitored import (
    ARCHIVE,
    DONE,
    MODEL,
    TIMESTAMP,
    Monitor,
    arguments_for,
    cut_at_a_member,
    flipped,
    leftovers,
    monitor,
    promise,
)
from support.onnx_model import WEIGHTS
from support.served_folders import ServedFolder, running
from support.server import wait_for
from support.web_server import Way, general, web_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("models arrive"),
]

KIB = 1024
AWAY_S = 60.0
#: A sample; all the others are in the sweep.
ORDINARY = {("rename,renameat2", False), ("rmdir", False), ("fsync", True)}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server, which serves through all of these tests."""
    with served(tmp_path_factory.mktemp("story") / "server_path") as found:
        yield found


@pytest.fixture(scope="module")
def web(story: Served) -> Iterator[ServedFolder]:
    """The remote, which a web server shows; a monitor of this machine sees it as `remote`."""
    files = story.folder.with_name("product_path")
    with running(web_folder(files)) as found:
        (story.folder / "remote").symlink_to(files)
        yield found


def watching(story: Served, web: ServedFolder, *more: str) -> AbstractContextManager[Monitor]:
    return monitor(story.folder, web.source, *more)


def test_a_damaged_archive_fails_no_prediction(story: Served, web: ServedFolder) -> None:
    with story.under_load(), watching(story, web) as running_:
        good = story.arrive(web)
        story.producer.train()
        plain, packed = story.producer.packed(gzipped=False), story.producer.packed()
        weights = story.producer.files()[WEIGHTS]
        for data, done, told in (
            (cut_at_a_member(plain), b"cut at a member", "cut short"),
            (packed[:-20], b"cut", "cut short"),
            (flipped(plain, weights), promise(plain), "has the sha256"),
            (flipped(packed, packed[-8:]), b"its CRC", "damaged"),
            (b"<html>502 Bad Gateway</html>", b"page", "no archive"),
        ):
            web.put(ARCHIVE, data)
            web.put(DONE, done)
            running_.wait_for_line(told)
            assert story.answers() == good
        story.arrive(web)


def test_a_done_file_before_its_archive_fails_no_prediction(
    story: Served, web: ServedFolder
) -> None:
    with story.under_load(), watching(story, web) as running_:
        good = story.arrive(web)
        number = story.producer.train()
        archive = story.producer.packed()
        web.put(DONE, promise(archive))
        running_.wait_for_line("not published")
        (web.folder / ARCHIVE).unlink()
        running_.wait_for_line("A producer writes the model first")
        assert story.answers() == good
        web.put(ARCHIVE, archive)
        story.wait_for(number)


def test_an_archive_that_is_replaced_while_it_is_pulled_fails_no_prediction(
    story: Served, web: ServedFolder
) -> None:
    """Its producer writes over it, in place, as many do."""
    with story.under_load(), Way(web.port) as way:
        way.let_through = 100 * KIB
        story.producer.produce(web, filling=os.urandom(400 * KIB))
        with monitor(story.folder, general(way.port)) as running_:
            assert way.frozen.wait(60)
            number = story.producer.produce(web, filling=os.urandom(300 * KIB))
            way.release()
            story.wait_for(number)
            assert "thrown away" in running_.log or "broke off" in running_.log, running_.log


def test_a_remote_that_is_away_for_a_minute_fails_no_prediction(
    story: Served, web: ServedFolder
) -> None:
    with story.under_load(), watching(story, web, "--interval", "2") as running_:
        good = story.arrive(web)
        web.stop()
        begun = time.monotonic()
        running_.wait_for_line("cannot be reached", 3)
        number = story.producer.produce(web)
        wait_for("the minute", lambda: time.monotonic() - begun > AWAY_S, 2 * AWAY_S)
        assert story.answers() == good
        web.start()
        story.wait_for(number)


def test_a_remote_that_freezes_within_an_answer_fails_no_prediction(
    story: Served, web: ServedFolder
) -> None:
    with (
        story.under_load(),
        Way(web.port) as way,
        monitor(story.folder, general(way.port), "--stall_timeout", "2") as running_,
    ):
        good = story.arrive(web)
        way.let_through = 100 * KIB
        number = story.producer.produce(web, filling=os.urandom(400 * KIB))
        running_.wait_for_line("no byte came for 2 s")
        assert story.answers() == good
        way.release()
        story.wait_for(number)


def test_a_monitor_that_is_killed_in_a_pull_fails_no_prediction(
    story: Served, web: ServedFolder
) -> None:
    with story.under_load():
        good = story.answers()
        number = story.producer.produce(web, filling=os.urandom(400 * KIB))
        with Way(web.port) as way:
            way.let_through = 100 * KIB
            killed = Monitor(arguments_for(general(way.port)), story.folder, {})
            assert way.frozen.wait(60)
            assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
        assert story.answers() == good
        with watching(story, web):
            story.wait_for(number)


@pytest.mark.parametrize("free", [0, 64 * KIB], ids=["pulled", "unpacked"])
def test_a_full_disk_fails_no_prediction(free: int, web: ServedFolder, tmp_path: Path) -> None:
    """Full before the archive is there, or before what is in it is."""
    with (
        small_disk(tmp_path / "server_path", "8m") as disk,
        served(disk) as story,
        story.under_load(),
        watching(story, web) as running_,
    ):
        good = story.arrive(web)
        with filled(disk, but=free):
            number = story.producer.produce(web, filling=bytes(400 * KIB))
            running_.wait_for_line("no space left")
            assert story.answers() == good
        story.wait_for(number)


@pytest.mark.parametrize(
    ("call", "children"),
    [
        pytest.param(call, children, marks=[pytest.mark.sweep] * ((call, children) not in ORDINARY))
        for call, children in (*((call, False) for call in CALLS), ("fsync", True), ("write", True))
    ],
)
def test_a_monitor_that_is_killed_at_any_system_call_fails_no_prediction(
    call: str, children: bool, story: Served, web: ServedFolder, tmp_path: Path
) -> None:
    """Each run is killed at the Nth of these calls, and the next one brings the model.

    With `children` it is of all its processes the one that comes to it, as what reads or unpacks.
    """
    with story.under_load():
        produced = story.producer.produce(web)
        first = first_in(story.folder, call, tmp_path / "calls")
        number, kills, killed = 1 if children else first, 0, True
        while killed:
            before = produced
            story.wait_for(before)
            produced = story.producer.produce(web)
            killed = killed_at(story.folder, call, number, children=children)
            assert story.answers() in {before, produced}
            assert look_once(story.folder) == 0
            number, kills = number + 1, kills + killed
        story.wait_for(produced)
    assert kills
    assert not leftovers(story.folder)


def test_a_torn_model_would_be_seen(tmp_path: Path) -> None:
    """The control: the graph of one model with the weights of the next, said to be whole."""
    with served(tmp_path / "server_path") as story:
        story.producer.train()
        model = story.folder / MODEL
        (model / WEIGHTS).write_bytes(story.producer.files()[WEIGHTS])
        (model / TIMESTAMP).touch()

        def serves() -> bool:
            newest = story.server.get("/rollouts").json()["rollouts"][0]
            return bool(newest["to"]["generation"] == 2 and newest["state"] == "succeeded")

        wait_for("it to serve", serves)
        with pytest.raises(AssertionError, match="torn: a graph of model 0"):
            story.answers()
        with pytest.raises(AssertionError, match="torn"), story.under_load():
            pass
