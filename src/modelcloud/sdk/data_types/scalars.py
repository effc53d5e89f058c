"""Values that JSON holds as they are: number, text, boolean, category and any.

Must never: convert where msgspec's typed decoding says it all; these are the fast path.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from modelcloud.errors import InvalidInput
from modelcloud.sdk.data_types.base import (
    MISSING,
    DataType,
    declared_wrong,
    describe,
    plain_form,
    read_json,
)
from modelcloud.sdk.data_types.limits import (
    camel_case,
    choice_words,
    count_words,
    in_order,
    range_words,
    whole_limits,
)

#: Whole numbers up to here are exact as floats too, and within what msgspec takes as a bound.
_EXACT = 2**53
FLOAT_MAX = sys.float_info.max

_NUMBER_TEXT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BOOLEAN_TEXT = {
    "true": True, "1": True, "yes": True, "on": True,
    "false": False, "0": False, "no": False, "off": False,
}  # fmt: skip


def is_number(value: Any) -> bool:
    """Whether it is an int or float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int)


class number(DataType):
    """A finite number. A whole one stays an int; true and false are none.

    Args:
        min: least value.
        max: greatest value.
        step: values are `min` (else 0) plus a whole multiple of this. When `step` and `min` are
            whole, so is every value: `3.0` comes to the function as the int 3.
        description: shown to users of the service.
        default: without one the field is required as an input.
    """

    type_name = "number"

    def __init__(
        self,
        *,
        min: float | None = None,
        max: float | None = None,
        step: float | None = None,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        for name, limit in {"min": min, "max": max, "step": step}.items():
            if limit is not None and not (is_number(limit) and abs(limit) <= FLOAT_MAX):
                raise declared_wrong("number", f"{name} is {describe(limit)}", "a finite number")
        in_order("number", ("min", min), ("max", max))
        if step is not None and step <= 0:
            raise declared_wrong("number", f"step is {describe(step)}", "a number over 0")
        self.min, self.max, self.step = min, max, step
        self._whole = _is_whole(step) and (min is None or _is_whole(min))
        bounds = [bound for bound in (min, max) if bound is not None]
        self._stated = all(-_EXACT <= bound <= _EXACT for bound in bounds)
        self.converts_in = step is not None or not self._stated
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        words = ("a whole number" if self._whole else "a number") + range_words(self.min, self.max)
        if self.step is None or (self._whole and self.step == 1):
            return words
        return f"{words} in steps of {self.step}"

    def _json_type(self) -> Any:
        if (self.min is None and self.max is None) or not self._stated:
            return int | float
        low, high = self.min, self.max
        whole = Meta(
            ge=None if low is None else math.ceil(low),
            le=None if high is None else math.floor(high),
        )
        real = Meta(ge=low, le=high)
        return Annotated[int, whole] | Annotated[float, real]

    def _json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "integer" if self._whole else "number"}
        if self.min is not None:
            schema["minimum"] = self.min
        if self.max is not None:
            schema["maximum"] = self.max
        # JSON Schema counts multiples from 0; and of a fraction it demands more than floats hold
        if self._whole and self.step is not None and (self.min or 0) % self.step == 0:
            schema["multipleOf"] = self.step
        return schema

    def _deserialize(self, value: Any) -> int | float:
        if not is_number(value) or (isinstance(value, float) and not math.isfinite(value)):
            raise self.refused(describe(value))
        if self._whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        return self._within(value)

    def _serialize(self, value: Any) -> int | float:
        plain = plain_form(value)
        if not is_number(plain):
            raise self.refused(describe(value))
        if isinstance(plain, float) and not math.isfinite(plain):
            return plain  # the encoder writes null and the worker counts it
        return self._within(plain)

    def _within(self, value: float) -> int | float:
        fits = (self.min is None or value >= self.min) and (self.max is None or value <= self.max)
        if not fits or (self.step is not None and not self._on_grid(value)):
            raise self.refused(describe(value))
        return value

    def _on_grid(self, value: float) -> bool:
        assert self.step is not None
        offset = value - (self.min or 0)
        if self._whole:
            return offset % self.step == 0
        try:
            steps = offset / self.step
            return abs(steps - round(steps)) <= 1e-9 * max(1.0, abs(steps))
        except OverflowError:  # so far out that floats have no grid there
            return False

    def _limits(self) -> dict[str, Any]:
        return camel_case({"min": self.min, "max": self.max, "step": self.step})

    def _example(self) -> int | float:
        if self.min is not None:
            return self.min
        if self.max is None or self.max >= 0:
            return 0
        return self.max if self.step is None else math.floor(self.max / self.step) * self.step

    def from_text(self, text: str) -> int | float:
        """Read `25`, `-2.5`, `1e3`; not `nan`, `inf` or `0x10`."""
        if not _NUMBER_TEXT.fullmatch(text.strip()):
            raise self.refused(describe(text))
        try:
            return float(text) if set(text) & set(".eE") else int(text)
        except ValueError:  # more digits than int() takes
            raise self.refused(describe(text)) from None


class text(DataType):
    """Text. Lengths count characters (code points).

    Args:
        min_length: least number of characters.
        max_length: greatest number of characters.
        description: shown to users of the service.
        default: without one the field is required as an input.
    """

    type_name = "text"

    def __init__(
        self,
        *,
        min_length: int = 0,
        max_length: int | None = None,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        whole_limits("text", 0, {"min_length": min_length, "max_length": max_length})
        in_order("text", ("min_length", min_length), ("max_length", max_length))
        self.min_length, self.max_length = min_length, max_length
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        return "text" + count_words(self.min_length, self.max_length, "characters")

    def _json_type(self) -> Any:
        if not self.min_length and self.max_length is None:
            return str
        return Annotated[str, Meta(min_length=self.min_length, max_length=self.max_length)]

    def _json_schema(self) -> dict[str, Any]:
        return {"type": "string", **self._limits()}

    def _deserialize(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.refused(describe(value))
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.refused("text with half a surrogate pair") from None
        if len(value) < self.min_length or (
            self.max_length is not None and len(value) > self.max_length
        ):
            raise self.refused(f"{describe(value[:40])} of {len(value)} characters")
        return value

    def _serialize(self, value: Any) -> str:
        return self._deserialize(plain_form(value))

    def _limits(self) -> dict[str, Any]:
        return camel_case({"min_length": self.min_length, "max_length": self.max_length})

    def _example(self) -> str:
        length = max(self.min_length, 7 if self.max_length is None else min(7, self.max_length))
        return ("example " * (length // 8 + 1))[:length]


class boolean(DataType):
    """true or false, and nothing else: not 0, 1 or "true" (except in a query string)."""

    type_name = "boolean"

    def _accepted(self) -> str:
        return "true or false"

    def _json_type(self) -> Any:
        return bool

    def _json_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def _deserialize(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.refused(describe(value))
        return value

    def _serialize(self, value: Any) -> bool:
        return self._deserialize(plain_form(value))

    def _limits(self) -> dict[str, Any]:
        return {}

    def _example(self) -> bool:
        return False

    def from_text(self, text: str) -> bool:
        """Read true/false, yes/no, on/off or 1/0, in any case."""
        value = _BOOLEAN_TEXT.get(text.strip().lower())
        if value is None:
            raise self.refused(describe(text))
        return value


class category(DataType):
    """One of a list of texts or whole numbers.

    Args:
        choices: at least one, no two alike.
        description: shown to users of the service.
        default: one of the choices; the first when not given.
    """

    type_name = "category"

    def __init__(
        self,
        choices: Sequence[str | int] = (),
        *,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
            got = "missing" if choices == () else describe(choices)
            raise declared_wrong(
                "category", f"choices is {got}", "a list: choices=['small', 'big']"
            )
        for choice in choices:
            plain = type(choice) is str or (type(choice) is int and -_EXACT <= choice <= _EXACT)
            if not plain:
                raise declared_wrong(
                    "category", f"a choice is {describe(choice)}", "texts and whole numbers"
                )
        if len(set(choices)) < len(choices):
            raise declared_wrong(
                "category", f"choices names one twice: {choice_words(choices)}", "each choice once"
            )
        self.choices = list(choices)
        super().__init__(
            description=description, default=choices[0] if default is MISSING else default
        )

    def _accepted(self) -> str:
        return f"one of {choice_words(self.choices)}"

    def _json_type(self) -> Any:
        return Literal[tuple(self.choices)]

    def _json_schema(self) -> dict[str, Any]:
        return {"enum": self.choices}

    def _deserialize(self, value: Any) -> str | int:
        # by type too, since True == 1 == 1.0
        if type(value) not in {str, int} or value not in self.choices:
            raise self.refused(describe(value))
        return value  # type: ignore[no-any-return]

    def _serialize(self, value: Any) -> str | int:
        return self._deserialize(plain_form(value))

    def _limits(self) -> dict[str, Any]:
        return {"oneOf": self.choices}

    def _example(self) -> str | int:
        return self.choices[0]

    def from_text(self, text: str) -> str | int:
        """The choice that is written like this."""
        for choice in self.choices:
            if str(choice) == text:
                return choice
        raise self.refused(describe(text))


class any(DataType):
    """Any JSON value, as it is."""

    type_name = "any"

    def _accepted(self) -> str:
        return "any JSON value"

    def json_type(self) -> Any:
        """Any, which null is part of."""
        return Any

    def _json_type(self) -> Any:
        return Any

    def _json_schema(self) -> dict[str, Any]:
        return {}

    def _deserialize(self, value: Any) -> Any:
        return value

    def _serialize(self, value: Any) -> Any:
        return plain_form(value)

    def _limits(self) -> dict[str, Any]:
        return {}

    def _check(self, default: Any) -> Any:
        try:
            return self._serialize(default)
        except InvalidInput as error:
            raise declared_wrong(
                "any", f"default is {describe(default)}", self._accepted()
            ) from error

    def _example(self) -> Any:
        return {}

    def from_text(self, text: str) -> Any:
        """The JSON value, if it is JSON; else the text itself."""
        try:
            return read_json(text, "JSON")
        except InvalidInput:
            return text
