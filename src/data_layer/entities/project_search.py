"""The ``project_search`` and ``project_search_changes`` tables: the index of the search, and what it does not know yet.

Both are plain tables: nobody needs an object for each row.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

from data_layer.entities.base import Entity

# One row for each project, derived from it, its generations and the page that is its latest version. ``revision`` grows
# with each change of the row, so that of two processes that index a project neither overwrites what the other knows.
project_search = Table(
    "project_search",
    Entity.metadata,
    Column("project_id", Uuid(), ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer(), nullable=False),
    Column("prompts", Text(), nullable=False),
    Column("page_text", Text(), nullable=False),
    Column("vector", TSVECTOR(), nullable=False),
    Column("indexed_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Index("ix_project_search_vector", "vector", postgresql_using="gin"),
)

# Filled by triggers only (see ``triggers``), so that no way of changing a project can forget it. Transactions add rows
# of their own and wait for nobody.
project_search_changes = Table(
    "project_search_changes",
    Entity.metadata,
    Column("project_id", Uuid(), nullable=False),
    Column("transaction_id", BigInteger(), server_default=text("pg_current_xact_id()::text::bigint"), nullable=False),
    PrimaryKeyConstraint("project_id", "transaction_id"),
)
