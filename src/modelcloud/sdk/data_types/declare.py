"""Turns what a model's author wrote as a type, `text` or `text(max_length=80)`, into an instance.

Must never: guess; what is no data type is refused, with what was probably meant.
"""

from __future__ import annotations

import builtins
import inspect
from typing import Any

from modelcloud.errors import ModelLoadError
from modelcloud.sdk.data_types.base import TYPES, DataType, describe

_MEANT: dict[Any, str] = {
    builtins.any: "any (import it: from modelcloud.data_types import any)",
    str: "text", "str": "text", "string": "text",
    int: "number", float: "number", "int": "number", "float": "number",
    bool: "boolean", "bool": "boolean", list: "array", "list": "array", dict: "any", "dict": "any",
}  # fmt: skip


def as_type(given: Any, where: str = "") -> DataType:
    """The instance that `given`, a data type as class or instance, stands for.

    Args:
        given: what the model's author wrote.
        where: what it was written for, such as `command 'fib', input 'n'`.

    Raises:
        ModelLoadError: it is no data type, or one that cannot do without arguments.
    """
    place = f"{where}: " if where else ""
    if isinstance(given, DataType):
        return given
    if inspect.isclass(given) and issubclass(given, DataType) and not inspect.isabstract(given):
        try:
            return given()
        except ModelLoadError as error:
            raise ModelLoadError(f"{place}{error.message}") from None
        except TypeError as error:
            raise ModelLoadError(f"{place}{given.__name__} needs arguments: {error}") from None
    names = ", ".join(sorted(TYPES))
    raise ModelLoadError(
        f"{place}got {_written(given)}{_hint(given)}; accepted: a data type, as class or instance "
        f"({names})"
    )


def _written(given: Any) -> str:
    if inspect.isclass(given) or inspect.isbuiltin(given) or inspect.isfunction(given):
        return f"`{given.__name__}`"
    return describe(given)


def _hint(given: Any) -> str:
    try:
        meant = _MEANT.get(given) or (given if given in TYPES else None)
    except TypeError:  # not hashable: nothing we know
        return ""
    return f" (meant {meant}?)" if meant else ""
