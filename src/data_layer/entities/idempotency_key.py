"""The ``idempotency_keys`` table: requests that are carried out once, and how they were answered."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Uuid,
    func,
)

from data_layer.entities.base import Entity

# ``key`` is a hash of what the client sent. ``user_id`` is not a foreign key: of a request that needs no login it is a
# hash of the request. While a request runs there is a lease, which ``attempt`` holds; afterwards there are the
# fingerprint of the request and the encrypted answer. A plain table: statements alone change it.
idempotency_keys = Table(
    "idempotency_keys",
    Entity.metadata,
    Column("user_id", Uuid(), nullable=False),
    Column("key", Uuid(), nullable=False),
    Column("attempt", Uuid(), nullable=False),
    Column("lease_until", DateTime(timezone=True)),
    Column("fingerprint", LargeBinary()),
    Column("answer", LargeBinary()),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    PrimaryKeyConstraint("user_id", "key"),
    CheckConstraint(
        "(lease_until IS NULL) = (fingerprint IS NOT NULL) AND (lease_until IS NULL) = (answer IS NOT NULL)",
        name="answered",
    ),
    Index("ix_idempotency_keys_created_at", "created_at"),
)
