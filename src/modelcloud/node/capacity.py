"""What this machine, or the limit this process runs under, has to give to workers.

Must never: fail for want of a file or a program; what cannot be known counts as not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from modelcloud.config import PlatformConfig

_NVIDIA_SMI = "nvidia-smi"
_SMI_TIMEOUT_S = 10.0
_CGROUP = Path("/sys/fs/cgroup")


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Processors, bytes of memory and devices."""

    cpus: float
    memory: int
    gpus: int


def capacity(config: PlatformConfig) -> Capacity:
    """What workers may use together: as the settings say, else what is there."""
    return Capacity(
        cpus=config.cpus or _cpus(),
        memory=config.memory or _memory(),
        gpus=max(config.gpus, 0) if config.gpus else _gpus(),
    )


def _cpus() -> float:
    there = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):  # control groups, version 2
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return min(there, int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):  # version 1
        limit = int((_CGROUP / "cpu/cpu.cfs_quota_us").read_text())
        if limit > 0:
            return min(there, limit / int((_CGROUP / "cpu/cpu.cfs_period_us").read_text()))
    return there


def _memory() -> int:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max", or no such file
            return min(there, int((_CGROUP / name).read_text()))
    return there


def _gpus() -> int:
    program = shutil.which(_NVIDIA_SMI)
    if program is None:
        return 0
    try:
        listed = subprocess.run(  # noqa: S603 — found on the path, no input of anybody's
            [program, "--list-gpus"], capture_output=True, timeout=_SMI_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith(b"GPU ") for line in listed.stdout.splitlines())
