"""A request that is sent again with its `Idempotency-Key` is done once and answered the same.

The answer is kept in the transaction of the work, so that there is never one without the other.

Must never: keep an answer that holds a secret.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy import delete

from modelcloud.control.common.records import Record
from modelcloud.errors import Conflict, InvalidInput, KeyReused
from modelcloud.store.tables import IdempotencyKey

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

KEPT_S = 24 * 3600.0
_LONGEST = 255

R = TypeVar("R", bound=Record)


class Answer(msgspec.Struct, frozen=True):
    """What a request was answered with."""

    status: int
    body: dict[str, Any]


class Once:
    """One request that creates something.

    Args:
        user_id: whose key it is.
        key: the header's value; None: every request is a new one.
        request: digest of what is asked for, see `fingerprint`.

    Raises:
        InvalidInput: the key is empty, too long or not plain text.
    """

    def __init__(self, user_id: int, key: str | None, request: str) -> None:
        if key is not None and not (
            0 < len(key) <= _LONGEST and key.isascii() and key.isprintable()
        ):
            raise InvalidInput(
                "Idempotency-Key", f"{len(key)} characters", f"1 to {_LONGEST} of printable ASCII"
            )
        self.user_id = user_id
        self.key = key
        self._request = request

    def earlier(self, tx: Session) -> Answer | None:
        """What this request was answered before, if it was.

        Raises:
            KeyReused: the key stands for another request.
        """
        if self.key is None:
            return None
        row = tx.get(IdempotencyKey, (self.user_id, self.key))
        if row is None or row.created_at < time.time() - KEPT_S:
            return None
        if row.request != self._request:
            raise KeyReused("this Idempotency-Key was used for another request; take a new one")
        return Answer(row.status, row.answer)

    def around(self, work: Callable[[Session], R], status: int) -> Callable[[Session], R]:
        """`work`, which then also keeps its record as the answer, to be sent with `status`."""

        def both(tx: Session) -> R:
            record = work(tx)
            if self.key is not None:
                self._keep(tx, self.key, Answer(status, record.model_dump(mode="json")))
            return record

        return both

    def _keep(self, tx: Session, key: str, answer: Answer) -> None:
        now = time.time()
        tx.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - KEPT_S))
        tx.add(
            IdempotencyKey(
                user_id=self.user_id,
                key=key,
                request=self._request,
                status=answer.status,
                answer=answer.body,
                created_at=now,
            )
        )


class InProgress:
    """The requests with a key that are being worked on, of which each may run once at a time."""

    def __init__(self) -> None:
        self._held: set[tuple[int, str]] = set()

    @contextmanager
    def hold(self, once: Once) -> Iterator[None]:
        """Hold the request's key.

        Raises:
            Conflict: an earlier request with this key has not been answered yet.
        """
        if once.key is None:
            yield
            return
        held = (once.user_id, once.key)
        if held in self._held:
            raise Conflict(
                "a request with this Idempotency-Key is being worked on; ask again later"
            )
        self._held.add(held)
        try:
            yield
        finally:
            self._held.discard(held)


def fingerprint(method: str, path: str, query: bytes, body: bytes) -> str:
    """A digest by which the same request is known again."""
    return hashlib.sha256(
        b"\0".join((method.encode(), path.encode("utf-8", "surrogatepass"), query, body))
    ).hexdigest()
