"""What the kernel knows of processes: their family, sockets, memory, processor time."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"


class Sockets(NamedTuple):
    """The sockets that some processes have open.

    Attributes:
        tcp: (address in /proc/net's hexadecimal, port) of those that listen → who holds them.
        udp: likewise, of all that are bound.
        unix: names of those that have one; abstract ones begin with `@`.
    """

    tcp: dict[tuple[str, int], set[int]]
    udp: dict[tuple[str, int], set[int]]
    unix: set[str]


def family(pid: int) -> list[int]:
    """The process and all below it."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            parents[int(folder.name)] = int(fields[1])
    found, new = [], [pid]
    while new:
        found += new
        new = [child for child, parent in parents.items() if parent in new]
    return found


def sockets(pids: list[int]) -> Sockets:
    """What these processes have open at this moment."""
    holders: dict[str, set[int]] = {}
    for pid in pids:
        for link in links(pid):
            if match := re.fullmatch(r"socket:\[(\d+)\]", link):
                holders.setdefault(match[1], set()).add(pid)
    return Sockets(
        tcp=_internet(("tcp", "tcp6"), holders, _LISTEN),
        udp=_internet(("udp", "udp6"), holders, ""),
        unix={
            fields[7]
            for line in Path("/proc/net/unix").read_text().splitlines()[1:]
            if len(fields := line.split()) == 8 and fields[6] in holders
        },
    )


def _internet(
    tables: tuple[str, ...], holders: dict[str, set[int]], state: str
) -> dict[tuple[str, int], set[int]]:
    found: dict[tuple[str, int], set[int]] = {}
    for table in tables:
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[9] in holders and (not state or fields[3] == state):
                found.setdefault((address, int(port, 16)), set()).update(holders[fields[9]])
    return found


def links(pid: int) -> list[str]:
    """What the process's descriptors lead to."""
    out: list[str] = []
    with contextlib.suppress(FileNotFoundError):  # it has just ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                out.append(str(descriptor.readlink()))
    return out


def rss(pid: int, *, peak: bool = False) -> int:
    """Bytes of memory in use, now or at most so far."""
    name = "VmHWM" if peak else "VmRSS"
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def cpu_s(*pids: int) -> float:
    """Seconds of processor time that they have used: unlike a clock's, not those of others."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS
