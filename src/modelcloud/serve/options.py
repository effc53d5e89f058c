"""Checks option values in the node, by the description of the types that a worker sent.

Must never: fetch, decode or import what a value names; the node holds no user code and no library
of the model. What only a worker can tell (an image's pixels, a file's bytes) is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from modelcloud.errors import InvalidInput
from modelcloud.sdk.data_types.base import TYPES, DataType, describe

#: Types of which the node looks at no more than the JSON form.
_FORM_ONLY: dict[str, tuple[type, str]] = {
    "directory": (str, "text"),
    "file": (str, "text"),
    "image": (str, "text"),
    "segmentation": (str, "text"),
    "vector": (list, "an array"),
}


def check_options(given: Mapping[str, Any], described: Iterable[dict[str, Any]]) -> None:
    """Refuse options that the model does not declare or whose values do not fit.

    Args:
        given: option → JSON form.
        described: the `options` of a signature's `to_dict()`.

    Raises:
        InvalidInput: names the first that is wrong and says what is accepted.
    """
    by_name = {option["name"]: option for option in described}
    for name, value in given.items():
        if name not in by_name:
            accepted = ", ".join(by_name) or "none; the model declares no options"
            raise InvalidInput(name, "an option that is not declared", accepted)
        _check(name, value, by_name[name])


def _check(name: str, value: Any, described: dict[str, Any]) -> None:
    if value is None and described.get("default", ...) is None:
        return
    kind = _rebuilt(described)
    if kind is None:
        form, words = _FORM_ONLY.get(described["type"], (list, "an array"))
        if not isinstance(value, form):
            raise InvalidInput(name, describe(value), words)
        return
    try:
        kind.deserialize(value)
    except InvalidInput as error:
        inside, got, accepted = (error.fields[key] for key in ("field", "got", "accepted"))
        raise InvalidInput(f"{name}{inside}", got, accepted) from None


def _rebuilt(described: dict[str, Any]) -> DataType | None:
    """The type again from its `to_dict()`; None for one that only a worker checks in full."""
    name = described["type"]
    if name in _FORM_ONLY:
        return None
    arguments = {
        _snake_case(key): value
        for key, value in described.items()
        if key not in {"name", "type", "itemType", "oneOf"}
    }
    if name == "category":
        arguments["choices"] = described["oneOf"]
    if name == "array":
        item_type = _rebuilt(described["itemType"])
        if item_type is None:
            return None
        arguments["item_type"] = item_type
    return TYPES[name](**arguments)


def _snake_case(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)
