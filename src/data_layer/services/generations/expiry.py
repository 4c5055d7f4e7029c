"""End variants whose writer has stopped: the lease that its appends renew has run out."""

from __future__ import annotations

from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, AuditLevel, GenerationStatus
from data_layer.repositories.unit_of_work import Transactions
from data_layer.services.generations.accounting import charge
from data_layer.services.generations.live import MAXIMUM_VARIANTS
from data_layer.services.generations.publishing import LiveStreams
from data_layer.services.generations.recovery import published_but_not_stored
from data_layer.services.page_images import hold_images
from data_layer.services.project_keys import project_key

SWEEP_SECONDS = 15.0
"""How often a process that writes or serves looks for them; with the lease, less than a minute."""

_MESSAGE = "the writer stopped: nothing came from it before its lease ran out"
_BATCH = 100
_STILL_EXPIRED = -1.0


async def end_expired(transactions: Transactions, live: LiveStreams) -> int:
    """End them as failed, with what had been stored or published of them; how many there were."""
    count = 0
    while True:
        async with transactions() as tx:
            found = await tx.generations.find_expired(_BATCH)
        ended = 0
        for generation_id, project_id in found:
            recovered = await published_but_not_stored(transactions, live, generation_id, only_abandoned=True)
            async with transactions() as tx:
                await tx.generations.lock(generation_id, project_id)
                for each in recovered:
                    await tx.generations.checkpoint(each.code_id, project_id, each.writer, each.unsaved, _STILL_EXPIRED)
                expired = await tx.generations.expire(generation_id, project_id, _MESSAGE)
                if expired:
                    tx.invalidate(project_key(project_id))
                    hold_images(tx, project_id, [(await tx.codes.get(code_id)).code for code_id in expired])
                for code_id in expired:
                    tx.add(
                        AuditLog.system_event(
                            AuditAction.CODE_UPDATE,
                            "Ended a variant whose writer had stopped",
                            level=AuditLevel.WARNING,
                            resource_type="generated_code",
                            resource_id=str(code_id),
                            new_values={"status": "failed"},
                        )
                    )
                tx.generations.close(generation_id, project_id)
                await charge(tx, project_id, expired, GenerationStatus.FAILED)
            live.announce(generation_id, range(MAXIMUM_VARIANTS) if expired else ())
            ended += len(expired)
        count += ended
        # One that is still found, but was not ended, was renewed meanwhile: the next sweep looks again.
        if len(found) < _BATCH or not ended:
            return count
