"""Settings for a process that takes this one's place, or stands beside it.

Must never: put them into argv or the environment, where others can read a token or a password;
they travel through an inherited descriptor. Never import what the node itself needs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

import modelcloud

T = TypeVar("T")

#: As `-m PROGRAM`, but nothing is imported from the current folder, where a model's `types.py`
#: may lie; the package is found where it was found here.
_START = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append(sys.argv.pop(1)); "
    "from {program} import main; sys.exit(main())"
)
_PARENT = str(Path(modelcloud.__file__).parent.parent)


def command(program: str, *descriptors: int) -> list[str]:
    """The command line that runs `main()` of the module `program`, which finds them in argv."""
    return [sys.executable, "-c", _START.format(program=program), _PARENT, *map(str, descriptors)]


def leave(settings: Any) -> int:
    """A descriptor from which another process can `read` these settings."""
    descriptor = os.memfd_create("modelcloud-settings")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(msgspec.msgpack.encode(settings))
    return descriptor


def read(descriptor: int, kind: type[T]) -> T:
    """The settings that the starting process left at `descriptor`, which is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return msgspec.msgpack.decode(file.read(), type=kind)


def become(program: str, settings: Any) -> NoReturn:
    """Become that program: this process's id, terminal and signals are its own from now on."""
    descriptor = leave(settings)
    os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command(program, descriptor))  # noqa: S606 — our own module
