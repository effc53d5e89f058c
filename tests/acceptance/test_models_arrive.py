"""Models arrive by themselves: a producer trains, a monitor brings, a server replaces what serves.

Server and monitor are two processes with the command lines of Paddle Serving's own example. Each
answer tells which model it is of, by both of the model's files and by what that model predicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ftp_server, s3_server, sftp_server
from support.hdfs_server import Hdfs, HdfsFolder, hdfs_server
from support.housing import Served, served
from support.monitored import MODEL, monitor
from support.paddle_producer import paddle_line
from support.places import Remote, remote
from support.runtime_envs import interpreter

pytestmark = pytest.mark.timeout(900)

UPDATES = 20
#: Of Paddle, whose workers take seconds to start.
FEWER_UPDATES = 5
UGI = "modelcloud,s3cret-ugi-password"
SECRETS = (ftp_server.PASSWORD, sftp_server.PASSWORD, s3_server.SECRET, UGI.partition(",")[2])


def models_arrive(story: Served, there: Remote, updates: int) -> None:
    """The story, and what must be seen of it."""
    with monitor(story.folder, there.source, "--debug", env=there.env) as running:
        with story.under_load():
            for _ in range(updates):
                story.arrive(there.place)
        rollouts = story.server.get("/rollouts").json()["rollouts"]
    by_generation = story.producer.by_generation(story.samples)
    numbers = [number for _, number in sorted(by_generation.items())]
    assert numbers == list(range(updates + 1)), "a model that was not seen, or seen twice"
    assert {rollout["state"] for rollout in rollouts} == {"succeeded"}
    for line in ("donefile(donefile) changed.", f"update local model({MODEL})."):
        assert sum(line in said for said in running.lines) >= updates
    assert not any(secret in running.log for secret in SECRETS)


@pytest.mark.slow
@pytest.mark.xdist_group("models arrive")
@pytest.mark.parametrize("kind", ["ftp", "general", "s3", "sftp"])
def test_twenty_models_arrive_under_load_and_no_request_fails(kind: str, tmp_path: Path) -> None:
    with remote(kind, tmp_path) as there, served(tmp_path / "server_path") as story:
        models_arrive(story, there, UPDATES)


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with hdfs_server(tmp_path_factory.mktemp("hdfs")) as server:
        yield server


@pytest.mark.hdfs
@pytest.mark.xdist_group("hdfs")
@pytest.mark.timeout(1800)  # each call of the program starts a Java
def test_twenty_models_arrive_from_hdfs_through_hadoop_bin(hdfs: Hdfs, tmp_path: Path) -> None:
    place = HdfsFolder(hdfs, "/", tmp_path / "product_path")
    source = [*place.source, "--fs_name", hdfs.name]
    there = Remote(place, source, {"MODELCLOUD_FS_UGI": UGI})
    with served(tmp_path / "server_path") as story:
        models_arrive(story, there, UPDATES)


@pytest.mark.runtimes
def test_models_of_paddle_arrive_as_a_folder_of_paddle_serving(tmp_path: Path) -> None:
    python = interpreter("paddle")
    with (
        paddle_line(python, tmp_path / "product_path") as line,
        remote("general", tmp_path) as there,
        served(tmp_path / "server_path", line, "--python", python) as story,
    ):
        models_arrive(story, there, FEWER_UPDATES)
