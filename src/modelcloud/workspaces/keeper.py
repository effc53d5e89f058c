"""The process around a JupyterLab: whatever comes of the lab is its child, and ends with it.

Kernels lead sessions of their own and what runs in them may leave its starter, so that no signal
to one group reaches all of it. This process adopts each that is left alone. It ends, and all of
that with it, when the lab does or when its standard input closes: when the control plane says so
or is gone, however that came about.

Must never: run a user's code, or be within reach of it: the lab is confined and cannot signal it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

#: For everything to be gone; what forks faster than it is killed is not waited for any longer.
END_S = 10.0
#: Between two looks for what has ended, of what was adopted.
REAP_S = 1.0
_LOOK_S = 0.02
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Start the lab that the first line of standard input tells of; return once all is gone."""
    told = sys.stdin.buffer.readline()
    if not told:
        return 1
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    lab = subprocess.Popen(
        [sys.executable, "-m", "modelcloud.workspaces.enter"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert lab.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        lab.stdin.write(told)
        lab.stdin.close()
    try:
        wait(lab.pid, sys.stdin.fileno())
    finally:
        end_all(time.monotonic() + END_S)
    return 0


def wait(pid: int, lifeline: int) -> None:
    """Return when the process has ended or the other end of `lifeline` is closed."""
    ended = os.pidfd_open(pid)
    try:
        while True:
            ready, _, _ = select.select([ended, lifeline], [], [], REAP_S)
            if ended in ready or (lifeline in ready and not os.read(lifeline, 4096)):
                return
            reap()  # the lab too: its pidfd says all the same that it has ended
    finally:
        os.close(ended)


def end_all(deadline: float) -> None:
    """SIGKILL every process below this one, those that are adopted meanwhile too."""
    while (children := list(own_children())) and time.monotonic() < deadline:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(_LOOK_S)


def reap() -> None:
    """Collect what has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def own_children() -> list[int]:
    """Those of this process, whoever started them."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text("ascii").split())
    return found


if __name__ == "__main__":
    sys.exit(main())
