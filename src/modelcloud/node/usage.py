"""What worker processes use, with the processes they started, as the kernel counts it.

Must never: fail because a process ended while it was looked at.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from modelcloud.node.reaper import tag_of

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Resident bytes, and processor seconds since the start."""

    memory: int
    cpu_s: float


class _Process(NamedTuple):
    parent: int
    session: int
    usage: Usage


def usage_of(leaders: Iterable[int]) -> dict[int, Usage]:
    """What each of these processes uses together with all that came of it.

    That is who is in its session, who descends from it, and of those whose starter is gone, whom
    this process has adopted, who has its tag. Shared pages count once for each process that has
    them, so the sum is an upper bound.

    Args:
        leaders: ids of workers, which lead sessions; those that have ended are left out of the
            result.
    """
    found: dict[int, Usage] = {}
    wanted = set(leaders)
    if not wanted:
        return found
    table = {
        int(entry.name): process
        for entry in os.scandir("/proc")
        if entry.name.isdigit() and (process := _read(entry.path)) is not None
    }
    tags: dict[str, int] = {}
    for pid, process in table.items():
        leader = _leader(pid, table, wanted)
        if leader is None:
            if process.parent != os.getpid():
                continue
            tags = tags or {tag: one for one in wanted if (tag := tag_of(one))}
            leader = tags.get(tag_of(pid))
        if leader is not None:
            before, more = found.get(leader, Usage(0, 0.0)), process.usage
            found[leader] = Usage(before.memory + more.memory, before.cpu_s + more.cpu_s)
    return found


def _leader(pid: int, table: Mapping[int, _Process], wanted: Collection[int]) -> int | None:
    """Which of `wanted` a process belongs to by its session or its ancestors."""
    for _ in table:  # as long as there are ancestors; a number used anew could close a circle
        process = table.get(pid)
        if process is None:
            return None
        if process.session in wanted:
            return process.session
        pid = process.parent
    return None


def _read(folder: str) -> _Process | None:
    try:
        stat = Path(folder, "stat").read_bytes()
    except OSError:
        return None
    # proc(5): after the command in parentheses come state, ppid, pgrp, session, …
    fields = stat.rpartition(b") ")[2].split()
    # utime, stime, and of children that were waited for: cutime, cstime
    ticks = sum(int(field) for field in fields[11:15])
    return _Process(int(fields[1]), int(fields[3]), Usage(int(fields[21]) * _PAGE, ticks / _TICKS))
