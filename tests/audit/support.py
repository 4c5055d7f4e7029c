"""What the tests of the audit trail share."""

from __future__ import annotations

from sqlalchemy import text

from data_layer import DataLayer

PATIENCE = 30


async def descriptions(data: DataLayer) -> list[str]:
    """What was recorded, sorted."""
    async with data.transaction() as tx:
        rows = await tx.execute(text("SELECT description FROM audit_logs ORDER BY description"))
        return list(rows.scalars())
