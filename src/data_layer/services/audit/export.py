"""The audit trail as a file: JSON Lines or CSV, in pieces."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, AuditLevel
from data_layer.schemas.audit import ExportFormat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from uuid import UUID

    from data_layer.schemas.actors import Actor
    from data_layer.schemas.audit import AuditFilter, AuditView
    from data_layer.services.transactions import Transactions

_BATCH = 1_000
_CALCULATED = ("=", "+", "-", "@", "\t", "\r", "\n")


def ignore_progress(_: int) -> None:
    """Tell nobody."""


class AuditExporter:
    """One export. Each batch is a short read of its own, so that a slow reader holds neither lock nor snapshot."""

    def __init__(self, transactions: Transactions, wanted: AuditFilter, form: ExportFormat, view: AuditView) -> None:
        self._transactions = transactions
        self._format = form
        self._view = view
        # What is recorded meanwhile, this export first of all, does not belong to it.
        self._wanted = wanted.model_copy(update={"until": wanted.until or datetime.now(UTC)})
        self._names = list(view.schema.model_fields)

    async def run(self, actor: Actor, on_progress: Callable[[int], None]) -> AsyncIterator[bytes]:
        """The pieces of the file."""
        await self._record(actor)
        if self._format is ExportFormat.CSV:
            yield _csv([self._names])
        count = 0
        last: UUID | None = None
        while True:
            async with self._transactions() as tx:
                rows = await tx.audit.page(self._wanted, self._names, limit=_BATCH, after=last, newest_first=False)
            if rows:
                last = rows[-1]["id"]
                count += len(rows)
                yield self._encode([dict(row) for row in rows])
                on_progress(count)
            if len(rows) < _BATCH:
                return

    def _encode(self, rows: Sequence[dict[str, Any]]) -> bytes:
        if self._format is ExportFormat.JSON_LINES:
            return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z) for row in rows)
        return _csv([_cell(row[name]) for name in self._names] for row in rows)

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


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case dict() | list():
            return orjson.dumps(value).decode()
        case int() | float():
            return str(value)
        case _:
            text = str(value)
            return f"'{text}" if text.startswith(_CALCULATED) else text
