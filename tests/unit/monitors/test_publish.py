"""A model takes the local one's place in one step, and nothing of the old one stays."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from modelcloud.errors import Conflict, UsageError
from modelcloud.monitors import publish
from modelcloud.monitors.publish import LocalModel


def model_in(local: LocalModel, **files: str) -> Path:
    folder = local.waiting() / "model"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def there(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (folder / "m").iterdir()}


def test_the_new_model_replaces_the_old_one_exactly(tmp_path: Path) -> None:
    local = LocalModel(tmp_path, "m", "stamp")
    assert not local.is_there()
    local.publish(model_in(local, a="1", stale="1"))
    assert there(tmp_path) == {"a": "1", "stale": "1", "stamp": ""}
    local.publish(model_in(local, a="2"))
    assert there(tmp_path) == {"a": "2", "stamp": ""}
    assert local.is_there()


def test_who_has_the_old_model_open_still_reads_all_of_it(tmp_path: Path) -> None:
    local = LocalModel(tmp_path, "m", "stamp")
    local.publish(model_in(local, a="1"))
    held = os.open(tmp_path / "m", os.O_RDONLY)
    local.publish(model_in(local, a="2"))
    file = os.open("a", os.O_RDONLY, dir_fd=held)
    assert os.read(file, 9) == b"1"
    os.close(file)
    os.close(held)


def test_every_timestamp_is_later_in_whole_seconds_too(tmp_path: Path) -> None:
    local = LocalModel(tmp_path, "m", "stamp")
    stamps = []
    for number in range(3):
        local.publish(model_in(local, a=str(number)))
        stamps.append(int((tmp_path / "m" / "stamp").stat().st_mtime))
    assert stamps == sorted(set(stamps))
    assert stamps[0] - time.time() < 1


def test_a_file_system_that_cannot_exchange_is_served_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(publish, "exchange", refuse)
    local = LocalModel(tmp_path, "m", "stamp")
    for number in range(2):
        local.publish(model_in(local, a=str(number)))
    assert there(tmp_path) == {"a": "1", "stamp": ""}
    assert "cannot exchange" in caplog.text


def test_a_model_that_was_only_put_aside_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames of a file system that cannot exchange."""
    local = LocalModel(tmp_path, "m", "stamp")
    local.publish(model_in(local, a="1"))
    (tmp_path / "m").rename(tmp_path / ".m.monitor" / "previous")
    os.close(local._lock)
    LocalModel(tmp_path, "m", "stamp")
    assert there(tmp_path) == {"a": "1", "stamp": ""}


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "a").write_text("1")
    (tmp_path / "m").symlink_to("first")
    local = LocalModel(tmp_path, "m", "stamp")
    local.publish(model_in(local, a="2"))
    local.waiting()
    assert there(tmp_path) == {"a": "2", "stamp": ""}
    assert (tmp_path / "first" / "a").read_text() == "1"


def test_the_folder_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir(mode=0o700)
    (tmp_path / "m").chmod(0o2750)
    local = LocalModel(tmp_path, "m", "stamp")
    local.publish(model_in(local, a="2"))
    assert (tmp_path / "m").stat().st_mode & 0o7777 == 0o2750


def test_a_mount_point_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    mounted = subprocess.run(
        ["/bin/mount", "--bind", tmp_path / "m", tmp_path / "m"], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        local = LocalModel(tmp_path, "m", "stamp")
        with pytest.raises(UsageError, match="mount the folder above it"):
            local.publish(model_in(local, a="2"))
        assert there(tmp_path) == {"a": "1"}
    finally:
        subprocess.run(["/bin/umount", tmp_path / "m"], check=True)


def test_a_model_with_a_folder_for_a_timestamp_is_refused(tmp_path: Path) -> None:
    local = LocalModel(tmp_path, "m", "stamp")
    folder = model_in(local)
    (folder / "stamp").mkdir()
    with pytest.raises(UsageError, match="a folder named stamp"):
        local.publish(folder)


def test_a_second_holder_is_refused_and_what_was_left_is_swept(tmp_path: Path) -> None:
    local = LocalModel(tmp_path, "m", "stamp")
    left = local.waiting()
    with pytest.raises(Conflict, match=f"process {os.getpid()}"):
        LocalModel(tmp_path, "m", "stamp")
    assert left.exists()
    os.close(local._lock)
    LocalModel(tmp_path, "m", "stamp")
    assert not left.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0"])
def test_only_a_plain_name_is_accepted(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="local_model_name"):
        LocalModel(tmp_path, name, "stamp")
    with pytest.raises(UsageError, match="local_timestamp_file"):
        LocalModel(tmp_path, "m", name)
