"""What every data type can do: describe itself, and turn values to and from their JSON form.

Must never: import numpy or Pillow at module level; they are needed only by the types that use them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec

from modelcloud.errors import InvalidInput, ModelLoadError


class _Missing:
    """Type of `MISSING`; a copy sent to another process is that process's `MISSING`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"


#: Stands for "no default given", since None is a value.
MISSING: Any = _Missing()

#: Name → class of every data type, filled as they are defined.
TYPES: dict[str, type[DataType]] = {}


class DataType(ABC):
    """A declared input, output or option.

    A value has two forms: its JSON form, which travels, and its Python form, which the model's
    function sees. For text and numbers they are the same; an image travels as a data URI and is
    a PIL image or numpy array in the function.

    Both `deserialize` and `serialize` hold a value to the type's limits. The request path calls
    them only where the flags say so: an input whose limits msgspec can state is checked while it
    is decoded, and an output that JSON can hold as it is goes straight to the encoder.

    A subclass sets its limits, then calls this constructor, which checks the default by them.

    Args:
        description: shown to users of the service.
        default: in Python form or JSON form; without one the field is required as an input. With
            `None` the field may be left out or null, and the function gets None.

    Attributes:
        default: in JSON form, or MISSING.

    Raises:
        ModelLoadError: the default does not fit.
    """

    #: The name in `to_dict()["type"]`.
    type_name: ClassVar[str]
    #: Whether `deserialize` changes or checks more than `json_type` already guarantees.
    converts_in: bool = False
    #: Whether `serialize` must run before an answer can be encoded as JSON.
    converts_out: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "type_name" in cls.__dict__:
            TYPES[cls.type_name] = cls

    def __init__(self, *, description: str | None = None, default: Any = MISSING) -> None:
        if description is not None and not isinstance(description, str):
            raise declared_wrong(self.type_name, f"description is {describe(description)}", "text")
        self.description = description
        self.default = None if default is None else MISSING
        if default is not None and default is not MISSING:
            self.default = self._check(default)

    @property
    def required(self) -> bool:
        """As an input: whether a request must name it."""
        return self.default is MISSING

    @property
    def accepted(self) -> str:
        """What is accepted, in words for an error message: `a number from 0 to 40`."""
        return f"{self._accepted()}, or null" if self.default is None else self._accepted()

    def json_type(self) -> Any:
        """A msgspec annotation of the JSON form, with as many of the limits as it can state."""
        return self._json_type() | None if self.default is None else self._json_type()

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the JSON form, with description and default."""
        schema = self._json_schema()
        if self.default is None:
            schema = {"anyOf": [schema, {"type": "null"}]}
        if self.description is not None:
            schema["description"] = self.description
        if self.default is not MISSING:
            schema["default"] = self.default
        return schema

    def deserialize(self, value: Any) -> Any:
        """JSON form → Python form.

        Raises:
            InvalidInput: it does not fit (`field` left empty or a path inside the value such as
                `[3]`; the caller puts the name before it).
        """
        if value is None and self.default is None:
            return None
        return self._deserialize(value)

    def serialize(self, value: Any) -> Any:
        """Python form → JSON form.

        Raises:
            InvalidInput: the value does not fit the type (for an output: the model's mistake).
        """
        if value is None and self.default is None:
            return None
        return self._serialize(value)

    def to_dict(self) -> dict[str, Any]:
        """Description for users: `type`, `description`, `default` and the limits, in camelCase."""
        out = {"type": self.type_name, "description": self.description, **self._limits()}
        if self.default is not MISSING:
            out["default"] = self.default
        return out

    def default_value(self) -> Any:
        """The default in Python form, made anew so that no call sees another's changes to it."""
        return self.deserialize(copy.deepcopy(self.default))

    def example(self) -> Any:
        """A JSON form that is accepted: the default, else a small valid value."""
        return self._example() if self.default is None or self.required else self.default

    def from_text(self, text: str) -> Any:
        """A query string's or command line's text → JSON form (still to be deserialised).

        Raises:
            InvalidInput: the text cannot be read as this type.
        """
        return text

    def refused(self, got: str, accepted: str = "") -> InvalidInput:
        """The error of a value that does not fit: what came, and what is accepted."""
        return InvalidInput("", got, accepted or self.accepted)

    # ---- what a subclass says; a null that stands for "left out" never gets here

    @abstractmethod
    def _accepted(self) -> str: ...

    @abstractmethod
    def _json_type(self) -> Any: ...

    @abstractmethod
    def _json_schema(self) -> dict[str, Any]: ...

    @abstractmethod
    def _deserialize(self, value: Any) -> Any: ...

    @abstractmethod
    def _serialize(self, value: Any) -> Any: ...

    @abstractmethod
    def _limits(self) -> dict[str, Any]:
        """The declared limits, camelCase; those not declared are left out."""

    @abstractmethod
    def _example(self) -> Any: ...

    def _check(self, default: Any) -> Any:
        """Return the declared default in JSON form, or raise ModelLoadError."""
        try:
            self._deserialize(default)
        except InvalidInput as error:
            facts = error.fields
        else:
            return plain_form(default)
        try:
            default = self._serialize(default)
            self._deserialize(default)
        except InvalidInput as error:
            accepted = facts["accepted"]
            if error.fields["accepted"] != accepted:
                accepted += f"; or in Python form {error.fields['accepted']}"
            what = f"default{facts['field']} is {facts['got']}"
            raise declared_wrong(self.type_name, what, accepted) from None
        return default


def declared_wrong(type_name: str, what: str, accepted: str) -> ModelLoadError:
    """The error of a type that cannot be declared like this."""
    return ModelLoadError(f"{type_name}: {what}; accepted: {accepted}")


def describe(value: Any) -> str:
    """What came, in words that are short and safe to show."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        bits = value.bit_length()
        return f"the number {value}" if bits <= 64 else f"a number of {bits} bits"
    if isinstance(value, float):
        return f"the number {float(value)}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}" + (f" … ({len(value)} characters)" if value[40:] else "")
    if isinstance(value, (list, tuple)):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    name = type(value).__name__
    if getattr(value, "shape", ()):
        return f"{name} of shape {tuple(value.shape)} and type {getattr(value, 'dtype', '?')}"
    return name


def inside(index: int, error: InvalidInput) -> InvalidInput:
    """The error of an item, as the error of what holds it."""
    fields = error.fields
    return InvalidInput(f"[{index}]{fields['field']}", fields["got"], fields["accepted"])


def to_builtin(value: Any) -> Any:
    """What msgspec does not encode itself → what it does: the `enc_hook` of every answer.

    Takes all that has numpy's `tolist` (numpy and torch scalars and arrays, `array.array`) without
    importing any of them, and subclasses of text and numbers.

    Raises:
        TypeError: it has no JSON form.
    """
    for plain in (str, float, int):
        if isinstance(value, plain):
            return plain(value)
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        plain_value = tolist()
        # numpy.longdouble gives itself back
        return float(plain_value) if type(plain_value) is type(value) else plain_value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def plain_form(value: Any) -> Any:
    """A copy of `value` in which everything is a type that JSON knows (tuples become lists).

    Raises:
        InvalidInput: something in it has no JSON form.
    """
    try:
        return _with_lists(msgspec.to_builtins(value, enc_hook=to_builtin, str_keys=True))
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise InvalidInput("", describe(value), "a value with a JSON form") from None


def _with_lists(plain: Any) -> Any:
    if isinstance(plain, (list, tuple)):
        return [_with_lists(item) for item in plain]
    if isinstance(plain, dict):
        return {key: _with_lists(item) for key, item in plain.items()}
    return plain


def read_json(text: str, accepted: str) -> Any:
    """The JSON in a query string's or command line's text.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise InvalidInput("", describe(text), f"{accepted}, written as JSON") from None
