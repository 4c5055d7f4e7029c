"""The ``second_factors`` and ``recovery_codes`` tables: what somebody shows beside the password."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Index, PrimaryKeyConstraint, String, Table, Uuid, func
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, short_text
from data_layer.entities.columns import Choice
from data_layer.entities.enums import FactorKind


class SecondFactor(Entity, kw_only=True):
    """An authenticator app, or a passkey. It counts once it is confirmed.

    ``secret`` is what an app shares with us, encrypted, or the public key of a passkey, which ``credential_id`` names.
    ``last_counter`` is the time step of the last code of an app, or the time in milliseconds of the last challenge of a
    passkey: nothing up to it is accepted again. ``sign_count`` is what a passkey counts itself, if it does.
    """

    __tablename__ = "second_factors"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[FactorKind] = mapped_column(Choice(FactorKind))
    name: Mapped[str] = mapped_column(short_text(100))
    secret: Mapped[bytes] = mapped_column()
    credential_id: Mapped[bytes | None] = mapped_column(default=None)
    last_counter: Mapped[int] = mapped_column(BigInteger(), default=0, server_default=sql_text("0"))
    sign_count: Mapped[int] = mapped_column(BigInteger(), default=0, server_default=sql_text("0"))
    confirmed_at: Mapped[datetime | None] = mapped_column(default=None)
    last_used_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    __table_args__ = (
        Index("ix_second_factors_user_id_id", "user_id", "id"),
        Index(
            "uq_second_factors_credential_id",
            "credential_id",
            unique=True,
            postgresql_where=sql_text("credential_id IS NOT NULL"),
        ),
    )


# A code that was used is removed. A plain table: statements alone change it.
recovery_codes = Table(
    "recovery_codes",
    Entity.metadata,
    Column("user_id", Uuid(), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    PrimaryKeyConstraint("user_id", "code_hash"),
)
