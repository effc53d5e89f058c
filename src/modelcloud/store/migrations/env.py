"""Run by Alembic for each upgrade, on the connection that `store.schema` hands over.

Must never: open a connection of its own; the upgrade is one transaction.
"""

from __future__ import annotations

from alembic import context

from modelcloud.store.schema import REVISION_TABLE
from modelcloud.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=REVISION_TABLE,
    render_as_batch=True,  # SQLite alters a table by writing it anew
)
context.run_migrations()
