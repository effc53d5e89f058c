"""What a page may offer: the decision that the operation will take, from a level instead of a row.

Must never: allow anything; who presses a button is judged by the operation again.
"""

from __future__ import annotations

from collections.abc import Collection

from modelcloud.control.access.permissions import Action, Actor, Level, Resource, allowed

_GROUP = 1


class Rights:
    """Of an actor in one group, where they hold `level` (a word of `GroupRecord.level`)."""

    def __init__(self, actor: Actor, level: str) -> None:
        self._actor = Actor(
            user_id=actor.user_id, name=actor.name, levels={_GROUP: Level.of(level)}
        )

    def may(self, action: Action, owners: Collection[str] | None = None) -> bool:
        """Whether to offer `action` on what `owners` deployed."""
        owned = None if owners is None else frozenset(owners)
        return allowed(self._actor, action, Resource(group_id=_GROUP, owners=owned))
