"""The forms that records and request bodies of the control plane share.

Must never: know a noun.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema


class Record(BaseModel):
    """What an operation returns, and the API shows as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Body(BaseModel):
    """A JSON body that the API takes; a field it does not know is refused by name.

    Strict: `"2"` is no number. Lists and objects become tuples and records as declared.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


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
