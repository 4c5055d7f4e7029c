"""``data.audit``: recording what belongs to no transaction, reading the trail, exporting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from data_layer.errors import InvalidValueError
from data_layer.schemas.audit import AuditFilter, AuditPage, AuditSecure, AuditView, ExportFormat
from data_layer.services.audit.cursor import decode_cursor, encode_cursor
from data_layer.services.audit.export import AuditExporter, ignore_progress
from data_layer.services.audit.recording import EventFields, make_row
from data_layer.services.permissions import Permission, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from uuid import UUID

    from data_layer.entities.enums import AuditAction
    from data_layer.schemas.actors import Actor
    from data_layer.schemas.audit import AuditBufferStatistics
    from data_layer.services.audit.buffer import AuditBuffer
    from data_layer.services.transactions import Transactions

MAXIMUM_PAGE = 1000
_EVERYTHING = AuditFilter()


class AuditService:
    """The audit trail. What a transaction changes is recorded in it: ``tx.add(AuditLog.data_action(…))``."""

    def __init__(self, transactions: Transactions, buffer: AuditBuffer) -> None:
        self._transactions = transactions
        self._buffer = buffer

    def record_soon(self, action: AuditAction, description: str, **fields: Unpack[EventFields]) -> None:
        """Record what belongs to no transaction and happens often: a download, a failed login.

        It takes microseconds, never waits and never fails: the entry is written within AUDIT_FLUSH_INTERVAL together
        with others, and waits on disk (AUDIT_SPILL_FOLDER) while the database cannot take it. Category, level and
        success are those that the action usually has; who and from where comes from ``request_context``.
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
            actor: who asks.
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
    ) -> AsyncIterator[bytes]:
        """The entries as a file, piece by piece, oldest first; memory stays flat however many there are.

        The export is recorded before its first piece is handed out, so that none goes unseen.

        Args:
            actor: who asks; it is written into the record.
            wanted: which entries. Without ``until`` it ends with those of this moment.
            format: JSON Lines or CSV. In CSV a cell that a spreadsheet would calculate gets an apostrophe in front.
            view: how much of each.
            on_progress: told the number of entries so far, after each piece.

        Raises:
            PermissionDeniedError: the actor may not export.
            InvalidValueError: a search for text that would read everything.
        """
        require(actor, Permission.EXPORT_AUDIT_TRAIL)
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
