"""The ``code_bodies`` table: codes that nobody writes any more, each text once for its project, compressed.

A body is whole, or the difference to a whole one of the same project, so that reading any text takes two rows at most.
What a text is called is its SHA-256, which is compared whenever it is read.

``GeneratedCode.code`` is read through ``CodeText``: a query that selects it gets the text, wherever the text is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import zstandard
from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    and_,
    case,
    false,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    type_coerce,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Null
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

from data_layer.entities.base import Entity
from data_layer.entities.columns import MAXIMUM_TEXT_SIZE
from data_layer.errors import DamagedCodeError, InvalidValueError

ENCODING: Final = "zstd"
SMALLEST = 1024
"""Codes of fewer bytes stay in their row: a body would take hardly less."""

BASES = 4
"""With how many whole texts a code is compared: the variants of a generation have little in common."""

_LEVEL = 6
_USUAL_WINDOW = 20  # As a power of 2.
_LARGEST_DIFFERENCE = 0.4
"""Of what the text takes when it is whole; from there on it becomes the base of those after it."""

code_bodies = Table(
    "code_bodies",
    Entity.metadata,
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("base", LargeBinary),
    Column("bytes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("project_id", "sha256"),
    ForeignKeyConstraint(
        ["project_id", "base"], ["code_bodies.project_id", "code_bodies.sha256"], name="fk_code_bodies_base"
    ),
    CheckConstraint(f"encoding IN ('{ENCODING}')", name="encoding"),
    CheckConstraint("octet_length(sha256) = 32 AND size > 0 AND base <> sha256", name="body"),
    Index("ix_code_bodies_project_id_base", "project_id", "base", postgresql_where=text("base IS NOT NULL")),
)


@dataclass(frozen=True, slots=True)
class CodeBody:
    """A text as it is stored: whole, or the difference to the whole text that ``base`` names."""

    sha256: bytes
    size: int
    base: bytes | None
    data: bytes


class CodePacker:
    """Makes the bodies of one project's codes, which come oldest first.

    Args:
        bases: whole texts of the project that are stored, those used last at the end.
    """

    def __init__(self, bases: dict[bytes, bytes]) -> None:
        self._bases = bases

    def pack(self, code: bytes) -> CodeBody:
        """Return the smallest body of a code."""
        alone = whole(code)
        differences = (
            CodeBody(alone.sha256, alone.size, base, _compressed(code, text))
            for base, text in list(self._bases.items())[-BASES:]
            if base != alone.sha256
        )
        best = min(differences, key=lambda body: len(body.data), default=alone)
        if len(best.data) > _LARGEST_DIFFERENCE * len(alone.data):
            self._bases[alone.sha256] = code
            return alone
        return best


def whole(code: bytes) -> CodeBody:
    """Return the body of a code that needs no other."""
    return CodeBody(hashlib.sha256(code).digest(), len(code), None, _compressed(code, None))


def unpacked(body: CodeBody, base: CodeBody | None = None) -> bytes:
    """Return the text of a body, and of its base if it has one.

    Raises:
        DamagedCodeError: the text is not the one whose hash was stored.
    """
    if (base.sha256 if base else None) != body.base or (base is not None and base.base is not None):
        raise _damaged(body.sha256, "what it was compressed with is missing")
    code = _decompressed(body, None if base is None else _decompressed(base, None))
    if hashlib.sha256(code).digest() != body.sha256:
        raise _damaged(body.sha256, "its bytes have another hash")
    return code


def _damaged(digest: bytes, reason: str) -> DamagedCodeError:
    return DamagedCodeError(
        f"the code with the SHA-256 {digest.hex()} is damaged: {reason}; see what can be repaired with: "
        "data-layer storage check --apply"
    )


def _compressed(code: bytes, dictionary: bytes | None) -> bytes:
    size, more = len(code), len(dictionary or b"")
    # Differences are found wherever the text stands in the base, so the window holds both, and the tables the window.
    window = max(10, min(27, (size + more).bit_length()))
    tables = {"hash_log": window - 2, "chain_log": window - 2} if window > _USUAL_WINDOW else {}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=size, dict_size=more, window_log=window, **tables
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_raw(dictionary)).compress(code)


def _decompressed(body: CodeBody, dictionary: bytes | None) -> bytes:
    try:
        # The size is checked first because zstandard allocates whatever the frame declares.
        if zstandard.frame_content_size(body.data) != body.size or body.size > MAXIMUM_TEXT_SIZE:
            raise _damaged(body.sha256, "its size is not the one that was stored")
        return zstandard.ZstdDecompressor(dict_data=_raw(dictionary)).decompress(body.data)
    except zstandard.ZstdError:
        raise _damaged(body.sha256, "its bytes cannot be decompressed") from None


def _raw(dictionary: bytes | None) -> zstandard.ZstdCompressionDict | None:
    if dictionary is None:
        return None
    return zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


_INLINE = "="
_BODY = "#"


def packed_text(source: Any) -> ColumnElement[str]:
    """What ``text_of`` makes the text of: the code of a row, or else the bodies that it needs.

    Args:
        source: the table ``generated_codes`` or an alias of it.
    """
    own, base = code_bodies.alias(), code_bodies.alias()
    parts = (own.c.size, _hex(own.c.bytes), _hex(own.c.base), base.c.size, _hex(base.c.bytes))
    stored = (
        select(func.concat(*(part for each in parts for part in (_COMMA, each))))
        .select_from(own.outerjoin(base, and_(base.c.project_id == own.c.project_id, base.c.sha256 == own.c.base)))
        .where(own.c.project_id == source.c.project_id, own.c.sha256 == source.c.body)
        .correlate(source)
        .scalar_subquery()
    )
    return case(
        (source.c.body.is_(None), literal_column(f"'{_INLINE}'").concat(source.c.code)),
        else_=func.concat(literal_column(f"'{_BODY}'"), _hex(source.c.body), stored),
    )


def text_of(packed: str) -> str:
    """Return the text of a row as ``packed_text`` selects it.

    Raises:
        DamagedCodeError: the text is not the one that was stored.
    """
    if packed.startswith(_INLINE):
        return packed[len(_INLINE) :]
    digest, *parts = packed.removeprefix(_BODY).split(",")
    sha256 = bytes.fromhex(digest)
    if not parts:
        raise _damaged(sha256, "its body is missing")
    size, data, base_digest, base_size, base_data = parts
    base = CodeBody(bytes.fromhex(base_digest), int(base_size), None, bytes.fromhex(base_data)) if base_size else None
    body = CodeBody(sha256, int(size), bytes.fromhex(base_digest) or None, bytes.fromhex(data))
    return unpacked(body, base).decode()


class CodeText(TypeDecorator[str]):
    """The text of a code, wherever it is: a query that selects it gets the text, never the empty column.

    Conditions can only compare it with whole texts, because the database cannot look into bodies.
    """

    impl = Text
    cache_ok = True

    class Comparator(TypeDecorator.Comparator[str]):
        """Compares with the text of the row and the hash of the body."""

        @override
        def operate(self, op: Any, *other: Any, **options: Any) -> ColumnElement[Any]:
            column: Any = self.expr
            source = column.table
            match op, other:
                case ((operators.eq | operators.ne), (str() as code,)):
                    digest = hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
                    plain = super().operate(operators.eq, code, **options)
                    found = func.coalesce(or_(plain, source.c.body == digest), false())
                    return found if op is operators.eq else ~found
                case ((operators.eq | operators.is_), (None | Null(),)):
                    return false()
                case ((operators.ne | operators.is_not), (None | Null(),)):
                    return true()
            raise InvalidValueError("code can be compared with whole texts only, by == and !=", field="code")

    comparator_factory = Comparator

    @override
    def column_expression(self, column: Any) -> ColumnElement[str]:
        return type_coerce(packed_text(column.table), self)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else text_of(value)


_COMMA: ColumnElement[str] = literal_column("','")


def _hex(column: ColumnElement[Any]) -> ColumnElement[str]:
    return func.encode(column, literal_column("'hex'"))
