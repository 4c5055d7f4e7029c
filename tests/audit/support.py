"""What the tests of the audit trail share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from data_layer import DataLayer

PATIENCE = 30


async def descriptions(data: DataLayer) -> list[str]:
    """What was recorded, sorted."""
    async with data.transaction() as tx:
        rows = await tx.execute(text("SELECT description FROM audit_logs ORDER BY description"))
        return list(rows.scalars())
