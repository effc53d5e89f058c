"""Starts the node: in place of this process, or beside it.

Must never: put the settings into argv or the environment, where others can read the admin token;
they travel through an inherited descriptor. Never import what the node itself needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, NoReturn

import msgspec

import modelcloud
from modelcloud.config import ServeConfig

#: As `-m modelcloud.serve`, but nothing is imported from the current folder, where a model's
#: `types.py` may lie; the package is found where it was found here.
_START = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append(sys.argv.pop(1)); "
    "from modelcloud.serve.__main__ import main; sys.exit(main())"
)
_PARENT = str(Path(modelcloud.__file__).parent.parent)


def exec_node(config: ServeConfig) -> NoReturn:
    """Become the node: this process's id, terminal and signals are its own from now on."""
    settings = _settings(config)
    os.set_inheritable(settings, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, _command(settings))  # noqa: S606 — our own module


def spawn_node(config: ServeConfig, **popen: Any) -> subprocess.Popen[bytes]:
    """Start a node beside this process; it stops when this process ends, however it ends.

    Args:
        config: what to serve and how.
        popen: further arguments of `subprocess.Popen`, such as `stdout`.
    """
    settings = _settings(config)
    lifeline, held = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 — our own module
            _command(settings, lifeline), pass_fds=(settings, lifeline), **popen
        )
    except BaseException:
        os.close(held)
        raise
    finally:
        os.close(settings)
        os.close(lifeline)
    weakref.finalize(process, os.close, held)
    return process


def read_settings(descriptor: int) -> ServeConfig:
    """The settings that the starting process left at `descriptor`, which is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return msgspec.msgpack.decode(file.read(), type=ServeConfig)


def _settings(config: ServeConfig) -> int:
    descriptor = os.memfd_create("modelcloud-settings")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(msgspec.msgpack.encode(config))
    return descriptor


def _command(*descriptors: int) -> list[str]:
    return [sys.executable, "-c", _START, _PARENT, *map(str, descriptors)]
