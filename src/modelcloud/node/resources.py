"""What a replica's instance type means for its process: threads, devices, a bound on memory.

Must never: start or end a process; it says what to set and who gets which device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from modelcloud.types import GenerationSpec, Resources

#: Read by OpenMP, OpenBLAS, MKL, Accelerate, numexpr, Polars, Tokenizers and JAX's host threads.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "TF_NUM_INTRAOP_THREADS",
)  # fmt: skip
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"

#: Shares of a device are compared with this tolerance: ten times 0.1 is one.
_EPSILON = 1e-9


def variables(spec: GenerationSpec, gpus: tuple[int, ...] | None) -> dict[str, str]:
    """What to add to a worker's environment.

    Args:
        spec: of its generation.
        gpus: the devices it was given; None where devices are nobody's business (serve mode).
    """
    found = {}
    if spec.resources.cpu > 0:
        threads = str(math.ceil(spec.resources.cpu - _EPSILON))
        found = dict.fromkeys(THREAD_VARIABLES, threads)
    if spec.verify:  # an artifact stays as its manifest says
        found["PYTHONDONTWRITEBYTECODE"] = "1"
    if gpus is not None:
        found[DEVICES_VARIABLE] = ",".join(map(str, gpus))
    return found


def over_memory(resources: Resources, used: int) -> str:
    """Why a worker that uses so many bytes is to be replaced; empty if it is not."""
    if not resources.memory or used <= resources.memory:
        return ""
    return f"used {_mib(used)} of the {_mib(resources.memory)} that its instance type gives"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MiB"


class Devices:
    """Which worker has which share of which device.

    Args:
        count: devices of this node, numbered from 0.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._given: dict[int, tuple[tuple[int, ...], float]] = {}

    def give(self, worker: int, gpu: float) -> tuple[int, ...] | None:
        """Devices for a worker, now its own until it is released; None if there is no room.

        A fraction goes to the fullest device that still has room for it, so that whole devices
        stay free for those who need one.
        """
        if gpu <= 0:
            self._given[worker] = ((), 0.0)
            return ()
        free = self.free()
        if gpu < 1:
            fitting = [d for d, room in free.items() if room >= gpu - _EPSILON]
            if not fitting:
                return None
            chosen: tuple[int, ...] = (min(fitting, key=lambda d: (free[d], d)),)
            share = gpu
        else:
            whole = [d for d, room in free.items() if room >= 1 - _EPSILON]
            needed = math.ceil(gpu - _EPSILON)
            if len(whole) < needed:
                return None
            chosen, share = tuple(whole[:needed]), 1.0
        self._given[worker] = (chosen, share)
        return chosen

    def release(self, worker: int) -> None:
        """The worker is gone; harmless for one that has none."""
        self._given.pop(worker, None)

    def free(self) -> Mapping[int, float]:
        """Device → the share of it that nobody has."""
        room = dict.fromkeys(range(self._count), 1.0)
        for devices, share in self._given.values():
            for device in devices:
                room[device] -= share
        return room
