"""A worker as the node sees it: what it says of its code, and how its batches are counted."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from modelcloud.codecs.media import FLAG_WRAPPED
from modelcloud.dataplane import messages
from modelcloud.dataplane.frames import HEADER_SIZE, Kind, pack_header, unpack_header
from support.projects import Project
from support.worker import PATIENCE_S, WorkerProcess, worker

MODEL = """
    import modelcloud
    from modelcloud.data_types import number, text

    open("imported", "a").write("x")

    @modelcloud.setup(options={
        "weights": text, "scale": number(default=3), "name": text(default="a"),
    })
    def setup(options):
        open("loaded", "a").write("x")
        return options["scale"]

    @modelcloud.command("go", inputs={"n": number}, outputs={"y": number},
                        batch=modelcloud.Batch(max_size=4, max_wait_ms=5000))
    def go(model, items):
        return [item["n"] * model for item in items]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = Project(folder, tmp_path / "staged")
    made.write("model.py", dedent(MODEL))
    return made


def probe(project: Project, tmp_path: Path, **given: Any) -> Any:
    """What a probe of the project says; and that it ends when told to."""
    with worker(project.keep(probe=True, **given), tmp_path) as running:
        while isinstance(message := running.hear(), messages.Progress):
            pass
        if isinstance(message, messages.LoadFailed):
            assert running.wait() != 0
            return message
        running.send(messages.Ping(seq=7))
        assert running.hear() == messages.Pong(seq=7)
        running.send(messages.Stop())
        assert running.wait() == 0
    return message


def test_a_probe_says_what_the_code_offers_and_loads_no_model(
    project: Project, tmp_path: Path
) -> None:
    ready = probe(project, tmp_path)
    assert [command["name"] for command in ready.signature["commands"]] == ["go"]
    assert [option["name"] for option in ready.signature["options"]] == ["weights", "scale", "name"]
    assert ready.signature["optionValues"] == {"scale": 3, "name": "a"}
    assert (project.folder / "imported").read_text() == "x"
    assert not (project.folder / "loaded").exists()
    assert not (tmp_path / "w.sock").exists()


def test_options_given_to_a_probe_are_held_to_their_types(project: Project, tmp_path: Path) -> None:
    ready = probe(project, tmp_path, options={"scale": 5})
    assert ready.signature["optionValues"] == {"scale": 5, "name": "a"}


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("import nothing_of_that_name\n", {}, "nothing_of_that_name"),
        ("x = 1\n", {}, "no command"),
        ("def f(:\n", {}, "syntax error"),
        (dedent(MODEL), {"scale": "much"}, "option scale: got"),
        (dedent(MODEL), {"size": 1}, "option size: got an option that is not declared"),
    ],
)
def test_a_probe_refuses_what_cannot_be_served(
    project: Project, tmp_path: Path, text: str, options: dict[str, Any], says: str
) -> None:
    project.write("model.py", text)
    failed = probe(project, tmp_path, options=options)
    assert isinstance(failed, messages.LoadFailed)
    assert says in failed.message


def test_a_probe_of_code_that_ends_the_process_is_seen_to_end(
    project: Project, tmp_path: Path
) -> None:
    project.write("model.py", "import os\nos._exit(3)\n")
    with worker(project.keep(probe=True), tmp_path) as running:
        assert isinstance(running.hear(), messages.Progress)
        assert running.hear() is None
        assert running.wait() == 3


def test_a_probe_ends_with_its_node(project: Project, tmp_path: Path) -> None:
    with worker(project.keep(probe=True), tmp_path) as running:
        running.until(messages.Ready)
        running.hang_up()
        assert running.wait() != 0


class Gateway:
    """The far end of a worker's frames."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))
        self._data = b""
        next(self.answers())  # its hello

    def close(self) -> None:
        self._socket.close()

    def ask(self, *bodies: bytes, codec: int = 0) -> None:
        """Several requests in one write."""
        frames = [
            pack_header(len(body), rid, Kind.REQUEST, codec, 0) + body
            for rid, body in enumerate(bodies, 1)
        ]
        self._socket.sendall(b"".join(frames))

    def answers(self) -> Iterator[bytes]:
        """Bodies of the frames that come."""
        while True:
            while (
                len(self._data) < HEADER_SIZE
                or len(self._data) < HEADER_SIZE + (unpack_header(self._data, 0)[0])
            ):
                self._data += self._socket.recv(65536)
            end = HEADER_SIZE + unpack_header(self._data, 0)[0]
            body, self._data = self._data[HEADER_SIZE:end], self._data[end:]
            yield body


def pong(running: WorkerProcess) -> tuple[int, int]:
    running.send(messages.Ping(seq=1))
    told = running.until(messages.Pong)
    return told.batches, told.batched


def test_a_worker_counts_its_batches_and_wraps_its_answers(
    project: Project, tmp_path: Path
) -> None:
    with worker(project.keep(options={"weights": "w"}), tmp_path) as running:
        running.until(messages.Ready)
        assert pong(running) == (0, 0)  # the warm-up is none of it
        with closing(Gateway(tmp_path / "w.sock")) as gateway:
            gateway.ask(*(b'{"n": %d}' % n for n in range(4)), codec=FLAG_WRAPPED)
            answers = gateway.answers()
            got = [json.loads(next(answers)) for _ in range(4)]
        assert got == [{"message": "SUCCESS", "code": 0, "data": {"y": 3 * n}} for n in range(4)]
        assert pong(running) == (1, 4)
        running.send(messages.Stop())
        assert running.wait() == 0
