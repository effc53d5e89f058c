"""Lists are read a page at a time: so many items, from after the last one seen.

Must never: count or skip rows; a page starts at a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from modelcloud.control.common.records import Listing
from modelcloud.errors import InvalidInput

DEFAULT_LIMIT = 100
MAX_LIMIT = 500

Row = TypeVar("Row")
Item = TypeVar("Item")


class Page(NamedTuple):
    """Which part of a list is asked for; `cursor` is the `next` of the page before."""

    limit: int = DEFAULT_LIMIT
    cursor: str | None = None

    @property
    def after(self) -> int | None:
        """The cursor of a list whose cursors are ids; None at the beginning.

        Raises:
            InvalidInput: it is no such cursor.
        """
        if self.cursor is None:
            return None
        if not (self.cursor.isascii() and self.cursor.isdecimal() and len(self.cursor) < 19):
            raise InvalidInput("cursor", repr(self.cursor[:40]), "the `next` of an earlier answer")
        return int(self.cursor)

    def cut(
        self, rows: Sequence[Row], item: Callable[[Row], Item], cursor: Callable[[Row], object]
    ) -> Listing[Item]:
        """The page, from rows of which one more than `limit` was asked for."""
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        return Listing(
            items=[item(row) for row in shown], next=str(cursor(shown[-1])) if more else None
        )
