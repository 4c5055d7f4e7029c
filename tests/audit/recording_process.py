"""Records without end, and says how many entries are safe; somebody kills it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from data_layer import AuditAction, DataLayer, Settings


def report(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(database_url: str, redis_url: str, spill: str, uploads: str) -> None:
    settings = Settings(
        environment="testing",
        database_url=database_url,
        redis_url=redis_url,
        audit_spill_folder=Path(spill),
        local_storage_path=Path(uploads),
        audit_flush_interval=0.05,
        db_connect_timeout=3,
    )
    async with DataLayer(settings) as data:
        report("open")
        await asyncio.to_thread(sys.stdin.readline)
        number = 0
        while True:
            for _ in range(100):
                data.audit.record_soon(AuditAction.CODE_DOWNLOAD, f"{number:06}")
                number += 1
            await data.audit.flush()
            report(number)


asyncio.run(main(*sys.argv[1:]))
