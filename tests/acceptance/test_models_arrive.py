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
from support.housing import Producer
from support.load import failures, load, mixed
from support.monitored import MODEL, monitor
from support.places import Remote, remote
from support.server import Server, serve, wait_for

pytestmark = [pytest.mark.timeout(900)]

UPDATES = 20
#: Of one model, from its done-file to its first answer; a machine may be busy.
ARRIVAL_S = 120.0
UGI = "modelcloud,s3cret-ugi-password"
SECRETS = (ftp_server.PASSWORD, sftp_server.PASSWORD, s3_server.SECRET, UGI.partition(",")[2])


def serves(server: Server, producer: Producer, number: int) -> bool:
    """Whether this model answers."""
    answer = server.post("/predict", producer.question)
    assert answer.status_code == 200, answer.text
    return producer.whole(answer.json()["outputs"]) == number


def twenty_models_arrive(there: Remote, folder: Path) -> None:
    """The whole story, and what must be seen of it."""
    folder.mkdir()
    producer = Producer()
    producer.write(folder / MODEL)
    with (
        serve("--model", MODEL, "--thread", "10", cwd=folder) as server,
        monitor(folder, there.source, "--debug", env=there.env) as running,
        load(server.port, "/predict", producer.question, rate=50.0) as requests,
    ):
        for _ in range(UPDATES):
            number = producer.produce(there.place)
            wait_for(
                f"model {number} to serve", lambda: serves(server, producer, producer.number),
                ARRIVAL_S,
            )  # fmt: skip
        rollouts = server.get("/rollouts").json()["rollouts"]
    samples = requests.finish()
    assert failures(samples) == []
    assert mixed(samples) == []
    by_generation = producer.answered(samples)
    numbers = [number for _, number in sorted(by_generation.items())]
    assert numbers == list(range(UPDATES + 1)), "a model that was not seen, or seen twice"
    assert {rollout["state"] for rollout in rollouts} == {"succeeded"}
    for line in ("donefile(donefile) changed.", f"update local model({MODEL})."):
        running.wait_for_line(line, UPDATES)
    assert not any(secret in running.log for secret in SECRETS)


@pytest.mark.slow
@pytest.mark.xdist_group("models arrive")
@pytest.mark.parametrize("kind", ["ftp", "general", "s3", "sftp"])
def test_twenty_models_arrive_under_load_and_no_request_fails(kind: str, tmp_path: Path) -> None:
    with remote(kind, tmp_path) as there:
        twenty_models_arrive(there, tmp_path / "server_path")


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with hdfs_server(tmp_path_factory.mktemp("hdfs")) as server:
        yield server


@pytest.mark.hdfs
@pytest.mark.xdist_group("hdfs")
def test_twenty_models_arrive_from_hdfs_through_hadoop_bin(hdfs: Hdfs, tmp_path: Path) -> None:
    place = HdfsFolder(hdfs, "/", tmp_path / "product_path")
    source = [*place.source, "--fs_name", hdfs.name]
    there = Remote(place, source, {"MODELCLOUD_FS_UGI": UGI})
    twenty_models_arrive(there, tmp_path / "server_path")
