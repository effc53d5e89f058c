"""Places in an image: points, bounding boxes and landmarks.

Must never: use pixel coordinates; places are fractions of width and height, from the top left.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from modelcloud.errors import InvalidInput, ModelLoadError
from modelcloud.sdk.data_types.base import (
    MISSING,
    DataType,
    declared_wrong,
    describe,
    inside,
    plain_form,
    read_json,
)
from modelcloud.sdk.data_types.limits import camel_case, whole_limits
from modelcloud.sdk.data_types.scalars import is_number


class _Places(DataType):
    """Numbers from 0 to 1, flat or in pairs. They go out unchecked: detectors overshoot edges."""

    def _deserialize(self, value: Any) -> list[Any]:
        return self._checked(value)

    def _serialize(self, value: Any) -> list[Any]:
        return self._checked(plain_form(value))

    @abstractmethod
    def _checked(self, value: Any) -> list[Any]: ...

    def _fractions(self, value: Any, count: int) -> list[float]:
        if not isinstance(value, list) or len(value) != count:
            raise self.refused(describe(value))
        for item in value:
            if not is_number(item) or not 0 <= item <= 1:
                raise self.refused(describe(item))
        return [float(item) for item in value]

    def from_text(self, text: str) -> Any:
        """Read a JSON array."""
        return read_json(text, self.accepted)


def _fractions_type(count: int) -> Any:
    items = list[Annotated[float, Meta(ge=0, le=1)]]
    return Annotated[items, Meta(min_length=count, max_length=count)]


def _fractions_schema(count: int) -> dict[str, Any]:
    items = {"type": "number", "minimum": 0, "maximum": 1}
    return {"type": "array", "items": items, "minItems": count, "maxItems": count}


class image_point(_Places):
    """A place in an image: [x, y], from [0, 0] at the top left to [1, 1] at the bottom right."""

    type_name = "image_point"

    def _accepted(self) -> str:
        return "[x, y], each from 0 to 1"

    def _json_type(self) -> Any:
        return _fractions_type(2)

    def _json_schema(self) -> dict[str, Any]:
        return _fractions_schema(2)

    def _checked(self, value: Any) -> list[Any]:
        return self._fractions(value, 2)

    def _limits(self) -> dict[str, Any]:
        return {}

    def _example(self) -> list[float]:
        return [0.5, 0.5]


class image_bounding_box(_Places):
    """A rectangle in an image: [x1, y1, x2, y2], its top left and bottom right corners."""

    type_name = "image_bounding_box"
    converts_in = True  # that the corners are in order is more than msgspec can state

    def _accepted(self) -> str:
        return "[x1, y1, x2, y2], each from 0 to 1, with x1 ≤ x2 and y1 ≤ y2"

    def _json_type(self) -> Any:
        return _fractions_type(4)

    def _json_schema(self) -> dict[str, Any]:
        return _fractions_schema(4)

    def _checked(self, value: Any) -> list[Any]:
        left, top, right, bottom = box = self._fractions(value, 4)
        if left > right or top > bottom:
            raise self.refused(f"the corners {box}")
        return box

    def _limits(self) -> dict[str, Any]:
        return {}

    def _example(self) -> list[float]:
        return [0.25, 0.25, 0.75, 0.75]


class image_landmarks(_Places):
    """Named places in an image, as many each time: [[x, y], …].

    Args:
        length: how many.
        labels: a name for each.
        connections: pairs of labels to draw lines between.
        description: shown to users of the service.
        default: without one the field is required as an input.
    """

    type_name = "image_landmarks"

    def __init__(
        self,
        length: int | None = None,
        *,
        labels: Sequence[str] | None = None,
        connections: Sequence[Sequence[str]] | None = None,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        if length is None:
            raise _wrong("length is missing", "image_landmarks(17)")
        whole_limits("image_landmarks", 1, {"length": length})
        if labels is not None and (len(labels) != length or len(set(labels)) != length):
            raise _wrong(
                f"labels is {describe(labels)}",
                f"{length} different names",
            )
        for pair in connections or ():
            if labels is None or len(pair) != 2 or not set(pair) <= set(labels):
                raise _wrong(
                    f"a connection is {list(pair)}",
                    "pairs of names from labels",
                )
        self.length = length
        self.labels = None if labels is None else list(labels)
        self.connections = None if connections is None else [list(pair) for pair in connections]
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        return f"an array of {self.length} points [x, y], each from 0 to 1"

    def _json_type(self) -> Any:
        points = list[_fractions_type(2)]  # type: ignore[misc, valid-type]
        return Annotated[points, Meta(min_length=self.length, max_length=self.length)]

    def _json_schema(self) -> dict[str, Any]:
        return {
            "type": "array",
            "items": _fractions_schema(2),
            "minItems": self.length,
            "maxItems": self.length,
        }

    def _checked(self, value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) != self.length:
            raise self.refused(describe(value))
        out: list[Any] = []
        try:
            for point in value:
                out.append(self._fractions(point, 2))  # noqa: PERF401 — its length says which failed
        except InvalidInput as error:
            raise inside(len(out), error) from None
        return out

    def _limits(self) -> dict[str, Any]:
        return camel_case(
            {"length": self.length, "labels": self.labels, "connections": self.connections}
        )

    def _example(self) -> list[list[float]]:
        return [[0.5, 0.5]] * self.length


def _wrong(what: str, accepted: str) -> ModelLoadError:
    return declared_wrong("image_landmarks", what, accepted)
