"""A monitor brings every new model, whole, from real servers of each kind."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from support import ftp_server, s3_server, sftp_server
from support.monitored import (
    DONE,
    MODEL,
    TIMESTAMP,
    Reader,
    files_of,
    monitor,
    once,
    packed,
    produce,
    promise,
    version_of,
)
from support.places import KINDS, remote

pytestmark = pytest.mark.xdist_group("monitor")

SECRETS = (ftp_server.PASSWORD, sftp_server.PASSWORD, s3_server.SECRET)


@pytest.mark.parametrize("kind", KINDS)
def test_every_new_model_takes_the_old_ones_place_whole(kind: str, tmp_path: Path) -> None:
    local = tmp_path / MODEL
    with remote(kind, tmp_path) as there, Reader(local) as reader:
        with monitor(tmp_path, there.source, "--debug", env=there.env) as running_:
            for version in range(1, 5):
                archive = packed(version)
                produce(there.place, version, promise(archive) if version % 2 else None)
                running_.wait_for_line("update model timestamp", version)
                assert version_of(local) == version
            with contextlib.suppress(FileNotFoundError):
                command = Path(f"/proc/{running_.process.pid}/cmdline").read_bytes()
                assert not any(secret.encode() in command for secret in SECRETS)
        again = once(tmp_path, there.source, env=there.env)
        assert again.process.returncode == 0, again.log
        assert "changed" not in again.log
    assert reader.torn == []
    assert reader.versions == [1, 2, 3, 4]
    assert not any(secret in running_.log for secret in SECRETS)


@pytest.mark.parametrize("kind", ["local", "ftp", "plain ftp", "sftp", "s3"])
def test_a_model_that_is_no_archive_may_be_a_folder(kind: str, tmp_path: Path) -> None:
    with remote(kind, tmp_path) as there:
        for version in (1, 2):
            for name, data in files_of(version, b"x" * 200_000).items():
                there.place.put(f"{MODEL}-{version}/{name}", data)
            there.place.put(DONE, b"")
            done = once(
                tmp_path, there.source, env=there.env, model=f"{MODEL}-{version}", unpacked=""
            )
            assert done.process.returncode == 0, done.log
            assert version_of(tmp_path / MODEL) == version


@pytest.mark.parametrize("kind", ["local", "general", "ftp", "sftp", "s3"])
def test_a_model_that_is_no_archive_may_be_a_file(kind: str, tmp_path: Path) -> None:
    with remote(kind, tmp_path) as there:
        there.place.put("model.onnx", b"first")
        there.place.put(DONE, b"")
        done = once(tmp_path, there.source, env=there.env, model="model.onnx", unpacked="")
        assert done.process.returncode == 0, done.log
    assert {file.name for file in (tmp_path / MODEL).iterdir()} == {"model.onnx", TIMESTAMP}
    assert (tmp_path / MODEL / "model.onnx").read_bytes() == b"first"


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_done_file_says_what_to_look_at(kind: str, tmp_path: Path) -> None:
    with remote(kind, tmp_path) as there:
        there.place.put("something-else", b"")
        done = once(tmp_path, there.source, env=there.env)
    assert done.process.returncode == 1
    assert "there is no done-file(donefile)" in done.log
    assert "--remote_donefile_name" in done.log


@pytest.mark.parametrize("kind", ["ftp", "sftp"])
def test_a_wrong_password_is_told_and_not_shown(kind: str, tmp_path: Path) -> None:
    wrong = "wr0ng-secret"
    with remote(kind, tmp_path) as there:
        if kind == "ftp":
            more = ["--ftp_password_file", str(tmp_path / "password")]
            (tmp_path / "password").write_text(f"{wrong}\n")
        else:
            more = ["--storage_option", f"password={wrong}"]
        done = once(tmp_path, there.source, "--debug", *more)
    assert done.process.returncode == 1
    assert "does not" in done.log.splitlines()[-1]
    assert wrong not in done.log


@pytest.mark.parametrize("kind", ["general", "ftp", "general ftp", "sftp"])
def test_a_server_that_is_not_there_says_so(kind: str, tmp_path: Path) -> None:
    with remote(kind, tmp_path) as there:
        source = there.source
    done = once(tmp_path, source)
    assert done.process.returncode == 1
    assert "ERROR" in done.log.splitlines()[-1]
    assert "cannot be reached" in done.log.splitlines()[-1]


def test_an_sftp_host_that_is_not_known_is_not_trusted(tmp_path: Path) -> None:
    with remote("sftp", tmp_path) as there:
        (tmp_path / "known").write_text("")
        done = once(tmp_path, there.source)
    assert done.process.returncode == 1
    assert "does not let us in" in done.log
    assert "key" in done.log
