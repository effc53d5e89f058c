"""Lost updates: an edit made on what is no longer there is refused.

Must never: know what is edited.
"""

from __future__ import annotations

from modelcloud.errors import PreconditionFailed


class Expected:
    """The revisions that an edit was made on, from an `If-Match` header.

    Args:
        header: its value; None or `*` accept whatever stands.
    """

    def __init__(self, header: str | None = None) -> None:
        tags = {tag.strip() for tag in (header or "*").split(",")}
        self._tags = None if "*" in tags else tags

    def check(self, revision: int, what: str) -> None:
        """Refuse the edit unless it was made on `revision`; call it inside the transaction.

        Raises:
            PreconditionFailed: `what` was changed in the meantime.
        """
        if self._tags is not None and etag(revision) not in self._tags:
            raise PreconditionFailed(
                f"{what} was changed since you read it; read it again and repeat the change",
                revision=revision,
            )


def etag(revision: int) -> str:
    """The entity tag of a revision."""
    return f'"{revision}"'
