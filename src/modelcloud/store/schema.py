"""Brings a database to the tables of this version, by the migrations beside this file.

Must never: touch a database whose tables it does not know, whether newer or somebody else's.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from modelcloud.errors import Conflict

#: The table that holds the revision a database stands at.
REVISION_TABLE = "modelcloud_schema"
#: Of somebody else's tables, so many are named.
NAMED = 10
_MIGRATIONS = Path(__file__).with_name("migrations")


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, in the transaction of `connection`.

    Raises:
        Conflict: the tables are newer than this version of modelcloud, or not its own.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    stands_at = _revision(connection)
    known = [revision.revision for revision in script.walk_revisions()]
    if stands_at == known[0]:
        return
    if stands_at is not None and stands_at not in known:
        raise Conflict(
            f"The store has schema {stands_at!r}; this version of modelcloud knows schemas up to "
            f"{known[0]!r}. A newer version has changed it: start that version, or give this one "
            "a store of its own. Nothing was changed."
        )
    command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    """The revision the database stands at; None of an empty one."""
    tables = set(inspect(connection).get_table_names())
    if REVISION_TABLE in tables:
        rows = connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).all()  # noqa: S608 — a constant
        return str(rows[0][0]) if rows else None
    if tables:
        names = sorted(tables)
        named = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
        raise Conflict(
            f"The store holds tables that modelcloud did not make ({named}): give it a database of "
            "its own. Nothing was changed."
        )
    return None
