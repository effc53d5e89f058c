"""Sequences: array (of any one type) and vector (of floats, a numpy array in the function).

Must never: need numpy to be there; without it a vector is a list.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any

from msgspec import Meta

from modelcloud.errors import InvalidInput
from modelcloud.sdk.data_types.base import (
    MISSING,
    DataType,
    declared_wrong,
    describe,
    inside,
    plain_form,
    read_json,
)
from modelcloud.sdk.data_types.declare import as_type
from modelcloud.sdk.data_types.limits import camel_case, count_words, in_order, whole_limits
from modelcloud.sdk.data_types.scalars import any as any_type
from modelcloud.sdk.data_types.scalars import is_number

#: The greatest 32-bit float.
FLOAT32_MAX = 3.4028234663852886e38


class array(DataType):
    """A list whose items are all of one type.

    Args:
        item_type: a data type, as class or instance; any JSON value when not given.
        min_length: least number of items.
        max_length: greatest number of items.
        description: shown to users of the service.
        default: without one the field is required as an input.
    """

    type_name = "array"

    def __init__(
        self,
        item_type: DataType | type[DataType] = any_type,
        *,
        min_length: int = 0,
        max_length: int | None = None,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        whole_limits("array", 0, {"min_length": min_length, "max_length": max_length})
        in_order("array", ("min_length", min_length), ("max_length", max_length))
        self.item_type = as_type(item_type, "array: item_type")
        self.min_length, self.max_length = min_length, max_length
        self.converts_in = self.item_type.converts_in
        self.converts_out = self.item_type.converts_out
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        words = "an array" + count_words(self.min_length, self.max_length, "items")
        if isinstance(self.item_type, any_type):
            return words
        return f"{words}, each {self.item_type.accepted}"

    def _json_type(self) -> Any:
        items = list[self.item_type.json_type()]  # type: ignore[misc, valid-type]
        if not self.min_length and self.max_length is None:
            return items
        return Annotated[items, Meta(min_length=self.min_length, max_length=self.max_length)]

    def _json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": self.item_type.json_schema()}
        if self.min_length:
            schema["minItems"] = self.min_length
        if self.max_length is not None:
            schema["maxItems"] = self.max_length
        return schema

    def _deserialize(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.refused(describe(value))
        return self._each(self.item_type.deserialize, value)

    def _serialize(self, value: Any) -> list[Any]:
        items = as_list(value)
        if items is None:
            raise self.refused(describe(value))
        return self._each(self.item_type.serialize, items)

    def _each(self, convert: Any, items: list[Any]) -> list[Any]:
        count = len(items)
        if count < self.min_length or (self.max_length is not None and count > self.max_length):
            raise self.refused(describe(items))
        out: list[Any] = []
        try:
            for item in items:
                out.append(convert(item))  # noqa: PERF401 — its length says which failed
        except InvalidInput as error:
            raise inside(len(out), error) from None
        return out

    def _limits(self) -> dict[str, Any]:
        limits = camel_case({"min_length": self.min_length, "max_length": self.max_length})
        return {"itemType": self.item_type.to_dict(), **limits}

    def _example(self) -> list[Any]:
        return [self.item_type.example() for _ in range(self.min_length)]

    def from_text(self, text: str) -> Any:
        """Read a JSON array."""
        return read_json(text, self.accepted)


class vector(DataType):
    """Floats, as many each time: a float32 numpy array in the function (a list without numpy).

    Args:
        length: how many; may be left out when there is a default to count.
        sampling_mean: mean of the numbers a client should draw to make one up.
        sampling_std: their standard deviation.
        description: shown to users of the service.
        default: without one the field is required as an input.
    """

    type_name = "vector"
    converts_in = True
    converts_out = True  # a model's `(1, n)` must not go out for an `(n,)`

    def __init__(
        self,
        length: int | None = None,
        *,
        sampling_mean: float = 0,
        sampling_std: float = 1,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        if length is None and hasattr(default, "__len__"):
            length = len(default)
        if length is None:
            raise declared_wrong("vector", "length is missing", "vector(length=512)")
        whole_limits("vector", 1, {"length": length})
        for name, value in {"sampling_mean": sampling_mean, "sampling_std": sampling_std}.items():
            if not _fits_float32(value):
                raise declared_wrong("vector", f"{name} is {describe(value)}", "a finite number")
        if sampling_std < 0:
            raise declared_wrong(
                "vector", f"sampling_std is {describe(sampling_std)}", "a number of at least 0"
            )
        self.length = length
        self.sampling_mean, self.sampling_std = sampling_mean, sampling_std
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        return f"an array of {self.length} numbers that fit 32-bit floats"

    def _json_type(self) -> Any:
        bound = Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)
        items = list[Annotated[float, bound]]
        return Annotated[items, Meta(min_length=self.length, max_length=self.length)]

    def _json_schema(self) -> dict[str, Any]:
        return {
            "type": "array",
            "items": {"type": "number"},
            "minItems": self.length,
            "maxItems": self.length,
        }

    def _deserialize(self, value: Any) -> Any:
        if not isinstance(value, list) or len(value) != self.length:
            raise self.refused(describe(value))
        plain = {int, float}.issuperset(map(type, value))
        if not plain or not all(map(FLOAT32_MAX.__ge__, map(abs, value))):
            index = next(i for i, item in enumerate(value) if not _fits_float32(item))
            raise inside(index, self.refused(describe(value[index])))
        if find_spec("numpy") is None:
            return [float(item) for item in value]
        import numpy as np

        return np.array(value, dtype=np.float32)

    def _serialize(self, value: Any) -> list[float]:
        plain = as_list(value)
        if plain is None or len(plain) != self.length:
            raise self.refused(describe(value))
        # a NaN passes: the encoder writes null and the worker counts it
        if {float}.issuperset(map(type, plain)):
            return plain
        plain = plain_form(plain)
        for index, item in enumerate(plain):
            if not is_number(item) or (isinstance(item, int) and abs(item) > FLOAT32_MAX):
                raise inside(index, self.refused(describe(item)))
        return [float(item) for item in plain]

    def _limits(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "samplingMean": self.sampling_mean,
            "samplingStd": self.sampling_std,
        }

    def _example(self) -> list[float]:
        return [float(self.sampling_mean)] * self.length

    def from_text(self, text: str) -> Any:
        """Read a JSON array."""
        return read_json(text, self.accepted)


def as_list(value: Any) -> list[Any] | None:
    """The items of a list, a tuple or anything like a numpy array; None when it is none of them."""
    if isinstance(value, (list, tuple)):
        return list(value)
    tolist = getattr(value, "tolist", None)
    items = tolist() if callable(tolist) else None
    return items if isinstance(items, list) else None


def _fits_float32(item: Any) -> bool:
    return is_number(item) and abs(item) <= FLOAT32_MAX
