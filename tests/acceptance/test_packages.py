"""Packages and their conf.ini on a started platform: every step of their life, under load.

What the fifth seed asks for in its steps 2 to 7, by the commands that a user types.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.load import failures, load, steady
from support.package_life import NEW, OLD, laid_out, live_through
from support.packages import TELLS, Folder
from support.server import wait_for
from support.up import Up, up

pytestmark = pytest.mark.xdist_group("acceptance")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    arguments = ("--cpus", "8", "--memory", "64G", "--drain", "5")
    with up(tmp_path_factory.mktemp("packages") / "data", *arguments) as running:
        yield running


@pytest.fixture
def folder(platform: Up, tmp_path: Path) -> Iterator[Folder]:
    """Two packages whose requirements exclude each other; nothing of them is applied yet."""
    found = laid_out(tmp_path, platform)
    yield found
    for service in platform.admin.services():
        platform.admin.delete_service(service["name"])
    wait_for("all workers to end", lambda: not platform.pids("worker"))


def test_packages_are_checked_applied_changed_and_taken_away_with_no_failed_request(
    folder: Folder,
) -> None:
    live_through(folder)


def test_a_package_that_does_not_load_leaves_what_serves(folder: Folder) -> None:
    folder.done("apply")
    backend = folder.root / "algopkg" / "Faces" / "backend.py"
    # As the usual template does: the error is printed, and the object is there all the same.
    swallowing = TELLS.replace(
        "        self._model_init([os.path.join(folder, name) for name in names])",
        "        try:\n            self._model_init(names)\n        except Exception:\n"
        "            print('[Model Initialized Failed]')",
    )
    with load(folder.port, "/extract", {"x": 1}, rate=50.0, method="GET") as running:
        steady(running)
        backend.write_text(swallowing)
        ended = folder.run("apply")
        assert ended.status == 1
        assert "Faces: update" in ended.err
        assert "No such file or directory: 'v1.txt'" in ended.err
        steady(running)
    assert failures(running.samples) == []
    assert folder.up.admin.deployment("Faces", 1)["status"] == "Serving"
    checked = folder.run("check", "algopkg/Faces")
    assert checked.status == 1
    assert "load: _model_init raised FileNotFoundError" in checked.err
    assert f"{backend}:" in checked.err


def test_nothing_is_done_about_a_file_with_mistakes_which_are_all_told(folder: Folder) -> None:
    folder.edit("replicas = 1\ngpu_cost = 0", "replicas = 9\ngpu_cost = 1\ncolour = red")
    folder.edit("model = v1.txt", "model = none.txt")
    folder.edit("replicas = 1\nroute = plates/read", "replicas = 9\nroute = plates/read")
    ended = folder.run("apply")
    assert ended.status == 2
    *lines, last = ended.err.splitlines()
    for line, told in zip(
        lines,
        (
            "conf.ini:6: there is no Model_ZOO/none.txt; accepted: ",
            "conf.ini:7: replicas is 9, more than the 8 cores",
            "conf.ini:8: gpu_cost is 1, of 9 replicas 9, and the platform's node has 0 GPUs",
            "conf.ini:9: colour is no key of [algopkg.Faces]; accepted: ",
            "conf.ini:15: replicas is 9, more than the 8 cores",
        ),
        strict=True,
    ):
        assert line.startswith(told)
    assert last == "modelcloud: conf.ini: 5 problems; nothing was changed"
    assert folder.up.admin.services() == []


def test_a_watch_applies_each_change_and_keeps_the_last_good_one(folder: Folder) -> None:
    with folder.start("apply", "--watch") as watching:
        assert watching.stdout is not None
        try:
            wait_for("the first", lambda: answers(folder, 1))
            folder.edit("route = extract", 'route = extract\nuser_config = {"scale": 3}')
            wait_for("the edit of conf.ini", lambda: answers(folder, 3))
            with load(folder.port, "/extract", {"x": 1}, rate=50.0, method="GET") as running:
                good = folder.conf
                folder.edit('{"scale": 3}', "{scale}")
                said(watching, "nothing was changed")
                folder.conf = good.replace('"scale": 3', '"scale": 4')
                wait_for("the mended one", lambda: answers(folder, 4))
                backend = folder.root / "algopkg" / "Faces" / "backend.py"
                backend.write_text("import nowhere\n" + TELLS)
                said(watching, "modelcloud: Faces: ")
                backend.write_text(TELLS.replace('param_dict["x"] *', '10 * param_dict["x"] *'))
                wait_for("the new code", lambda: answers(folder, 40))
                (folder.root / "Model_ZOO" / "v1.txt").write_text("v1 again")
                wait_for("the new model", lambda: folder.ask("extract")["models"] == ["v1 again"])
            assert failures(running.samples) == []
            watching.send_signal(signal.SIGINT)
            assert watching.wait(30) == 0
        finally:
            watching.kill()


def test_an_interrupt_ends_a_watch_at_what_it_applies_and_begins_nothing_more(
    folder: Folder, tmp_path: Path
) -> None:
    going = tmp_path / "go"
    slow = TELLS.replace(
        "        self.scale = 1\n",
        f"        self.scale = 1\n        while not os.path.exists({str(going)!r}):\n"
        "            __import__('time').sleep(0.1)\n",
    )
    for name in ("Faces", "Plates"):
        (folder.root / "algopkg" / name / "backend.py").write_text(slow)
    with folder.start("apply", "--watch") as watching:
        try:
            said(watching, "loading")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(30) == 0
        finally:
            watching.kill()
    assert [service["name"] for service in folder.up.admin.services()] == ["Faces"]
    going.touch()
    wait_for("what was begun", lambda: answers(folder, 1))


def answers(folder: Folder, scaled: int) -> bool:
    """Whether the route answers, and with this."""
    try:
        return bool(folder.ask("extract")["scaled"] == scaled)
    except Exception:  # it does not listen yet
        return False


def said(process: subprocess.Popen[str], words: str) -> None:
    """Read on until a line holds the words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended without: {words}")


def interpreters() -> list[str]:
    """One of each minor version that may serve and is there."""
    found = []
    for minor in (10, 11, 12, 13):
        for place in (*Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*"), Path("/usr")):
            python = place / "bin" / f"python3.{minor}"
            if os.access(python, os.X_OK):
                found.append(str(python))
                break
    return found or [sys.executable]


def test_each_package_has_the_interpreter_that_it_names(folder: Folder) -> None:
    pythons = interpreters()
    conf = f"[MODEL SERVE]\nport = {folder.port}\n"
    for number, python in enumerate(pythons):
        name = f"P{number}"
        folder.package(name, OLD if number % 2 else NEW)
        conf += (
            f"[algopkg.{name}]\nbackend = Teller\nroute = p{number}\npython = {python}\n"
            f"requirements = algopkg/{name}/requirements.txt\n"
        )
    folder.conf = conf
    folder.done("apply")
    for number, python in enumerate(pythons):
        told = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        answer = folder.ask(f"p{number}")
        assert answer["python"] == [int(part) for part in told.stdout.split()]
        assert answer["six"] == ("1.16.0" if number % 2 else "1.17.0")
    checked = folder.done("check", "algopkg/P0", "--params", '{"x": 1}')
    assert '"status": 1' in checked


def test_an_environment_that_others_made_is_used_as_it_is(folder: Folder, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    folder.edit("route = extract", f"route = extract\npython = {python}")
    ended = folder.run("check", "algopkg/Faces", "--params", '{"x": 1}')
    assert ended.status == 1
    assert f"{python} has no msgspec: run `{python} -m pip install msgspec`" in ended.err
    subprocess.run([*pip, "msgspec", "six==1.15.0"], check=True)
    folder.done("check", "algopkg/Faces", "--params", '{"x": 1}')
    folder.done("apply")
    assert folder.ask("extract")["six"] == "1.15.0"
