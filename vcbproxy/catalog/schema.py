"""Which schema the database has, and bringing it up to ours; several processes may try at once.

The common case is one short question. Alembic is only imported when there is something to be done.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from vcbproxy.errors import Error

NEWEST = "0003"


def bring_up(connection: Connection, name: str) -> None:
    """Have our schema in the database. To be called in a transaction that keeps all others from doing the same.

    Args:
        connection: to the database, in that transaction.
        name: what messages call the database.

    Raises:
        Error: a newer vcbproxy made its schema; or it holds tables that are not ours.
    """
    found = _found(connection)
    if found == NEWEST:
        return
    if found is None:
        ours = {"medium", "media_set", "point", "part", "pin", "suspicion"} & set(inspect(connection).get_table_names())
        if ours:
            raise Error(f"{name} has tables of another program ({', '.join(sorted(ours))}); give the catalog its own")
    elif not found.isdecimal() or found > NEWEST:
        raise Error(
            f"the catalog {name} was made by a newer vcbproxy (schema {found}, this one knows {NEWEST}): "
            "use that version, or keep another catalog with this one"
        )
    migrate(connection, "head")


def _found(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def migrate(connection: Connection, to: str) -> None:
    """Take the steps up to one of them, or to the last: ``head``."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "vcbproxy.catalog:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
