"""The rows of artifacts: which there are, and what refers to one.

Must never: touch a file; `artifacts.store` does, by what is told here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, select

from modelcloud.artifacts.stage import Staged
from modelcloud.store.tables import Artifact, Deployment, RolloutRow, Version

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def add(tx: Session, staged: Staged) -> None:
    """Add the row of an artifact, unless it is there."""
    if tx.get(Artifact, staged.digest) is None:
        tx.add(
            Artifact(
                digest=staged.digest,
                size=staged.size,
                files=staged.files,
                created_at=time.time(),
            )
        )
        tx.flush()


def forget_unused(tx: Session) -> None:
    """Remove the rows that no version refers to."""
    used = select(Version.id).where(Version.artifact == Artifact.digest).exists()
    tx.execute(delete(Artifact).where(~used))


class Reference(NamedTuple):
    """What something still needs: an artifact by its digest, and the environment to run it in."""

    digest: str
    requirements: str
    python: str


def referenced(tx: Session) -> set[Reference]:
    """What must stay.

    That of versions; and that which a deployment may still start or go back to, though its
    version is gone.
    """
    columns = (Version.artifact, Version.requirements, Version.python)
    found = {Reference(*row) for row in tx.execute(select(*columns).distinct())}
    for facts in tx.scalars(select(Deployment.facts)):
        found.update(_references(facts))
    there = select(Deployment.id)
    for target in tx.scalars(
        select(RolloutRow.target).where(
            RolloutRow.deployment_id.in_(there), RolloutRow.finished_at.is_(None)
        )
    ):
        found.update(_references(target))
    return found


def _references(facts: Any) -> Iterator[Reference]:
    """Of all specs within, wherever they stand."""
    if isinstance(facts, dict):
        digest = facts.get("digest")
        if isinstance(digest, str):
            yield Reference(digest, facts.get("requirements", ""), facts.get("python", ""))
        for value in facts.values():
            yield from _references(value)
    elif isinstance(facts, list):
        for value in facts:
            yield from _references(value)
