"""What all tables have in common: time-ordered ids, times, checked values, JSON columns and counters."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Integer,
    MetaData,
    String,
    Text,
    Uuid,
    false,
    func,
    inspect,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, MappedColumn, mapped_column
from sqlalchemy.types import TypeEngine
from uuid_utils.compat import uuid7

from data_layer.entities.columns import Choice, Json, JsonObject, TextList

Chosen = TypeVar("Chosen", bound=StrEnum)

_EMPTY_OBJECT = text("'{}'::jsonb")
_EMPTY_LIST = text("'[]'::jsonb")


class Entity(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False, repr=False):
    """A row of one of our tables. Values are checked when they are assigned, counters change in SQL only."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy declares the name)
        datetime: DateTime(timezone=True),
        str: Text(),
        UUID: Uuid(),
    }
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012  (SQLAlchemy declares the name)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=uuid7, sort_order=-1)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for column in cls.__table__.columns if hasattr(cls, "__table__") else ():
            if isinstance(column.type, Choice):
                column.table.append_constraint(_one_of(column.name, column.type.values))
            elif isinstance(column.type, Json):
                column.type.field = column.key
                if cls.__tablename__ != "audit_logs":
                    column.table.append_constraint(_json_rule(column.name, column.type))

    def __repr__(self) -> str:
        identity = inspect(self).dict.get("id")
        return f"<{type(self).__name__} {identity}>"


class Timestamped(MappedAsDataclass, kw_only=True, eq=False, repr=False):
    """When a row was made and last changed: by the clock of the database, unless history is imported."""

    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now(), sort_order=1)
    updated_at: Mapped[datetime] = mapped_column(
        default=None, server_default=func.now(), onupdate=func.now(), sort_order=1
    )


def short_text(length: int) -> String:
    """A text of at most ``length`` characters."""
    return String(length)


def choice(default: Chosen) -> MappedColumn[Chosen]:
    """A value of an enumeration that has a default."""
    return mapped_column(Choice(type(default)), default=default, server_default=default.value)


def flag() -> MappedColumn[bool]:
    """A truth value, false by default."""
    return mapped_column(default=False, server_default=false())


def counter() -> MappedColumn[int]:
    """A number that only SQL changes: ``repository.increment``; assigning to it is refused."""
    return mapped_column(init=False, server_default=text("0"), info={"counter": True})


def json_object() -> MappedColumn[dict[str, Any]]:
    """A JSON object, ``{}`` by default; see ``columns``."""
    return mapped_column(JsonObject.as_mutable(Json(JsonObject)), default_factory=dict, server_default=_EMPTY_OBJECT)


def json_list() -> MappedColumn[list[str]]:
    """A JSON list of texts, ``[]`` by default; see ``columns``."""
    return mapped_column(TextList.as_mutable(Json(TextList)), default_factory=list, server_default=_EMPTY_LIST)


def metadata_column() -> MappedColumn[dict[str, Any]]:
    """Free extra data; the column is called ``metadata``, a name that SQLAlchemy keeps for itself on classes."""
    return mapped_column(
        "metadata", JsonObject.as_mutable(Json(JsonObject)), default_factory=dict, server_default=_EMPTY_OBJECT
    )


def amount(kind: type[TypeEngine[Any]] = Integer) -> MappedColumn[Any]:
    """A number that is never negative, such as a size in bytes or a duration; empty by default."""
    return mapped_column(kind, default=None, info={"range": (0, math.inf)})


def rating() -> MappedColumn[int | None]:
    """A number of stars, 1 to 5; the table also needs ``rating_rule()``."""
    return mapped_column(default=None, info={"range": (1, 5)})


def rating_rule() -> CheckConstraint:
    """The CHECK constraint of a ``rating()`` column."""
    return CheckConstraint("rating BETWEEN 1 AND 5", name="rating")


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """The rule that a text column holds one of the values of an enumeration."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _json_rule(column: str, values: Json) -> CheckConstraint:
    """The rule that a jsonb column holds an object, or a list of texts."""
    if values.container is TextList:
        rule = (
            f"""jsonb_typeof({column}) = 'array' AND NOT jsonb_path_exists({column}, '$[*] ? (@.type() <> "string")')"""
        )
    else:
        rule = f"jsonb_typeof({column}) = 'object'"
    return CheckConstraint(rule, name=column)
