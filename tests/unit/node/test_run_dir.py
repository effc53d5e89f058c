"""The node's private folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from modelcloud.node.run_dir import RunDir


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_the_folder_is_private_and_goes_with_its_owner(parent: Path) -> None:
    with RunDir() as run_dir:
        assert run_dir.path.parent == parent
        assert run_dir.path.stat().st_mode & 0o777 == 0o700
        (run_dir.path / "w1.sock").touch()
    assert list(parent.iterdir()) == []


def test_what_a_killed_node_left_is_removed_and_what_lives_or_is_foreign_is_not(
    parent: Path,
) -> None:
    program = "import os; from modelcloud.node.run_dir import RunDir; r = RunDir(); os.kill(os.getpid(), 9)"  # noqa: E501 — one statement after the other
    subprocess.run([sys.executable, "-c", program], env=os.environ, check=False)
    assert len(list(parent.iterdir())) == 1
    foreign = parent / "modelcloud-foreign"
    foreign.mkdir(0o755)
    (foreign / "lock").touch()
    (parent / "modelcloud-link").symlink_to(foreign)
    with RunDir() as first, RunDir() as second:
        assert set(parent.iterdir()) == {
            foreign, parent / "modelcloud-link", first.path, second.path,
        }  # fmt: skip


def test_what_a_killed_node_left_running_is_killed_and_nothing_else(parent: Path) -> None:
    program = (
        "import os, subprocess, sys; from modelcloud.node.run_dir import RunDir; r = RunDir()\n"
        "for tag in (r.path.name + '/w1', r.path.name + '-other/w1'):\n"
        "    print(subprocess.Popen(['sleep', '600'], start_new_session=True,\n"
        "          stdout=subprocess.DEVNULL, env={'MODELCLOUD_CHILD': tag}).pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    dead = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, stdout=subprocess.PIPE, check=False
    )
    left, others = map(int, dead.stdout.split())
    try:
        with RunDir():
            assert _ends(left)
            assert not _ended(others)
    finally:
        os.kill(others, signal.SIGKILL)


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


def _ends(pid: int) -> bool:
    give_up = time.monotonic() + 30
    while not _ended(pid) and time.monotonic() < give_up:
        time.sleep(0.01)
    return _ended(pid)


def test_a_parent_whose_path_is_too_long_for_sockets_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with RunDir() as run_dir:
        assert len(str(run_dir.path / "w1000000.sock")) < 108


def test_it_lies_in_the_folder_that_is_preferred_if_sockets_can(parent: Path) -> None:
    """A path that leaves room for sockets which a model's libraries make in its own folder."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short, RunDir(Path(short)) as run_dir:
        assert run_dir.path.parent == Path(short)
        assert len(str(run_dir.path / "w1000000/files/pymp-xxxxxxxx/listener-xxxxxxxx")) < 108
    deep = parent / ("d" * 40)
    for folder in (deep, Path("/proc/self"), parent / "nowhere"):
        with RunDir(folder) as run_dir:
            assert run_dir.path.parent == parent
    assert list(parent.iterdir()) == []
