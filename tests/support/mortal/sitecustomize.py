"""Loaded by every Python that has this folder in its PYTHONPATH: makes the control plane mortal.

The file named by MODELCLOUD_TEST_KILL holds a number and `before` or `after`: right before or
after so many commits from then on the control plane dies of SIGKILL. The file is gone then, and one
beside it, with `.died`, holds the monotonic time. Only commits that changed something count.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path


def give(order: Path, count: int, when: str) -> None:
    """Give the order at once as a whole."""
    written = order.with_suffix(".new")
    written.write_text(f"{count} {when}")
    written.replace(order)


def _make_mortal(order: Path) -> None:
    import sqlite3

    class Mortal(sqlite3.Connection):
        _changes = 0

        def commit(self) -> None:
            changed, self._changes = self.total_changes != self._changes, self.total_changes
            try:
                count, when = order.read_text().split()
            except FileNotFoundError:
                changed = False
            if not changed:
                super().commit()
                return
            if count != "1":
                give(order, int(count) - 1, when)
                super().commit()
                return
            order.with_suffix(".died").write_text(str(time.monotonic()))
            order.unlink()
            if when == "after":
                super().commit()
            os.kill(os.getpid(), signal.SIGKILL)

    sqlite3.connect = partial(sqlite3.connect, factory=Mortal)  # type: ignore[assignment]


_ORDER = os.environ.get("MODELCLOUD_TEST_KILL")
if _ORDER and b"modelcloud.control.main" in Path("/proc/self/cmdline").read_bytes():
    _make_mortal(Path(_ORDER))
