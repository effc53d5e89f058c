"""Serve Python models that are replaced while they serve.

What a model file needs is exported here; everything heavy is imported when first used, because
workers import this module in environments that hold little more than the model's own libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcloud._version import __version__

if TYPE_CHECKING:
    from modelcloud.launch import run
    from modelcloud.sdk.contract import Batch
    from modelcloud.sdk.decorators import command, setup

__all__ = ["Batch", "__version__", "command", "run", "setup"]

_HOME = {
    "Batch": "modelcloud.sdk.contract",
    "command": "modelcloud.sdk.decorators",
    "run": "modelcloud.launch",
    "setup": "modelcloud.sdk.decorators",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'modelcloud' has no attribute {name!r}")
