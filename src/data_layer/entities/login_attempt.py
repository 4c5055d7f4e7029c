"""The ``login_attempts`` table: how often logging in failed lately, for accounts, networks and pairs of both."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Double, PrimaryKeyConstraint, Table, Uuid, func, text

from data_layer.entities.base import Entity

# Names are keyed hashes: a row discloses neither an e-mail address nor a network address. It needs no user, because
# attempts on addresses without an account count as well. A plain table: it is changed by statements only.
login_attempts = Table(
    "login_attempts",
    Entity.metadata,
    Column("account", Uuid(), nullable=False),
    Column("network", Uuid(), nullable=False),
    Column("level", Double(), server_default=text("0"), nullable=False),
    Column("leveled_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("blocked_until", DateTime(timezone=True)),
    Column("last_succeeded_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("account", "network"),
)
