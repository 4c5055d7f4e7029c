"""A process that makes the exports that are due, and is killed while it stores the first one.

``python -m tests.services.exports.dying_maker``, with its settings in the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from data_layer import DataLayer, Settings
from data_layer.storage import FileContent


async def main() -> None:
    async with DataLayer(Settings()) as data:
        written = data.storage.upload

        async def die(content: FileContent, *arguments: Any, **options: Any) -> str:
            async for _ in content:  # type: ignore[union-attr]
                os.kill(os.getpid(), signal.SIGKILL)
            return await written(b"", *arguments, **options)

        data.storage.upload = die  # type: ignore[method-assign]
        await data.exports.make_due()


if __name__ == "__main__":
    asyncio.run(main())
