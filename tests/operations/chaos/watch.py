"""Asks the service again and again whether it is alive, ready and healthy, as an orchestrator would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Self

import httpx

_PAUSE = 0.1
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """To one question; ``status`` 0: none came. ``said`` is the overall status of /health."""

    path: str
    began: float
    ended: float
    status: int
    said: str = ""


class Watch:
    """For an ``async with`` block."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[Answer] = []

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(base_url=self._url, timeout=_PATIENCE)
        self._tasks = [asyncio.create_task(self._ask(path)) for path in ("/livez", "/readyz", "/health")]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def until_unready(self, *, after: float) -> None:
        """Return when the service has said so, to a question that was asked after that moment."""
        await self._until(lambda a: a.path == "/readyz" and a.began > after and a.status == 503)

    async def until_degraded(self, *, after: float) -> None:
        """Return when the service has said that it is ready and only the cache is missing, asked after that moment."""
        await self._until(lambda a: a.path == "/readyz" and a.began > after and a.status == 200)
        await self._until(lambda a: a.path == "/health" and a.began > after and a.said == "degraded")

    async def _until(self, is_wanted: Callable[[Answer], bool]) -> None:
        while not any(map(is_wanted, self.answers)):
            await asyncio.sleep(_PAUSE)

    async def _ask(self, path: str) -> None:
        while True:
            began, status, said = monotonic(), 0, ""
            try:
                answer = await self._client.get(path)
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
            else:
                status = answer.status_code
                if path == "/health":
                    said = str(answer.json().get("status"))
            self.answers.append(Answer(path, began, monotonic(), status, said))
            await asyncio.sleep(_PAUSE)
