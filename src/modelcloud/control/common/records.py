"""The forms that records and request bodies of the control plane share.

Must never: know a noun.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from modelcloud.errors import InvalidInput


class Record(BaseModel):
    """What an operation returns, and the API shows as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Body(BaseModel):
    """A JSON body that the API takes; a field it does not know is refused by name.

    Strict: `"2"` is no number. Lists and objects become tuples and records as declared. No text has
    a NUL in it, at any depth: not every database can keep one.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _no_nul(cls, given: Any) -> Any:
        waiting = [("", given)]
        while waiting:
            field, value = waiting.pop()
            if isinstance(value, str) and "\0" in value:
                raise InvalidInput(field or "body", "a text with a NUL", "texts without")
            if isinstance(value, dict):
                waiting += [(field or str(name), name) for name in value]
                waiting += [(field or str(name), inner) for name, inner in value.items()]
            elif isinstance(value, (list, tuple)):
                waiting += [(field, inner) for inner in value]
        return given


Item = TypeVar("Item")


class Listing(Record, Generic[Item]):
    """Some of a list; `next` is the cursor of what follows, None at the end."""

    items: list[Item]
    next: str | None = None


def iso(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(at, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


#: Seconds since the epoch in Python, ISO 8601 in JSON.
Time = Annotated[
    float,
    PlainSerializer(iso, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
