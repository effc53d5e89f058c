"""What every data type can do: describe itself, and turn values to and from their JSON form.

Must never: import numpy or Pillow at module level; they are needed only by the types that use them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

#: Stands for "no default given", since None is a value.
MISSING: Any = type(
    "Missing", (), {"__repr__": lambda self: "MISSING", "__bool__": lambda self: False}
)()


class DataType(ABC):
    """A declared input, output or option.

    A value has two forms: its JSON form, which travels, and its Python form, which the model's
    function sees. For text and numbers they are the same; an image travels as a data URI and is
    a PIL image or numpy array in the function.

    Args:
        description: shown to users of the service.
        default: in Python form or JSON form; without one the field is required as an input.
    """

    #: The name in `to_dict()["type"]`.
    type_name: ClassVar[str]
    #: Whether `deserialize` changes or checks more than `json_type` already guarantees.
    converts_in: ClassVar[bool] = False
    #: Whether `serialize` must run before an answer can be encoded as JSON.
    converts_out: ClassVar[bool] = False

    def __init__(self, *, description: str | None = None, default: Any = MISSING) -> None:
        self.description = description
        self.default = default

    @property
    def required(self) -> bool:
        """As an input: whether a request must name it."""
        return self.default is MISSING

    @property
    @abstractmethod
    def accepted(self) -> str:
        """What is accepted, in words for an error message: `a number from 0 to 40`."""

    @abstractmethod
    def json_type(self) -> Any:
        """A msgspec annotation of the JSON form, with as many of the limits as it can state."""

    @abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the JSON form, with description and default."""

    @abstractmethod
    def deserialize(self, value: Any) -> Any:
        """JSON form → Python form.

        Raises:
            InvalidInput: it does not fit (`field` left empty or a path inside the value such as
                `[3].x`; the caller puts the name before it).
        """

    @abstractmethod
    def serialize(self, value: Any) -> Any:
        """Python form → JSON form.

        Raises:
            InvalidInput: the value does not fit the type (for an output: the model's mistake).
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Description for users: `type`, `description`, `default` and the limits, in camelCase."""

    @abstractmethod
    def example(self) -> Any:
        """A JSON form that is accepted: the default, else a small valid value."""

    def from_text(self, text: str) -> Any:
        """A query string's or command line's text → JSON form (still to be deserialised).

        Raises:
            InvalidInput: the text cannot be read as this type.
        """
        return text
