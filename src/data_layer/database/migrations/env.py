"""What Alembic runs for each of its commands: on a connection that it was handed, or offline, writing SQL."""

from __future__ import annotations

from typing import Any

from alembic import context

from data_layer.database.migrations import VERSION_TABLE
from data_layer.entities import Entity

OFFLINE_LIMITS = "SET lock_timeout = '5s'", "SET statement_timeout = '10min'"
"""For those who run the SQL by hand; ``Migrator`` sets its own on its connection."""


def include_name(name: str | None, kind: str, _: Any) -> bool:
    """Leave the tables of a host application that shares the database out of comparisons."""
    return kind != "table" or name in Entity.metadata.tables


def run() -> None:
    """Run the migrations, each in a transaction of its own."""
    options: dict[str, Any] = {
        "target_metadata": Entity.metadata,
        "version_table": VERSION_TABLE,
        "transaction_per_migration": True,
        "include_name": include_name,
        "compare_server_default": True,
    }
    if context.is_offline_mode():
        context.configure(
            dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"}, **options
        )
        for statement in OFFLINE_LIMITS:
            context.execute(statement)
    else:
        context.configure(connection=context.config.attributes["connection"], **options)
    with context.begin_transaction():
        context.run_migrations()


run()
