"""A monitor on a real HDFS, through its own program and through WebHDFS."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hdfs_server import Hdfs, HdfsFolder, hdfs_server
from support.monitored import (
    ARCHIVE,
    DONE,
    MODEL,
    Reader,
    files_of,
    leftovers,
    monitor,
    once,
    packed,
    produce,
    promise,
    version_of,
)

pytestmark = [pytest.mark.hdfs, pytest.mark.xdist_group("hdfs"), pytest.mark.timeout(400)]

PUBLISHED = "update model timestamp"
UGI = "modelcloud,s3cret-ugi-password"


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with hdfs_server(tmp_path_factory.mktemp("hdfs")) as server:
        yield server


def folder_of(hdfs: Hdfs, tmp_path: Path) -> HdfsFolder:
    return HdfsFolder(hdfs, f"/{tmp_path.name}", tmp_path / "upload")


def test_every_new_model_takes_the_old_ones_place_through_hadoop_bin(
    hdfs: Hdfs, tmp_path: Path
) -> None:
    remote = folder_of(hdfs, tmp_path)
    source = [*remote.source, "--fs_name", hdfs.name]
    local, env = tmp_path / MODEL, {"MODELCLOUD_FS_UGI": UGI}
    with Reader(local) as reader, monitor(tmp_path, source, "--debug", env=env) as running:
        for version in range(1, 4):
            archive = packed(version)
            produce(remote, version, promise(archive) if version == 2 else b"")
            running.wait_for_line(PUBLISHED, version, 120)
            assert version_of(local) == version
    assert reader.torn == []
    assert reader.versions == [1, 2, 3]
    prefix = f"check cmd: {hdfs.hadoop} fs -Dfs.default.name={hdfs.name} -stat"
    assert prefix in running.log
    assert "pull cmd: " in running.log
    assert "s3cret" not in running.log
    again = once(tmp_path, source)
    assert again.process.returncode == 0, again.log
    assert "changed" not in again.log


def test_every_new_model_takes_the_old_ones_place_through_webhdfs(
    hdfs: Hdfs, tmp_path: Path
) -> None:
    remote = folder_of(hdfs, tmp_path)
    address = f"webhdfs://127.0.0.1:{hdfs.web_port}{remote.path}"
    source = ["--type", "webhdfs", "--remote_path", address, "--storage_option", "user=root"]
    with Reader(tmp_path / MODEL) as reader, monitor(tmp_path, source) as running:
        for version in (1, 2):
            produce(remote, version)
            running.wait_for_line(PUBLISHED, version, 120)
    assert reader.torn == []
    assert reader.versions == [1, 2]


def test_a_model_that_is_a_folder_comes_through_both(hdfs: Hdfs, tmp_path: Path) -> None:
    remote = folder_of(hdfs, tmp_path)
    folder = tmp_path / "folder"
    for name, data in files_of(1, b"x" * 200_000).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert hdfs.fs("-put", folder, f"{remote.path}/plain").returncode == 0
    remote.put(DONE, b"")
    address = f"webhdfs://127.0.0.1:{hdfs.web_port}{remote.path}"
    web = ["--type", "webhdfs", "--remote_path", address, "--storage_option", "user=root"]
    for source in (remote.source, web):
        done = once(tmp_path, source, model="plain", unpacked="")
        assert done.process.returncode == 0, done.log
        assert "update local model" in done.log
        assert version_of(tmp_path / MODEL) == 1


def test_what_is_wrong_is_told(hdfs: Hdfs, tmp_path: Path) -> None:
    remote = folder_of(hdfs, tmp_path)
    done = once(tmp_path, remote.source)
    assert done.process.returncode == 1
    assert "there is no done-file(donefile)" in done.log
    remote.put(DONE, b"")
    assert "A producer writes the model first" in once(tmp_path, remote.source).log
    elsewhere = [*remote.source, "--fs_name", "hdfs://127.0.0.1:1"]
    done = once(tmp_path, elsewhere)
    assert done.process.returncode == 1
    assert "Connection refused" in done.log
    assert "is the file system up, and --fs_name right?" in done.log
    missing = ["--type", "afs", "--hadoop_bin", "/no/hadoop", "--remote_path", "/"]
    assert "--hadoop_bin /no/hadoop cannot be run" in once(tmp_path, missing).log


def test_a_data_node_that_hangs_is_given_up_and_its_return_heals(
    hdfs: Hdfs, tmp_path: Path
) -> None:
    """`hadoop fs -get` waits for it without end."""
    remote = folder_of(hdfs, tmp_path)
    produce(remote, 1)
    with monitor(tmp_path, remote.source, "--stall_timeout", "4") as running:
        running.wait_for_line(PUBLISHED, 1, 120)
        remote.put(ARCHIVE, packed(2))
        remote.put("next", promise(packed(2)))
        hdfs.data_node.send_signal(signal.SIGSTOP)
        try:
            assert hdfs.fs("-rm", f"{remote.path}/{DONE}").returncode == 0
            assert hdfs.fs("-mv", f"{remote.path}/next", f"{remote.path}/{DONE}").returncode == 0
            running.wait_for_line("did not answer", 1, 120)
            assert version_of(tmp_path / MODEL) == 1
        finally:
            hdfs.data_node.send_signal(signal.SIGCONT)
        running.wait_for_line(PUBLISHED, 2, 120)
        assert version_of(tmp_path / MODEL) == 2
    assert not leftovers(tmp_path)
