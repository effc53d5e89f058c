"""A monitor that is killed at any system call leaves the old model or the new one, and heals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.monitored import (
    MODEL,
    TIMESTAMP,
    Folder,
    arguments_for,
    leftovers,
    produce,
    version_of,
)
from support.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("monitor killed"),
]

#: The monitor without its command line, which opens hundreds of files of its own.
ONCE = """
import asyncio, os, sys
from modelcloud.monitors.address import Addresses
from modelcloud.monitors.run import start
from modelcloud.monitors.settings import MonitorSettings
from modelcloud.monitors.source import SourceSpec
os.chdir(sys.argv[1])
spec = SourceSpec(type="local", path="remote", addresses=Addresses(anything=True))
settings = MonitorSettings(
    source=spec, remote_model_name="uci_housing.tar.gz", remote_donefile_name="donefile",
    local_path=".", local_model_name="uci_housing_model", local_tmp_path="_tmp",
    unpacked_filename="uci_housing_model", once=True,
)
sys.exit(start(settings))
"""


def begin(folder: Path) -> None:
    """Version 1 here, version 2 there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    remote = Folder(folder / "remote")
    produce(remote, 1)
    assert look_once(folder) == 0
    produce(remote, 2)


def look_once(folder: Path, *tracer: str) -> int:
    command = [*tracer, sys.executable, "-c", ONCE, str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode


def stamp(folder: Path) -> int:
    return (folder / MODEL / TIMESTAMP).stat().st_mtime_ns


def traced(call: str, *more: str) -> list[str]:
    return [program("strace"), "-qq", "-e", f"trace={call}", *more]


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
    [
        pytest.param("openat", marks=pytest.mark.sweep),
        "write", "fsync", "rename,renameat2", "mkdir", "chmod,fchmodat",
        "unlink,unlinkat", "rmdir", "utimensat,ftruncate,pwrite64,flock",
    ],
)  # fmt: skip
def test_a_kill_at_any_system_call_leaves_a_whole_model(tmp_path: Path, call: str) -> None:
    """Each run is killed at the Nth of these calls, from the first one in its folder on."""
    folder, log = tmp_path / "monitored", tmp_path / "calls"
    begin(folder)
    assert look_once(folder, *traced(call, "-y", "-o", str(log))) == 0
    calls = log.read_text().splitlines()
    first = next(n for n, line in enumerate(calls, 1) if str(folder) in line or "_tmp" in line)
    seen: list[int] = []
    status, number = -signal.SIGKILL, max(1, first - 5)  # not every run makes as many before
    while status != 0:
        begin(folder)
        old = stamp(folder)
        status = look_once(folder, *traced(call, "-e", f"inject={call}:signal=KILL:when={number}"))
        assert status in {0, -signal.SIGKILL}
        seen.append(check_and_heal(folder, old))
        number += 1
    assert seen == sorted(seen)
    assert len(seen) > 1


@pytest.mark.parametrize("call", [pytest.param("write", marks=pytest.mark.sweep), "fsync"])
def test_a_kill_of_what_reads_or_unpacks_leaves_the_old_model(tmp_path: Path, call: str) -> None:
    """Of all processes together, whichever gets to the Nth call first."""
    folder = tmp_path / "monitored"
    status, number = 1, 0
    while status != 0:
        number += 1
        begin(folder)
        old = stamp(folder)
        inject = f"inject={call}:signal=KILL:when={number}"
        status = look_once(folder, *traced(call, "-f", "-e", inject))
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
