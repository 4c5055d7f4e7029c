"""``data.audit``: record what belongs to no transaction, read the trail in pages, export it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack
from uuid import UUID

from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, AuditLevel
from data_layer.errors import InvalidValueError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.audit import AuditBufferStatistics, AuditFilter, AuditPage, AuditSecure, AuditView, ExportFormat
from data_layer.services.arguments import checks_arguments
from data_layer.services.audit.buffer import AuditBuffer
from data_layer.services.audit.recording import EventFields, make_row
from data_layer.services.csv_text import csv_bytes, csv_cell, json_bytes
from data_layer.services.permissions import Permission, as_of_now, require

_LENGTH = 16 + 8


def encode_cursor(last: UUID, wanted: AuditFilter, *, newest_first: bool) -> str:
    """The cursor after an entry, for the same filter and direction only."""
    return base64.urlsafe_b64encode(last.bytes + _mark(wanted, newest_first=newest_first)).decode()


def decode_cursor(cursor: str, wanted: AuditFilter, *, newest_first: bool) -> UUID:
    """The id of the last entry before the page.

    Raises:
        InvalidValueError: it is not a cursor, or one of another filter or direction.
    """
    try:
        decoded = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        decoded = b""
    if len(decoded) != _LENGTH:
        raise InvalidValueError("cursor: this is none; hand back next_cursor of the page before", field="cursor")
    if decoded[16:] != _mark(wanted, newest_first=newest_first):
        raise InvalidValueError("cursor: it belongs to another filter; begin without a cursor", field="cursor")
    return UUID(bytes=decoded[:16])


def _mark(wanted: AuditFilter, *, newest_first: bool) -> bytes:
    return hashlib.sha256(f"{newest_first}{wanted.model_dump_json()}".encode()).digest()[:8]


_BATCH = 1_000


def ignore_progress(_: int) -> None:
    """Ignore it."""


class AuditExporter:
    """One export. Each batch is a short read of its own, so that a slow reader holds neither lock nor snapshot."""

    def __init__(self, transactions: Transactions, wanted: AuditFilter, form: ExportFormat, view: AuditView) -> None:
        self._transactions = transactions
        self._format = form
        self._view = view
        # What is recorded meanwhile, this export first of all, does not belong to it.
        self._wanted = wanted.model_copy(update={"until": wanted.until or datetime.now(UTC)})
        self._names = list(view.schema.model_fields)

    async def run(self, actor: Actor, on_progress: Callable[[int], None]) -> AsyncGenerator[bytes]:
        """The pieces of the file."""
        await self._record(actor)
        if self._format is ExportFormat.CSV:
            yield csv_bytes([self._names])
        count = 0
        last: UUID | None = None
        while True:
            async with self._transactions() as tx:
                # An export may take long: it ends with the right to it.
                require(await as_of_now(tx, actor), Permission.EXPORT_AUDIT_TRAIL)
                rows = await tx.audit.page(self._wanted, self._names, limit=_BATCH, after=last, newest_first=False)
            if rows:
                last = rows[-1]["id"]
                count += len(rows)
                # By our own names: those of SQLAlchemy may be of a subclass of str, which orjson refuses.
                yield self._encode([{name: row[name] for name in self._names} for row in rows])
                on_progress(count)
            if len(rows) < _BATCH:
                return

    def _encode(self, rows: Sequence[dict[str, Any]]) -> bytes:
        if self._format is ExportFormat.JSON_LINES:
            return b"".join(json_bytes(row) + b"\n" for row in rows)
        return csv_bytes([csv_cell(row[name]) for name in self._names] for row in rows)

    async def _record(self, actor: Actor) -> None:
        chosen = self._wanted.model_dump(mode="json", exclude_defaults=True)
        facts = {"format": str(self._format), "view": str(self._view), "filter": chosen}
        text = "Exported the audit trail"
        async with self._transactions() as tx:
            if actor.user_id is not None:
                entry = AuditLog.admin_action(AuditAction.ADMIN_DATA_EXPORT, actor.user_id, text, metadata_=facts)
            else:
                entry = AuditLog.security_event(
                    AuditAction.SECURITY_DATA_EXPORT, text, level=AuditLevel.WARNING, is_success=True, metadata_=facts
                )
            entry.resource_type = "audit_logs"
            tx.add(entry)


MAXIMUM_PAGE = 1000
_EVERYTHING = AuditFilter()


@checks_arguments
class AuditService:
    """The audit trail. What a transaction changes is recorded in it: ``tx.add(AuditLog.data_action(…))``."""

    def __init__(self, transactions: Transactions, buffer: AuditBuffer) -> None:
        self._transactions = transactions
        self._buffer = buffer

    def record_soon(self, action: AuditAction, description: str, **fields: Unpack[EventFields]) -> None:
        """Record what belongs to no transaction and happens often: a download, a failed login.

        It takes microseconds and never waits: the entry is written within AUDIT_FLUSH_INTERVAL together with others,
        and waits on disk (AUDIT_SPILL_FOLDER) while the database cannot take it. Category, level and success are those
        that the action usually has; who and from where comes from ``request_context``. What does not fit is shortened
        or left out.

        Raises:
            InvalidValueError: for a value of another type, and for nothing else.
        """
        self._buffer.add(make_row(action, description, **fields))

    async def flush(self) -> None:
        """Return when everything recorded so far is written, or on disk."""
        await self._buffer.flush()

    def buffer_statistics(self) -> AuditBufferStatistics:
        """What became of the entries of ``record_soon``."""
        return self._buffer.statistics()

    async def list(
        self,
        actor: Actor,
        wanted: AuditFilter = _EVERYTHING,
        *,
        view: AuditView = AuditView.SECURE,
        limit: int = 50,
        cursor: str | None = None,
        newest_first: bool = True,
    ) -> AuditPage[AuditSecure]:
        """A page of the trail, in the order of time.

        Users see what they did themselves, moderators what everybody did, both in the secure view; the others are for
        administrators.

        Args:
            actor: the caller.
            wanted: which entries.
            view: how much of each.
            limit: the length of the page, 1000 at most.
            cursor: ``next_cursor`` of the page before.
            newest_first: or oldest first.

        Raises:
            PermissionDeniedError: the actor may not see these entries, or not so much of them.
            InvalidValueError: a limit out of range, a foreign cursor, or a search for text that would read everything.
        """
        _require_access(actor, wanted, view)
        _require_bounded(wanted)
        if not 1 <= limit <= MAXIMUM_PAGE:
            raise InvalidValueError(f"limit must be a number from 1 to {MAXIMUM_PAGE}", field="limit")
        after = None if cursor is None else decode_cursor(cursor, wanted, newest_first=newest_first)
        async with self._transactions() as tx:
            _require_access(await as_of_now(tx, actor), wanted, view)
        entries = await self._read(wanted, view, limit=limit + 1, after=after, newest_first=newest_first)
        shown = entries[:limit]
        has_more = len(entries) > limit
        following = encode_cursor(shown[-1].id, wanted, newest_first=newest_first) if has_more else None
        return AuditPage[AuditSecure](entries=tuple(shown), next_cursor=following)

    async def export(
        self,
        actor: Actor,
        wanted: AuditFilter = _EVERYTHING,
        *,
        format: ExportFormat = ExportFormat.JSON_LINES,  # noqa: A002  (what callers call it)
        view: AuditView = AuditView.COMPLIANCE,
        on_progress: Callable[[int], None] = ignore_progress,
    ) -> AsyncGenerator[bytes]:
        """The entries as a file, piece by piece, oldest first; memory stays flat however many there are.

        The export is recorded before its first piece is handed out, so that none goes unseen.

        Args:
            actor: the caller; it is written into the record.
            wanted: which entries. Without ``until`` it ends with those of this moment.
            format: JSON Lines or CSV. In CSV a cell that a spreadsheet would calculate gets an apostrophe in front.
            view: how much of each.
            on_progress: called with the number of entries so far, after each piece.

        Raises:
            PermissionDeniedError: the actor may not export.
            InvalidValueError: a search for text that would read everything.
        """
        require(actor, Permission.EXPORT_AUDIT_TRAIL)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.EXPORT_AUDIT_TRAIL)
        _require_bounded(wanted)
        exporter = AuditExporter(self._transactions, wanted, format, view)
        async for piece in exporter.run(actor, on_progress):
            yield piece

    async def _read(
        self, wanted: AuditFilter, view: AuditView, *, limit: int, after: UUID | None, newest_first: bool
    ) -> Sequence[Any]:
        schema = view.schema
        async with self._transactions() as tx:
            rows = await tx.audit.page(
                wanted, list(schema.model_fields), limit=limit, after=after, newest_first=newest_first
            )
        return [schema.model_validate(dict(row)) for row in rows]


def _require_access(actor: Actor, wanted: AuditFilter, view: AuditView) -> None:
    if view is AuditView.SECURE:
        require(actor, Permission.READ_AUDIT_TRAIL, owner=wanted.user_id)
    else:
        require(actor, Permission.READ_AUDIT_DETAILS)


def _require_bounded(wanted: AuditFilter) -> None:
    bounds = (wanted.since, wanted.user_id, wanted.resource_id, wanted.correlation_id)
    if wanted.text is not None and all(bound is None for bound in bounds):
        raise InvalidValueError(
            "text: no index serves it; name since, user_id, resource_id or correlation_id as well", field="text"
        )
