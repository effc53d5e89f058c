"""The functions of a notebook as one file: they travel by value, since no module holds them.

Must never: unpickle a file of another Python or another origin than `pack`; the file is code.
"""

from __future__ import annotations

import linecache
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import msgspec

from modelcloud.errors import ModelLoadError
from modelcloud.sdk.blame import user_code
from modelcloud.sdk.decorators import Registry


class Packed(msgspec.Struct, frozen=True, kw_only=True, tag="modelcloud-notebook-1"):
    """What the file holds, as MessagePack.

    Attributes:
        python: version of the interpreter; byte code fits no other minor one.
        path: where the notebook finds modules, for those its functions import.
        sources: file name of a cell → its text, so that tracebacks show the lines.
        registry: the cloudpickle'd `Registry`.
    """

    python: tuple[int, int]
    path: list[str]
    sources: dict[str, str]
    registry: bytes


def pack(registry: Registry) -> bytes:
    """Pickle what a notebook declared.

    Raises:
        ModelLoadError: something its functions refer to cannot be pickled.
    """
    import cloudpickle  # type: ignore[import-untyped]

    declared = [own for _, own in registry.commands.values()]
    declared += [registry.setup] if registry.setup else []
    try:
        pickled = cloudpickle.dumps(registry)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(
            f"the notebook's functions cannot be sent to a worker: {error}; accepted: functions "
            "that refer to values that can be pickled; open files and connections belong in setup"
        ) from error
    return msgspec.msgpack.encode(
        Packed(
            python=sys.version_info[:2],
            path=[os.path.abspath(entry) for entry in sys.path],  # noqa: PTH100 — "" is the cwd
            sources={
                own.place.file: "".join(linecache.getlines(own.place.file)) for own in declared
            },
            registry=pickled,
        )
    )


def unpack(data: bytes) -> Registry:
    """Take back what `pack` wrote, in a worker.

    Raises:
        ModelLoadError: it is no such file, of another Python, or needs a module that is not here.
    """
    try:
        packed = msgspec.msgpack.decode(data, type=Packed)
    except msgspec.MsgspecError as error:
        raise ModelLoadError(
            "no packed notebook; accepted: a file that modelcloud.run() wrote", detail=str(error)
        ) from None
    if packed.python != sys.version_info[:2]:
        theirs, ours = (
            ".".join(map(str, version)) for version in (packed.python, sys.version_info[:2])
        )
        raise ModelLoadError(
            f"the notebook ran Python {theirs} and this worker runs {ours}; accepted: the same"
        )
    sys.path += [entry for entry in packed.path if entry not in sys.path and Path(entry).exists()]
    for name, text in packed.sources.items():
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    with user_code("the notebook"):
        registry: Any = pickle.loads(packed.registry)  # noqa: S301 — staged code, as a .py file is
    if not isinstance(registry, Registry):
        raise ModelLoadError("no packed notebook; accepted: a file that modelcloud.run() wrote")
    return registry
