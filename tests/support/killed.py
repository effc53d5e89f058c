"""A monitor that is killed at a system call, under strace."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from support.programs import program

#: Those that a monitor touches files with, as strace takes them. Of `openat` there are hundreds.
CALLS = (
    "openat", "write", "fsync", "rename,renameat2", "mkdir", "chmod,fchmodat", "unlink,unlinkat",
    "rmdir", "utimensat,ftruncate,pwrite64,flock",
)  # fmt: skip
#: Not every run makes as many calls before it comes to its folder.
_FEWER = 5
#: The monitor without its command line, which opens hundreds of files of its own.
_ONCE = """
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


def look_once(folder: Path, *tracer: str) -> int:
    """A monitor of the folder `remote` in this one, which looks once; its exit status."""
    command = [*tracer, sys.executable, "-c", _ONCE, str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode


def traced(call: str, *more: str) -> list[str]:
    """What traces a program's calls of these names."""
    return [program("strace"), "-qq", "-e", f"trace={call}", *more]


def first_in(folder: Path, call: str, log: Path) -> int:
    """Which of a whole run's calls is the first that may concern files of its folder.

    Args:
        folder: has a new model in `remote`, which is in its place after it.
        call: name of the calls.
        log: file to write them to.
    """
    assert look_once(folder, *traced(call, "-y", "-o", str(log))) == 0
    calls = log.read_text().splitlines()
    first = next(n for n, line in enumerate(calls, 1) if str(folder) in line or "_tmp" in line)
    return max(1, first - _FEWER)


def killed_at(folder: Path, call: str, number: int, *, children: bool = False) -> bool:
    """Look once, with a kill at this one of the calls; False: it looked to its end before.

    Args:
        folder: see `look_once`.
        call: name of the calls.
        number: from 1 on.
        children: count those of all processes together; which gets to the number is killed.
    """
    more = ["-f"] if children else []
    inject = f"inject={call}:signal=KILL:when={number}"
    status = look_once(folder, *traced(call, *more, "-e", inject))
    assert status in {0, -signal.SIGKILL} or (children and status == 1)
    return status != 0
