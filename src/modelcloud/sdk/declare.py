"""What every authoring style checks of the commands and types it declares.

Must never: call the user's functions; only look at them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from modelcloud.errors import ModelLoadError
from modelcloud.sdk.blame import Place, refused
from modelcloud.sdk.contract import CallKind
from modelcloud.sdk.data_types import DataType, as_type

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")

#: Addresses the server answers itself; a command of such a name could not be reached.
RESERVED = frozenset(
    ("healthcheck", "healthz", "meta", "metrics", "readyz", "redoc", "rollback", "rollouts",
     "setup", "v1", "v2")
)  # fmt: skip


def command_name(name: Any, place: Place | None) -> str:
    """Return a command's name.

    Raises:
        ModelLoadError: it cannot stand in an address, or the server answers there itself.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise refused(
            f"{name!r} is no name of a command; accepted: letters, digits, _ and -", place
        )
    if name in RESERVED:
        raise refused(
            f"{name!r} is an address of the server itself; accepted: any command name but "
            + ", ".join(sorted(RESERVED)),
            place,
        )
    return name


def types_of(given: Any, what: str, place: Place | None) -> dict[str, DataType]:
    """Return declared types by name, classes made instances.

    Args:
        given: name → data type, as class or instance.
        what: what they are, for the message: `inputs of 'fib'`.
        place: where they are declared.

    Raises:
        ModelLoadError: `given` is no such mapping, or one of its values no data type.
    """
    if not isinstance(given, Mapping):
        raise refused(
            f"{what}: got {type(given).__name__}; accepted: a dict of name → data type, such as "
            "{'n': number(min=0)}",
            place,
        )
    types = {}
    for name, kind in given.items():
        if not isinstance(name, str) or not name:
            raise refused(f"{what}: {name!r} is no name; accepted: text", place)
        try:
            types[name] = as_type(kind, where=f"{what}: {name!r}")
        except ModelLoadError as error:
            raise refused(error.message, place) from None
    return types


def call_kind(function: Callable[..., Any]) -> CallKind:
    """What calling it gives."""
    if not inspect.isroutine(function) and not isinstance(function, partial):
        function = type(function).__call__
    if inspect.isasyncgenfunction(function):
        return CallKind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(function):
        return CallKind.COROUTINE
    if inspect.isgeneratorfunction(function):
        return CallKind.GENERATOR
    return CallKind.VALUE


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True


def summary(function: Callable[..., Any]) -> str:
    """The first paragraph of its docstring."""
    return (inspect.getdoc(function) or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")
