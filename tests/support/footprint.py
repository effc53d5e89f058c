"""What a process holds and whether that grows: memory, descriptors, threads, zombies, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Footprint(NamedTuple):
    """One process at one moment."""

    rss_kb: int
    anonymous_kb: int
    fds: int
    threads: int
    zombies: int


def footprint(pid: int) -> Footprint:
    """What the process holds now; zombies are its unreaped children.

    Proportional memory (PSS) is no measure here: it changes as others map the same libraries.
    """
    proc = Path(f"/proc/{pid}")
    memory = {
        name.rstrip(":"): int(rest[0])
        for name, *rest in map(str.split, (proc / "smaps_rollup").read_text().splitlines()[1:])
    }
    return Footprint(
        rss_kb=memory["Rss"],
        anonymous_kb=memory["Anonymous"],
        fds=len(list((proc / "fd").iterdir())),
        threads=len(list((proc / "task").iterdir())),
        zombies=sum(state == "Z" for state in _states_of_children(pid)),
    )


def _states_of_children(pid: int) -> list[str]:
    states = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(") ")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if int(parent) == pid:
            states.append(state)
    return states


def files(folder: Path) -> int:
    """How many files and folders lie below this one; some may go while they are counted."""
    return sum(len(folders) + len(names) for _, folders, names in os.walk(folder))


def slope(values: Sequence[tuple[float, float]]) -> float:
    """By how much the second number of each pair grows with the first: the least-squares line."""
    count = len(values)
    mean_x = sum(x for x, _ in values) / count
    mean_y = sum(y for _, y in values) / count
    spread = sum((x - mean_x) ** 2 for x, _ in values)
    return sum((x - mean_x) * (y - mean_y) for x, y in values) / spread


def growth(
    seen: Sequence[tuple[int, Footprint]], *, kb_per_step: float, count_change: int
) -> dict[str, float]:
    """What of a process grew beyond these bounds; empty if nothing did.

    Args:
        seen: step number and footprint, from after the warm-up on.
        kb_per_step: bound on the slope of memory.
        count_change: bound on the change of everything that is counted, first to last third.
    """
    found: dict[str, float] = {}
    for name in ("rss_kb", "anonymous_kb"):
        rising = slope([(step, getattr(footprint, name)) for step, footprint in seen])
        if rising >= kb_per_step:
            found[name] = rising
    third = len(seen) // 3
    for name in ("fds", "threads", "zombies"):
        counts = [getattr(footprint, name) for _, footprint in seen]
        # A single look may catch a process on its way; the smallest of several is what stays.
        change = min(counts[-third:]) - min(counts[:third])
        if abs(change) > count_change:
            found[name] = change
    return found
