"""Notice that the served code, or a timestamp file, changed: by file times and sizes.

Must never: read file contents or decide what an update is; it only says that something changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeAlias

#: Between two looks; an edit is noticed within two of them, and an editor's several writes
#: (truncate, write, rename) within one are taken as one.
INTERVAL_S = 0.4

#: Path → (time of modification in ns, size, inode), of every file that is watched.
Look: TypeAlias = dict[str, tuple[int, int, int]]


def look(root: Path, files: Iterable[str]) -> Look:
    """What the watched files look like now.

    Args:
        root: folder of the served code.
        files: paths below it that were staged; besides these, every `.py` file beside one of them
            is watched, so that a new module counts. A file that is gone is left out.
    """
    seen: Look = {}
    folders = set()
    for name in files:
        path = root / name
        _note(seen, path)
        folders.add(path.parent)
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                new = [e.path for e in entries if e.name.endswith(".py") and e.path not in seen]
        except OSError:
            continue
        for path_text in new:
            _note(seen, Path(path_text))
    return seen


def look_at(file: Path) -> Look:
    """What one file looks like now; empty if it is not there."""
    seen: Look = {}
    _note(seen, file)
    return seen


def _note(seen: Look, path: Path) -> None:
    try:
        status = path.stat()
    except OSError:
        return
    seen[str(path)] = (status.st_mtime_ns, status.st_size, status.st_ino)


class Settling:
    """Whether files stand still after an edit, by looks at them one interval apart.

    Args:
        look: the first one.
    """

    def __init__(self, look: Look) -> None:
        self._before = look
        self._taken: Look | None = None

    def edited(self, now: Look) -> bool:
        """Whether this look is of an edit that is not taken yet; it counts as taken then.

        The first look that stands still is one, for an edit made since the files were staged.
        """
        new = now != self._taken and now == self._before
        if new:
            self._taken = now
        self._before = now
        return new


async def watch(
    take_look: Callable[[], Look],
    changed: Callable[[], Awaitable[None]],
    *,
    interval_s: float = INTERVAL_S,
) -> None:
    """Await `changed` after every edit, once the files have stood still for one interval.

    Runs until cancelled. `changed` is also called once at the start, for an edit made since the
    files were staged, and after the next edit whether it took the last one or not.

    Args:
        take_look: gives the present look; called in a thread.
        changed: starts an update if the code differs from what was staged last.
        interval_s: seconds between two looks.
    """
    settling = Settling(await asyncio.to_thread(take_look))
    while True:
        await asyncio.sleep(interval_s)
        if settling.edited(await asyncio.to_thread(take_look)):
            await changed()
