"""The node's private folder for sockets: short path, mode 0700, gone with the node.

Must never: remove a folder whose node lives, or one that belongs to someone else.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import final

from modelcloud.node.reaper import kill_left_behind

_PREFIX = "modelcloud-"
_LOCK = "lock"
#: A unix socket's path holds at most 107 bytes; the name in the folder needs some of them.
_LONGEST = 80
_LONGEST_BESIDE = 42


@final
class RunDir:
    """A run folder, held by a file lock for as long as this object is open.

    Args:
        beside: a folder to make it in, if that will do: sockets can be made there, and their paths
            leave room for those that a model's libraries make in its own folder.

    Raises:
        FileNotFoundError: no folder to make it in has a path short enough for sockets.
    """

    def __init__(self, beside: Path | None = None) -> None:
        fits = beside is not None and _takes_sockets(beside)
        parent = beside if beside is not None and fits else _parent()
        _sweep(parent)
        unlocked = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
        self._lock = os.open(unlocked / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Only now under a name that another node's sweep looks at.
        self.path = unlocked.rename(parent / unlocked.name[1:])

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder; harmless the second time."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def clear(folder: Path) -> None:
    """Remove a child's folder, in a thread: a model may have left a million files in it."""
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, partial(shutil.rmtree, folder, ignore_errors=True))


def _takes_sockets(folder: Path) -> bool:
    """Some file systems, shared ones among them, do not."""
    if len(os.fsencode(folder)) > _LONGEST_BESIDE:
        return False
    probe = folder / f".socket-{os.getpid()}"
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(probe))
    except OSError:
        return False
    probe.unlink()
    return True


def _parent() -> Path:
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):  # noqa: S108 — mkdtemp makes a private folder in it
        if folder and len(os.fsencode(folder)) <= _LONGEST and os.access(folder, os.W_OK):
            return Path(folder)
    raise FileNotFoundError("no writable folder with a short path for sockets; set TMPDIR to one")


def _sweep(parent: Path) -> None:
    """Remove what nodes left that could not do it themselves, processes and folders alike.

    Their lock is free: each holds it for as long as it lives.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            found = folder.lstat()
            if found.st_uid != os.getuid() or found.st_mode & 0o170777 != 0o040700:
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kill_left_behind(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
