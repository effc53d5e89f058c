"""When tokens were last used at the gateways, which check them without the store.

Must never: see a token; gateways tell of digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import or_, update

from modelcloud.control.access.auth import TOUCH_EVERY_S
from modelcloud.store.tables import Token

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from modelcloud.dataplane.messages import Stats

#: Two looks at one use differ by less: gateways tell how long ago it was, not when.
_SAME_S = 1.0


class _Kept(NamedTuple):
    """What was written of a token, and when; monotonic seconds, both."""

    used: float
    written: float


class TokenUses:
    """Which uses the store does not have yet; each token is due once in `TOUCH_EVERY_S`."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def due(self, gateways: Iterable[Stats], now: float) -> dict[str, float]:
        """The digests whose last use is to be written, and how many seconds ago it was.

        Args:
            gateways: their counters.
            now: monotonic seconds.
        """
        latest: dict[str, float] = {}
        for stats in gateways:
            for digest, ago in stats.tokens.items():
                latest[digest] = min(ago, latest.get(digest, ago))
        self._kept = {digest: kept for digest, kept in self._kept.items() if digest in latest}
        return {digest: ago for digest, ago in latest.items() if self._is_due(digest, ago, now)}

    def written(self, due: Mapping[str, float], now: float) -> None:
        """The store has them."""
        self._kept.update({digest: _Kept(now - ago, now) for digest, ago in due.items()})

    def _is_due(self, digest: str, ago: float, now: float) -> bool:
        kept = self._kept.get(digest)
        return kept is None or (
            now - ago > kept.used + _SAME_S and now - kept.written >= TOUCH_EVERY_S
        )


def write(tx: Session, due: Mapping[str, float], wall: float) -> None:
    """Set when tokens were last used, but never to an earlier time."""
    for digest, ago in due.items():
        at = wall - ago
        older = or_(Token.last_used_at.is_(None), Token.last_used_at < at)
        tx.execute(update(Token).where(Token.digest == digest, older).values(last_used_at=at))
