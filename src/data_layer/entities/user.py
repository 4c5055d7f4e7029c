"""The ``users`` table, and ``user_identities``: which account belongs to which subject of an OpenID Connect issuer."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import (
    Entity,
    Timestamped,
    choice,
    counter,
    flag,
    json_object,
    metadata_column,
    short_text,
)
from data_layer.entities.enums import AuthProvider, UserRole, UserStatus

# Indexed: PostgreSQL refuses entries of more than 2704 bytes.
_IDENTIFIER = {"length": 255}


class User(Timestamped, Entity, kw_only=True):
    """A person with an account. The row outlives the account: deleting it erases the person, not the id."""

    __tablename__ = "users"

    email: Mapped[str] = mapped_column(short_text(255), info={"format": "email"})
    first_name: Mapped[str] = mapped_column(short_text(100))
    last_name: Mapped[str] = mapped_column(short_text(100))
    display_name: Mapped[str | None] = mapped_column(short_text(255), default=None)
    avatar: Mapped[str | None] = mapped_column(default=None)
    password_hash: Mapped[str | None] = mapped_column(default=None, deferred=True)
    status: Mapped[UserStatus] = choice(UserStatus.ACTIVE)
    role: Mapped[UserRole] = choice(UserRole.USER)
    auth_provider: Mapped[AuthProvider] = choice(AuthProvider.LOCAL)
    azure_id: Mapped[str | None] = mapped_column(default=None, info=_IDENTIFIER)
    google_id: Mapped[str | None] = mapped_column(default=None, info=_IDENTIFIER)
    github_id: Mapped[str | None] = mapped_column(default=None, info=_IDENTIFIER)
    email_verified: Mapped[bool] = flag()
    email_verified_at: Mapped[datetime | None] = mapped_column(default=None)
    last_login_at: Mapped[datetime | None] = mapped_column(default=None)
    last_login_ip: Mapped[str | None] = mapped_column(INET, default=None)
    last_login_user_agent: Mapped[str | None] = mapped_column(default=None)
    login_count: Mapped[int] = counter()
    failed_login_count: Mapped[int] = counter()
    locked_until: Mapped[datetime | None] = mapped_column(default=None)
    password_changed_at: Mapped[datetime | None] = mapped_column(default=None)
    reset_password_token_hash: Mapped[str | None] = mapped_column(default=None, deferred=True)
    reset_password_expires_at: Mapped[datetime | None] = mapped_column(default=None)
    email_verification_token_hash: Mapped[str | None] = mapped_column(default=None, deferred=True)
    email_verification_expires_at: Mapped[datetime | None] = mapped_column(default=None)
    preferences: Mapped[dict[str, Any]] = json_object()
    metadata_: Mapped[dict[str, Any]] = metadata_column()

    @property
    def is_erased(self) -> bool:
        """Whether the account was deleted; only its id is left, for the audit trail."""
        return self.email == erased_email(self.id)

    __table_args__ = (
        Index("uq_users_email", "email", unique=True),
        Index("uq_users_azure_id", "azure_id", unique=True, postgresql_where=text("azure_id IS NOT NULL")),
        Index("uq_users_google_id", "google_id", unique=True, postgresql_where=text("google_id IS NOT NULL")),
        Index("uq_users_github_id", "github_id", unique=True, postgresql_where=text("github_id IS NOT NULL")),
        Index("ix_users_role_id", "role", "id", postgresql_where=text("role <> 'user'")),
        Index(
            "ix_users_preferences",
            "preferences",
            postgresql_using="gin",
            postgresql_ops={"preferences": "jsonb_path_ops"},
        ),
    )


def erased_email(user_id: UUID) -> str:
    """The address of an erased account: one that nobody can register, because it can never receive mail (RFC 2606)."""
    return f"{user_id}@deleted.invalid"


class UserIdentity(Entity, kw_only=True):
    """A subject of an issuer, which belongs to one account; an account has one of each issuer at most.

    Google, GitHub and Microsoft Entra have columns of their own in ``users``.
    """

    __tablename__ = "user_identities"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    issuer: Mapped[str] = mapped_column(short_text(255))
    subject: Mapped[str] = mapped_column(short_text(255))
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    __table_args__ = (
        Index("uq_user_identities_issuer_subject", "issuer", "subject", unique=True),
        Index("uq_user_identities_user_id_issuer", "user_id", "issuer", unique=True),
    )
