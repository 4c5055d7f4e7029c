"""The ``session_changes`` table: which sessions are to be looked at again, and in which transaction that began."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, PrimaryKeyConstraint, Table, Uuid, func, text

from data_layer.entities.base import Entity

# Filled by triggers only (see ``triggers``), so that no way of ending a session can forget it. A plain table: nobody
# needs an object for each row.
session_changes = Table(
    "session_changes",
    Entity.metadata,
    Column("transaction_id", BigInteger(), server_default=text("pg_current_xact_id()::text::bigint"), nullable=False),
    Column("session_id", Uuid(), nullable=False),
    Column("changed_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    PrimaryKeyConstraint("transaction_id", "session_id"),
)
