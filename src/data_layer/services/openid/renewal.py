"""A value of an issuer that is kept, renewed while it is used, and still served when the issuer is down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from data_layer.concurrency import SingleFlight, cancel_and_wait
from data_layer.errors import IssuerError
from data_layer.observability.log import get_log

log = get_log(__name__)

Value = TypeVar("Value")


class Renewed(Generic[Value]):
    """One value, loaded when it is first asked for.

    An old one is returned at once, and renewed behind its back; if that fails, it stays. Whatever happens, the issuer
    is asked at most once in ``pause`` seconds, by all callers together.

    Args:
        name: for the log.
        load: asks the issuer.
        lifetime: seconds after which it is old.
        pause: seconds between two attempts.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Coroutine[Any, Any, Value]],
        *,
        lifetime: float,
        pause: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._load = load
        self._lifetime = lifetime
        self._pause = pause
        self._clock = clock
        self._flight: SingleFlight[str, Value] = SingleFlight(name)
        self._value: Value | None = None
        self._loaded_at = self._tried_at = float("-inf")
        self._error: IssuerError | None = None
        self._task: asyncio.Task[None] | None = None

    async def get(self) -> Value:
        """Return the value.

        Raises:
            IssuerError: there is none yet, and the issuer does not send it.
        """
        if self._value is None:
            return await self.renew()
        now = self._clock()
        if now - self._loaded_at >= self._lifetime and now - self._tried_at >= self._pause:
            self._tried_at = now
            # In an empty context: it belongs to no request.
            self._task = asyncio.get_running_loop().create_task(self._renew_behind(), context=Context())
        return self._value

    async def renew(self) -> Value:
        """Ask the issuer, unless that was tried a moment ago; return what is known then.

        Raises:
            IssuerError: see ``get``.
        """
        if not self._flight.is_under_way(self._name) and self._clock() - self._tried_at < self._pause:
            if self._value is not None:
                return self._value
            if self._error is not None:
                raise type(self._error)(str(self._error), status=self._error.status)
        try:
            return await self._flight.run(self._name, self._ask)
        except IssuerError:
            if self._value is None:
                raise
            return self._value

    async def close(self) -> None:
        """Stop asking."""
        task, self._task = self._task, None
        await cancel_and_wait(task)
        await self._flight.close()

    async def _renew_behind(self) -> None:
        with suppress(IssuerError):  # It is in the log, and what is known stays.
            await self._flight.run(self._name, self._ask)

    async def _ask(self) -> Value:
        self._tried_at = self._clock()
        try:
            value = await self._load()
        except IssuerError as error:
            self._error = error
            log.warning("issuer_failed", what=self._name, reason=str(error))
            raise
        self._value, self._error, self._loaded_at = value, None, self._clock()
        return value
