"""A monitor that is killed at any system call leaves the old model or the new one, and heals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.killed import CALLS, first_in, killed_at, look_once, traced
from support.monitored import (
    MODEL,
    TIMESTAMP,
    Folder,
    arguments_for,
    leftovers,
    produce,
    version_of,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("monitor killed"),
]


def begin(folder: Path) -> None:
    """Version 1 here, version 2 there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    remote = Folder(folder / "remote")
    produce(remote, 1)
    assert look_once(folder) == 0
    produce(remote, 2)


def stamp(folder: Path) -> int:
    return (folder / MODEL / TIMESTAMP).stat().st_mtime_ns


def check_and_heal(folder: Path, old_stamp: int) -> int:
    """The version that a server sees after the kill; then the next monitor makes all well."""
    seen = version_of(folder / MODEL)
    assert seen in {1, 2}
    assert (stamp(folder) == old_stamp) == (seen == 1)
    assert look_once(folder) == 0
    assert version_of(folder / MODEL) == 2
    assert not leftovers(folder)
    return seen


@pytest.mark.parametrize(
    "call",
    [pytest.param(call, marks=[pytest.mark.sweep] * (call == "openat")) for call in CALLS],
)
def test_a_kill_at_any_system_call_leaves_a_whole_model(tmp_path: Path, call: str) -> None:
    """Each run is killed at the Nth of these calls, from the first one in its folder on."""
    folder = tmp_path / "monitored"
    begin(folder)
    number = first_in(folder, call, tmp_path / "calls")
    seen: list[int] = []
    killed = True
    while killed:
        begin(folder)
        old = stamp(folder)
        killed = killed_at(folder, call, number)
        seen.append(check_and_heal(folder, old))
        number += 1
    assert seen == sorted(seen)
    assert len(seen) > 1


@pytest.mark.parametrize("call", [pytest.param("write", marks=pytest.mark.sweep), "fsync"])
def test_a_kill_of_what_reads_or_unpacks_leaves_the_old_model(tmp_path: Path, call: str) -> None:
    """Of all processes together, whichever gets to the Nth call first."""
    folder = tmp_path / "monitored"
    killed, number = True, 0
    while killed:
        number += 1
        begin(folder)
        old = stamp(folder)
        killed = killed_at(folder, call, number, children=True)
        check_and_heal(folder, old)
    assert number > 1


def test_everything_is_on_the_disk_before_it_is_in_its_place(tmp_path: Path) -> None:
    """What a loss of power needs; a kill does not show it."""
    folder, log = tmp_path / "monitored", tmp_path / "calls"
    begin(folder)
    assert look_once(folder, *traced("fsync,rename,renameat2", "-f", "-y", "-o", str(log))) == 0
    calls = [line for line in log.read_text().splitlines() if "fsync" in line or "rename" in line]
    moved = next(n for n, line in enumerate(calls) if "renameat2" in line)
    before = "\n".join(line for line in calls[:moved] if "fsync" in line)
    for name in ("part0", "filling", "deep/only-2", "deep", TIMESTAMP, MODEL):
        assert f"/{name}>" in before
    after = [line for line in calls[moved:] if "fsync" in line]
    assert f"<{folder}>" in after[0]
    assert any("published.json" in line for line in after)


def test_a_monitor_of_the_command_line_does_the_same(tmp_path: Path) -> None:
    """What the sweep leaves out."""
    folder = tmp_path / "monitored"
    begin(folder)
    arguments = arguments_for(["--type", "local", "--remote_path", "remote"], "--once")
    command = [sys.executable, "-m", "modelcloud.cli.main", "monitor", *arguments]
    done = subprocess.run(command, check=False, cwd=folder, env=os.environ, capture_output=True)
    assert done.returncode == 0
    assert version_of(folder / MODEL) == 2
