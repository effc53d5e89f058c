"""Collects every process that ends below the node, those it never started included.

Must never: wait. The signal handler only looks; what ended is handed to whoever watches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

#: Names the child, in its environment and that of all it starts.
TAG = "MODELCLOUD_CHILD"
_PR_SET_CHILD_SUBREAPER = 36


class Reaper:
    """Owns SIGCHLD of this process, which becomes the parent of orphans below it.

    A process that a child left behind is killed once that child is gone; one whose starter still
    lives (a helper that a model sent to the background) is left alone.

    No other part of this process may rely on the exit status of a child it starts itself.

    Args:
        realm: a name that no other node uses; it starts every child's tag.
    """

    def __init__(self, realm: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._realm = f"{realm}/"
        self._watched: dict[int, tuple[str, Callable[[int], None]]] = {}
        _subreaper(True)
        self._loop.add_signal_handler(signal.SIGCHLD, self.reap)

    def tag(self, name: str) -> str:
        """The value of `TAG` for the child of this name."""
        return self._realm + name

    def watch(self, pid: int, tag: str, on_exit: Callable[[int], None]) -> None:
        """Call `on_exit` with the exit code (negative: minus the signal) when `pid` has ended.

        Args:
            pid: a child; it leads its own process group, which is killed with it.
            tag: the value of `TAG` in its environment.
            on_exit: called after the process was reaped.
        """
        self._watched[pid] = (tag, on_exit)

    def reap(self) -> None:
        """Collect until none is left: one SIGCHLD may stand for many deaths."""
        ended = False
        while (pid := _next_ended()) is not None:
            ended = True
            tag, on_exit = self._watched.pop(pid, ("", None))
            if on_exit is not None:
                # Before reaping, while the number cannot yet belong to another group.
                kill_group(pid)
            try:
                _, status = os.waitpid(pid, 0)
            except ChildProcessError:
                continue  # a library of this process started it and was first
            if on_exit is not None:
                try:
                    on_exit(os.waitstatus_to_exitcode(status))
                except Exception:
                    log.exception("handling the end of %s failed", tag)
        if ended:
            self.clear()

    def clear(self) -> bool:
        """Kill what children that are gone left behind; whether there was nothing."""
        living = {tag for tag, _ in self._watched.values()}
        clean = True
        for pid in _children():
            if pid in self._watched:
                continue
            tag = tag_of(pid)
            if tag.startswith(self._realm) and tag not in living:
                clean = False
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return clean

    def close(self) -> None:
        """Give SIGCHLD back."""
        self.reap()
        self._loop.remove_signal_handler(signal.SIGCHLD)
        _subreaper(False)


def kill_left_behind(realm: str) -> None:
    """SIGKILL what a node that is gone left running, whoever is its parent by now.

    Args:
        realm: the name that node's `Reaper` was given.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if tag_of(pid).startswith(f"{realm}/"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """SIGKILL the process group led by `pid`, an unreaped child of this process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _next_ended() -> int | None:
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None


def _children() -> Iterator[int]:
    with contextlib.suppress(OSError):  # a thread ended, no descriptor, a kernel without this file
        for task in Path("/proc/self/task").iterdir():
            yield from map(int, (task / "children").read_text("ascii").split())


def tag_of(pid: int) -> str:
    """The value of `TAG` that a process was started with; empty where it cannot be read."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return ""
    start = f"{TAG}=".encode()
    values = (entry[len(start) :] for entry in environ.split(b"\0") if entry.startswith(start))
    return next(values, b"").decode(errors="replace")


def _subreaper(on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        log.warning("cannot adopt orphans: %s", os.strerror(ctypes.get_errno()))
