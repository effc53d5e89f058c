"""Whatever goes wrong with the remote or the disk, the local model stays whole, and it heals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.disk import small_disk
from support.ftp_server import PASSWORD, ftp_folder
from support.marks import MARK, living
from support.monitored import (
    ARCHIVE,
    DONE,
    MODEL,
    Folder,
    Monitor,
    Reader,
    arguments_for,
    cut_at_a_member,
    flipped,
    leftovers,
    monitor,
    once,
    packed,
    produce,
    promise,
    version_of,
)
from support.served_folders import ServedFolder, running
from support.server import wait_for
from support.web_server import Way, general, web_folder

pytestmark = pytest.mark.xdist_group("monitor")

PUBLISHED = "update model timestamp"
KIB = 1024


@pytest.fixture
def web(tmp_path: Path) -> Iterator[ServedFolder]:
    """A web server that has version 1."""
    with running(web_folder(tmp_path / "remote")) as served:
        produce(served, 1)
        yield served


def local_source(folder: Folder) -> list[str]:
    return ["--type", "local", "--remote_path", str(folder.folder)]


def test_an_archive_that_is_cut_or_damaged_is_refused_and_the_next_one_taken(
    web: ServedFolder, tmp_path: Path
) -> None:
    plain = packed(2, gzipped=False, filling=b"filled" * 100)
    page = b"<html>502 Bad Gateway</html>"
    with Reader(tmp_path / MODEL) as reader, monitor(tmp_path, web.source) as running_:
        running_.wait_for_line(PUBLISHED)
        for data, done, told in (
            (cut_at_a_member(plain), b"cut at a member", "cut short"),
            (packed(2)[:-20], b"cut", "cut short"),
            (flipped(plain, b"filled"), promise(plain), "has the sha256"),
            (plain[:-KIB], promise(plain), "bytes, by its done-file"),
            (page, b"page", "no archive"),
            (packed(2), b'{"sha256": "12', "begins like JSON"),
        ):
            web.put(ARCHIVE, data)
            web.put(DONE, done)
            running_.wait_for_line(told)
            assert version_of(tmp_path / MODEL) == 1
        produce(web, 2)
        running_.wait_for_line(PUBLISHED, 2)
    assert reader.torn == []
    assert reader.versions == [1, 2]


def test_a_refused_model_is_not_pulled_at_every_look(web: ServedFolder, tmp_path: Path) -> None:
    with monitor(tmp_path, web.source, "--interval", "1", "--debug") as running_:
        running_.wait_for_line(PUBLISHED)
        web.put(ARCHIVE, b"nothing")
        web.put(DONE, b"2")
        running_.wait_for_line("is the one that was refused", 3)
        pulls = sum("pull remote model" in line for line in running_.lines)
        looks = sum("sleep" in line for line in running_.lines)
        assert pulls < looks
        produce(web, 2, b"3")
        running_.wait_for_line(PUBLISHED, 2)


def test_a_digest_beside_the_model_is_compared_too(web: ServedFolder, tmp_path: Path) -> None:
    digest = promise(packed(1)).decode().split('"')[3]
    web.put(f"{ARCHIVE}.sha256", f"{digest}  {ARCHIVE}\n".encode())
    done = once(tmp_path, web.source)
    assert done.process.returncode == 0
    assert "was not checked" not in done.log
    web.put(ARCHIVE, packed(2))
    web.put(DONE, b"2")
    done = once(tmp_path, web.source)
    assert done.process.returncode == 1
    assert "by its producer" in done.log
    assert version_of(tmp_path / MODEL) == 1


def test_a_done_file_that_comes_before_its_model_waits_for_it(
    web: ServedFolder, tmp_path: Path
) -> None:
    with monitor(tmp_path, web.source) as running_:
        running_.wait_for_line(PUBLISHED)
        archive = packed(2)
        web.put(DONE, promise(archive))  # the model is still the old one
        running_.wait_for_line("not the one that the done-file means")
        assert version_of(tmp_path / MODEL) == 1
        (web.folder / ARCHIVE).unlink()
        running_.wait_for_line("A producer writes the model first")
        web.put(ARCHIVE, archive)
        running_.wait_for_line(PUBLISHED, 2)
        assert version_of(tmp_path / MODEL) == 2


def test_a_model_that_is_replaced_while_it_is_pulled_is_thrown_away(
    web: ServedFolder, tmp_path: Path
) -> None:
    (web.folder / ARCHIVE).write_bytes(packed(1, filling=os.urandom(400 * KIB)))
    with Way(web.port) as way, Reader(tmp_path / MODEL) as reader:
        way.let_through = 100 * KIB
        with monitor(tmp_path, general(way.port)) as running_:
            assert way.frozen.wait(30)
            web.put(f"{ARCHIVE}.new", packed(2, filling=os.urandom(300 * KIB)))
            (web.folder / f"{ARCHIVE}.new").replace(web.folder / ARCHIVE)
            web.put(DONE, b"2")
            way.release()
            running_.wait_for_line("changed while it was pulled: thrown away")
            running_.wait_for_line(PUBLISHED)
            assert version_of(tmp_path / MODEL) == 2
    assert reader.torn == []
    assert reader.versions == [2]


def test_two_models_within_one_second_and_of_one_size_are_not_missed(tmp_path: Path) -> None:
    """Times as a server shows that counts seconds: the same for both done-files."""
    files = Folder(tmp_path / "remote")
    second = time.time_ns() // 10**9 * 10**9
    with running(ftp_folder(files.folder)) as ftp:
        env = {"MODELCLOUD_FTP_PASSWORD": PASSWORD}
        with monitor(tmp_path, ftp.source, env=env) as running_:
            for number, version in enumerate((1, 2), 1):
                produce(files, version, done=b"")
                for name in (ARCHIVE, DONE):
                    os.utime(files.folder / name, ns=(second, second))
                (files.folder / ARCHIVE).rename(files.folder / "x")
                (files.folder / ARCHIVE).write_bytes(packed(version))
                os.utime(files.folder / ARCHIVE, ns=(second, second))
                running_.wait_for_line(PUBLISHED, number)
                assert version_of(tmp_path / MODEL) == version


def test_a_server_that_was_away_is_no_trouble_once_it_is_back(
    web: ServedFolder, tmp_path: Path
) -> None:
    with Reader(tmp_path / MODEL) as reader, monitor(tmp_path, web.source) as running_:
        running_.wait_for_line(PUBLISHED)
        web.stop()
        running_.wait_for_line("cannot be reached", 3)
        produce(web, 2)
        web.start()
        running_.wait_for_line(PUBLISHED, 2)
    assert reader.torn == []
    assert reader.versions == [1, 2]


def test_a_server_that_freezes_within_an_answer_is_given_up(
    web: ServedFolder, tmp_path: Path
) -> None:
    with (
        Way(web.port) as way,
        monitor(tmp_path, general(way.port), "--stall_timeout", "1") as running_,
    ):
        running_.wait_for_line(PUBLISHED)
        web.put(ARCHIVE, packed(2, filling=os.urandom(400 * KIB)))
        way.let_through = 100 * KIB
        web.put(DONE, b"2")
        running_.wait_for_line("no byte came for 1 s")
        assert version_of(tmp_path / MODEL) == 1
        way.closes = True
        running_.wait_for_line("broke off its answer")
        way.release()
        running_.wait_for_line(PUBLISHED, 2)
        assert version_of(tmp_path / MODEL) == 2


def test_a_server_that_is_stopped_in_its_tracks_is_given_up(tmp_path: Path) -> None:
    """Of FTP, where the answer comes on a connection of its own."""
    with running(ftp_folder(tmp_path / "remote")) as ftp:
        produce(ftp, 1)
        env = {"MODELCLOUD_FTP_PASSWORD": PASSWORD}
        with monitor(tmp_path, ftp.source, "--stall_timeout", "1", env=env) as running_:
            running_.wait_for_line(PUBLISHED)
            ftp.freeze()
            produce(ftp, 2)
            begun = time.monotonic()
            assert running_.stop() == 0  # while it waits for an answer
            assert time.monotonic() - begun < 20
            ftp.thaw()
        assert once(tmp_path, ftp.source, env=env).process.returncode == 0
        assert version_of(tmp_path / MODEL) == 2


@pytest.mark.parametrize("full", ["--local_tmp_path", "--local_path"])
def test_a_full_disk_is_told_and_heals(full: str, web: ServedFolder, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "2m") as disk:
        local = disk if full == "--local_path" else tmp_path
        with monitor(tmp_path, web.source, full, disk) as running_:
            running_.wait_for_line(PUBLISHED)
            size = 4 * KIB * KIB
            data = (
                b"\0" * size if full == "--local_path" else os.urandom(size)
            )  # packs well, or not
            web.put(ARCHIVE, packed(2, filling=data))
            web.put(DONE, b"2")
            running_.wait_for_line("no space left")
            assert version_of(local / MODEL) == 1
            produce(web, 3)
            running_.wait_for_line(PUBLISHED, 2)
            assert version_of(local / MODEL) == 3
        assert not leftovers(local)


def test_a_signal_ends_a_pull_within_seconds_and_leaves_nothing(
    web: ServedFolder, tmp_path: Path
) -> None:
    web.put(ARCHIVE, packed(1, filling=os.urandom(400 * KIB)))
    with Way(web.port) as way:
        way.let_through = 100 * KIB
        begun = 0.0
        with monitor(tmp_path, general(way.port)):
            assert way.frozen.wait(30)
            begun = time.monotonic()
        assert time.monotonic() - begun < 10
    assert not (tmp_path / MODEL).exists()


def test_a_signal_at_any_moment_ends_it(tmp_path: Path) -> None:
    """Also one that comes together with an answer of the source."""
    files = Folder(tmp_path / "remote")
    produce(files, 1)
    for looks in range(3, 11):
        with monitor(tmp_path, local_source(files), "--interval", "0.01") as running_:
            running_.wait_for_line("sleep", looks)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_the_monitor_started_ends_with_it(number: int, tmp_path: Path) -> None:
    hadoop = tmp_path / "hadoop"
    hadoop.write_text("#!/bin/sh\nsleep 1000 & wait\n")
    hadoop.chmod(0o755)
    source = ["--type", "hdfs", "--hadoop_bin", str(hadoop), "--remote_path", "/"]
    mark = f"monitor-{os.getpid()}-{number}"
    started = Monitor(arguments_for(source), tmp_path, {MARK: mark})
    wait_for("the program", lambda: any("sleep 1000" in line for line in living(mark).values()))
    started.stop(number)
    wait_for("the end of all", lambda: not living(mark))


def test_what_a_killed_monitor_left_goes_with_the_next_one(
    web: ServedFolder, tmp_path: Path
) -> None:
    web.put(ARCHIVE, packed(1, filling=os.urandom(400 * KIB)))
    with Way(web.port) as way:
        way.let_through = 100 * KIB
        killed = Monitor(arguments_for(general(way.port)), tmp_path, {})
        assert way.frozen.wait(30)
        assert leftovers(tmp_path)
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    done = once(tmp_path, web.source)
    assert done.process.returncode == 0, done.log
    assert not leftovers(tmp_path)
    assert version_of(tmp_path / MODEL) == 1


def test_a_second_monitor_of_a_local_model_is_refused_by_name(
    web: ServedFolder, tmp_path: Path
) -> None:
    with monitor(tmp_path, web.source) as running_:
        running_.wait_for_line(PUBLISHED)
        second = once(tmp_path, web.source, "--local_tmp_path", "another")
        assert second.process.returncode == 1
        assert f"the model {tmp_path / MODEL} has another monitor already" in second.log
        assert str(running_.process.pid) in second.log


def test_a_model_above_the_limit_is_not_pulled_to_its_end(
    web: ServedFolder, tmp_path: Path
) -> None:
    web.put(ARCHIVE, packed(1, filling=os.urandom(400 * KIB)))
    done = once(tmp_path, web.source, "--max_size", "100k")
    assert done.process.returncode == 1
    assert "more than" in done.log
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("return 302 file:///etc/passwd;", "redirects to what is no http(s) URL"),
        ("return 302 $uri;", "redirects more than 3 times"),
        ("return 401;", "it wants a password"),
        ("return 500;", "the server answers 500"),
    ],
)
def test_what_a_web_server_should_not_answer_is_told(rule: str, told: str, tmp_path: Path) -> None:
    with running(web_folder(tmp_path / "remote", f"location / {{ {rule} }}")) as served:
        done = once(tmp_path, served.source)
    assert done.process.returncode == 1
    assert told in done.log


def test_the_address_in_an_answer_to_pasv_is_not_used(tmp_path: Path) -> None:
    """CVE-2021-4189: the data comes from the server, wherever its answer points."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as control, _listening("127.0.0.2") as elsewhere:
        port = elsewhere.getsockname()[1]
        said = f"227 Entering Passive Mode (127,0,0,2,{port >> 8},{port & 255})"
        answers = {
            "USER": "331 more", "PASS": "230 in", "TYPE": "200 ok", "OPTS": "200 ok",
            "MLST": "250-\r\n type=file;size=1;modify=20200101000000; x\r\n250 end", "PASV": said,
        }  # fmt: skip

        def serve() -> None:
            while True:
                try:
                    made, _ = control.accept()
                except OSError:  # the test is over
                    return
                with made, made.makefile("r") as lines:
                    made.sendall(b"220 here\r\n")
                    for line in lines:
                        asked.append(line.split()[0])
                        made.sendall(answers.get(asked[-1], "425 no").encode() + b"\r\n")

        threading.Thread(target=serve, daemon=True).start()
        source = ["--type", "ftp", "--ftp_host", "127.0.0.1", "--remote_path", "/"]
        address = str(control.getsockname()[1])
        once(tmp_path, [*source, "--ftp_port", address])
        assert "PASV" in asked
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
        control.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    with socket.create_server((address, 0)) as server:
        yield server


def test_a_lock_that_a_dead_monitor_held_is_free(tmp_path: Path) -> None:
    beside = tmp_path / f".{MODEL}.monitor"
    beside.mkdir()
    with (beside / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files = Folder(tmp_path / "remote")
        produce(files, 1)
        assert "another monitor" in once(tmp_path, local_source(files)).log
    assert once(tmp_path, local_source(files)).process.returncode == 0
    wait_for("the model", lambda: version_of(tmp_path / MODEL) == 1)
