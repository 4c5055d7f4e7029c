"""Looks at all parts at the same time, and tells in their order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from data_layer.services.doctor.checks import examine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from data_layer.schemas.doctor import Finding
    from data_layer.services.doctor.checks import Check

    Findings = asyncio.Queue[tuple[Finding, ...] | None]


class Doctor:
    """All checks of one configuration.

    Args:
        parts: the checks of each part, in the order in which they are told.
        time_limit: seconds for each check.
        mask: takes secrets out of a text.
    """

    def __init__(self, parts: Mapping[str, Sequence[Check]], *, time_limit: float, mask: Callable[[str], str]) -> None:
        self.time_limit = time_limit
        self._parts = parts
        self._mask = mask

    @property
    def names(self) -> list[str]:
        """What will be looked at, as ``part.check``."""
        return [f"{check.part}.{check.name}" for checks in self._parts.values() for check in checks]

    async def findings(self) -> AsyncIterator[Finding]:
        """What is found, part after part, each as soon as it is known."""
        queues: list[Findings] = [asyncio.Queue() for _ in self._parts]
        pairs = zip(self._parts.values(), queues, strict=True)
        tasks = [asyncio.create_task(self._look(checks, queue)) for checks, queue in pairs]
        try:
            for queue in queues:
                while (found := await queue.get()) is not None:
                    for finding in found:
                        yield finding
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _look(self, checks: Sequence[Check], queue: Findings) -> None:
        try:
            async for found in examine(checks, time_limit=self.time_limit, mask=self._mask):
                queue.put_nowait(found)
        finally:
            queue.put_nowait(None)
