"""A process that starts a generation, streams into it without end, and is killed."""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import CodePiece, GenerationRequest, VariantEvent, VariantModel


async def main(*arguments: str) -> None:
    database_url, redis_url, prefix, user_id, project_id, lease = arguments
    settings = Settings(environment="testing", database_url=database_url, redis_url=redis_url, redis_key_prefix=prefix)
    actor = Actor.user(UUID(user_id))
    async with DataLayer(settings) as data:
        data._opened.generation_streams.lease_seconds = float(lease)
        models = [VariantModel()] * 2
        generation = await data.generations.start(actor, UUID(project_id), GenerationRequest(), models)
        sys.stdout.write(f"{generation.id}\n")
        sys.stdout.flush()
        number = 0
        while True:
            for variant in range(2):
                number += 2
                piece = CodePiece(f"<p>{number}</p>")
                event = VariantEvent("thinking", {"number": number})
                await data.generations.append(actor, generation.writer_token, variant, number, piece, event)
            await asyncio.sleep(0.02)


asyncio.run(main(*sys.argv[1:]))
