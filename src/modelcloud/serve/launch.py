"""Starts the node of serve mode: in place of this process, or beside it.

Must never: import what the node itself needs.
"""

from __future__ import annotations

import os
import subprocess
import weakref
from typing import Any, NoReturn

from modelcloud.config import ServeConfig
from modelcloud.node import handover

_PROGRAM = "modelcloud.serve.__main__"


def exec_node(config: ServeConfig) -> NoReturn:
    """Become the node: this process's id, terminal and signals are its own from now on."""
    handover.become(_PROGRAM, config)


def spawn_node(config: ServeConfig, **popen: Any) -> subprocess.Popen[bytes]:
    """Start a node beside this process; it stops when this process ends, however it ends.

    Args:
        config: what to serve and how.
        popen: further arguments of `subprocess.Popen`, such as `stdout`.
    """
    settings = handover.leave(config)
    lifeline, held = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 — our own module
            handover.command(_PROGRAM, settings, lifeline),
            pass_fds=(settings, lifeline),
            **popen,
        )
    except BaseException:
        os.close(held)
        raise
    finally:
        os.close(settings)
        os.close(lifeline)
    weakref.finalize(process, os.close, held)
    return process
