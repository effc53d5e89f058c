"""A child process ends with its parent, however the parent ends, and so does what it started.

Must never: import anything heavy; it is the first thing a child runs.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import stat
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def tie_to_parent() -> None:
    """Have the kernel kill this process and its group when its parent dies.

    Standard input is a pipe whose other end only the parent holds: by fcntl(2), O_ASYNC, its
    closing sends SIGKILL to the whole group, helpers that a model started among it, even while a
    call holds the interpreter. Where that is not to be had, prctl(2), PR_SET_PDEATHSIG, kills at
    least this process. Not both: the latter may come first, and would take the pipe with it.
    """
    parent = os.getppid()
    if not _leash():
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that took effect
        os._exit(1)


def _leash() -> bool:
    if not (stat.S_ISFIFO(os.fstat(0).st_mode) and _leads_group()):
        return False
    pipe = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC)
    except OSError:  # a kernel without it
        return False
    return True


def end_with_group() -> NoReturn:
    """End this process and its group now: the parent is gone.

    Who notices that by another way and merely exits would do so before the kernel's signal, and
    leave its group behind.
    """
    if _leads_group():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _leads_group() -> bool:
    return os.getpgrp() == os.getpid()
