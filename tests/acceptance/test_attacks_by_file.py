"""Attacks with names of files: uploads, artifacts, and what requests leave on the disk.

Rows 20, 21, 24 to 26 and 40 of the table of attacks, as far as a path can be named: traversal,
links that lead out, siblings whose name begins alike, NUL, endless names.
"""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import sockets
from support.server import Server, serve, start, wait_for

pytestmark = pytest.mark.xdist_group("attacks")

SECRET = "not for clients"
MODEL = """
from pathlib import Path
import modelcloud
from modelcloud.data_types import directory, file, text

kept = []

@modelcloud.setup(options={"start": text(default="")})
def setup(options):
    return None

@modelcloud.command("read", inputs={"file": file()}, outputs={"content": text, "path": text})
def read(model, inputs):
    return {"content": Path(inputs["file"]).read_text(), "path": inputs["file"]}

@modelcloud.command("keep", inputs={"file": file()}, outputs={"path": text})
def keep(model, inputs):
    kept.append(inputs["file"])
    return {"path": inputs["file"]}

@modelcloud.command("weights", inputs={"file": file(extension=".h5")}, outputs={"path": text})
def weights(model, inputs):
    return {"path": inputs["file"]}

@modelcloud.command("list", inputs={"folder": directory()}, outputs={"names": text})
def list_names(model, inputs):
    return {"names": " ".join(sorted(path.name for path in Path(inputs["folder"]).iterdir()))}
"""
OTHER = MODEL + "\nother = True\n"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upload area with good and bad things in it, an artifact root likewise, and secrets."""
    ground = tmp_path_factory.mktemp("files")
    area = ground / "up"
    (area / "folder").mkdir(parents=True)
    (area / "good.txt").write_text("fine")
    (area / "folder" / "deep.txt").write_text("deep")
    (area / "inside").symlink_to("good.txt")
    for outside in (ground / "up-evil", ground / "secrets", ground / "model-evil"):
        outside.mkdir()
        (outside / "secret.txt").write_text(SECRET)
        (outside / "model.py").write_text(OTHER)
    (area / "link.txt").symlink_to(ground / "secrets" / "secret.txt")
    (area / "linked").symlink_to(ground / "secrets")
    (area / "relative").symlink_to("../up-evil/secret.txt")
    (area / "loop").symlink_to("loop")
    (area / "dangling").symlink_to("nothing")
    (area / "self").symlink_to(".")
    os.mkfifo(area / "fifo")
    root = ground / "model"
    (root / "v2").mkdir(parents=True)
    (root / "model.py").write_text(MODEL)
    (root / "v2" / "model.py").write_text(OTHER)
    (root / "linked").symlink_to(ground / "model-evil")
    (root / "linked.py").symlink_to(ground / "model-evil" / "model.py")
    (root / "loop").symlink_to("loop")
    (root / "v3").mkdir()
    os.mkfifo(root / "v3" / "model.py")
    return ground


@pytest.fixture(scope="module")
def server(ground: Path) -> Iterator[Server]:
    """It was given the area by a relative path, and stands elsewhere than its workers might."""
    with serve(
        ground / "model" / "model.py", "--upload-dir", "up", "--replicas", "1", "--log-dir",
        ground / "logs", cwd=ground,
    ) as running:  # fmt: skip
        yield running


def test_a_file_of_the_area_can_be_named_relative_or_absolute_and_through_links_inside(
    server: Server, ground: Path
) -> None:
    real = str((ground / "up" / "good.txt").resolve())
    for name in ("good.txt", "./good.txt", "folder/../good.txt", real, "inside", "self/good.txt"):
        answer = server.post("/read", {"file": name})
        assert answer.json() == {"content": "fine", "path": real}, name
    assert server.post("/list", {"folder": "folder"}).json() == {"names": "deep.txt"}


def outside(ground: Path) -> list[str]:
    secret = str(ground / "secrets" / "secret.txt")
    return [
        "../secrets/secret.txt", "folder/../../secrets/secret.txt", secret, f"/{secret}",
        str(ground / "up" / ".." / "secrets" / "secret.txt"), "../up-evil/secret.txt",
        str(ground / "up-evil" / "secret.txt"), "link.txt", "linked/secret.txt", "relative",
        "linked/../secret.txt", "self/../../secrets/secret.txt", "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero", "/dev/stdin", "..", ".", "", "/", str(ground / "up"), "fifo", "folder", "loop",
        "dangling", "missing.txt", "\0", "good.txt\0", "good.txt\0.h5", "a" * 300, "a" * 4096,
        "a/" * 4096, "../" * 400 + "etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd",
        f"file://{secret}", "FILE:/etc/passwd", "..\\secrets\\secret.txt", "/proc/self/fd/0",
        "..%2fsecrets%2fsecret.txt", "/proc/1/root/etc/passwd", "\u2025/secrets/secret.txt",
        "\ufeff/etc/passwd",
    ]  # fmt: skip


def test_nothing_outside_the_area_can_be_named_nor_found_out(server: Server, ground: Path) -> None:
    (worker,) = server.pids("worker")
    for name in outside(ground):
        for command, field in (("/read", "file"), ("/list", "folder")):
            if command == "/list" and name in {"folder", ""}:
                continue
            answer = server.post(command, {field: name})
            assert answer.status_code == 400, (command, name, answer.text)
            assert SECRET not in answer.text
            assert answer.json()["field"] == field
    assert server.pids("worker") == [worker]


def test_whether_something_exists_outside_does_not_show(server: Server, ground: Path) -> None:
    def refusal(name: str) -> str:
        error: str = server.post("/read", {"file": name}).json()["error"]
        return error.replace(name, "…")

    there, not_there = (ground / "secrets" / name for name in ("secret.txt", "nosuch.txt"))
    assert refusal(str(there)) == refusal(str(not_there))
    assert refusal("../secrets/secret.txt") == refusal("../secrets/nosuch.txt")
    assert refusal("linked/secret.txt") == refusal("linked/nosuch.txt")


def test_an_extension_is_that_of_the_file_and_not_of_the_link(server: Server, ground: Path) -> None:
    disguised = ground / "up" / "good.h5"
    disguised.symlink_to("good.txt")
    assert server.post("/weights", {"file": "good.h5"}).status_code == 400


def test_an_update_keeps_the_area(server: Server) -> None:
    assert server.update(start="again").status_code == 200
    assert server.post("/read", {"file": "good.txt"}).json()["content"] == "fine"
    assert server.post("/read", {"file": "../secrets/secret.txt"}).status_code == 400


def test_without_an_upload_area_no_path_is_taken(ground: Path) -> None:
    with serve(ground / "model" / "model.py", "--replicas", "1", cwd=ground / "up") as server:
        for name in ("good.txt", str(ground / "up" / "good.txt"), "/etc/passwd"):
            answer = server.post("/read", {"file": name})
            assert answer.status_code == 400
            assert "no upload area" in answer.json()["error"]
        assert server.post("/list", {"folder": "."}).status_code == 400


def test_an_area_that_is_not_there_is_said_before_anything_starts(ground: Path) -> None:
    server = start(ground / "model" / "model.py", "--upload-dir", ground / "nowhere", "--port", "0")
    assert server.wait() != 0
    assert "nowhere' is no folder" in server.output
    assert "Initializing" not in server.output


# ---- row 40: names that come with the content


@pytest.mark.parametrize(
    "parameters",
    ["name=../../evil.py;", "filename=/etc/cron.d/evil;", "name=" + "x" * 300 + ";",
     "name=%00.py;", "name=evil.py;charset=utf-8;"],
)  # fmt: skip
def test_a_name_that_a_data_uri_brings_is_of_no_consequence(
    server: Server, parameters: str
) -> None:
    content = base64.b64encode(b"content").decode()
    answer = server.post("/read", {"file": f"data:text/plain;{parameters}base64,{content}"})
    if answer.status_code == 400:
        assert answer.json()["field"] == "file"
        return
    assert answer.json()["content"] == "content"
    path = Path(answer.json()["path"])
    assert path.parent == files_of_worker(server)
    assert "evil" not in path.name
    assert path.suffix == ""


def files_of_worker(server: Server) -> Path:
    """Where the one worker's temporary files lie."""
    found = [Path(name) for pid in server.pids("worker") for name in sockets([pid]).unix]
    newest = max((path.parent for path in found), key=lambda folder: int(folder.name[1:]))
    return newest / "files"


def test_a_temporary_file_is_private_and_gone_after_its_request(server: Server) -> None:
    answer = server.post("/read", {"file": "data:;base64,eA=="})
    path = Path(answer.json()["path"])
    wait_for("the file's end", lambda: not path.exists())
    kept = Path(server.post("/keep", {"file": "data:;base64,eA=="}).json()["path"])
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_a_killed_worker_leaves_no_temporary_file(server: Server) -> None:
    kept = Path(server.post("/keep", {"file": "data:;base64,eA=="}).json()["path"])
    assert kept.exists()
    for pid in server.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    wait_for("the files' end", lambda: not kept.exists() and not kept.parent.exists())
    wait_for("the next worker", lambda: server.get("/readyz").status_code == 200)


def test_what_a_killed_server_left_the_next_one_removes(ground: Path, tmp_path: Path) -> None:
    model, folder = ground / "model" / "model.py", str(tmp_path)
    killed = start(model, "--replicas", "1", "--port", "0", XDG_RUNTIME_DIR=folder)
    killed.wait_serving()
    kept = Path(killed.post("/keep", {"file": "data:;base64,eA=="}).json()["path"])
    assert kept.is_relative_to(tmp_path)
    children = killed.children()
    killed.process.kill()
    killed.wait()
    killed.client.close()
    wait_for(
        "its children's end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in children)
    )
    assert kept.exists(), "it was removed by something else, so this test shows nothing"
    with serve(model, "--replicas", "1", XDG_RUNTIME_DIR=folder):
        assert not kept.exists()
    assert list(tmp_path.iterdir()) == []


# ---- artifacts that an update names


def artifacts(ground: Path) -> list[str]:
    return [
        "../model-evil/model.py", "../model-evil", str(ground / "model-evil" / "model.py"),
        "linked", "linked/model.py", "linked.py", "v2/../../model-evil", "/etc/passwd", "/", "..",
        "loop", "\0", "v2\0", "a" * 300 + ".py", "a" * 4096, "a" * 4096 + ":f", "b" * 300 + ":f",
        "missing.py", "model.py:\0", "..:f", "../model-evil/model.py:read", "v2/" * 2000, "~",
        "http://evil.example/model.py", "file:///etc/passwd", "s3://bucket/x", "v3", "v3/model.py",
    ]  # fmt: skip


def test_an_update_takes_code_from_below_its_root_only_and_says_so(
    server: Server, ground: Path
) -> None:
    serving = server.get("/meta").json()["generation"]
    for name in artifacts(ground):
        for field in ("artifact", "model_path"):
            answer = server.post("/setup", {field: name})
            if field == "model_path" and answer.status_code == 200:
                serving = answer.json()["generation"]  # it names something below the root
                assert (ground / "model" / name).resolve().is_relative_to(ground / "model")
                continue
            assert answer.status_code in {400, 403, 422}, (field, name[:80], answer.text)
            assert SECRET not in answer.text
            assert len(answer.content) < 2000
    assert server.get("/meta").json()["generation"] == serving
    assert server.post("/setup", {"artifact": "v2"}).status_code == 200, "nothing is let through"
    assert "Traceback" not in server.output
