"""Asks one question on a connection of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row

from data_layer.database.connection import driver_connection

if TYPE_CHECKING:
    from data_layer.database.engine import Database


async def ask(database: Database, question: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of the answer.

    Raises:
        DatabaseError: the server cannot be asked, or may not answer this user.
    """
    async with driver_connection(database) as connection, connection.cursor(row_factory=dict_row) as cursor:
        # Without a transaction there is nothing to end, and behind a pooler nothing may be prepared.
        await cursor.execute(question.encode(), parameters, prepare=False)
        return await cursor.fetchall()


async def ask_one(database: Database, question: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """The only row of the answer."""
    return (await ask(database, question, parameters))[0]
