"""Calls that are never repeated are held while what they need is away, instead of being refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from data_layer.concurrency import Backoff
from data_layer.errors import (
    DamagedCodeError,
    DatabaseError,
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DataLayerError,
    MigrationError,
    SchemaMismatchError,
    StorageUnavailableError,
)
from data_layer.observability.log import get_log

log = get_log(__name__)
Result = TypeVar("Result")

_PASSING = (DatabaseError, StorageUnavailableError)
_LASTING = (
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DamagedCodeError,
    MigrationError,
    SchemaMismatchError,
)
"""What no waiting heals."""


async def held(
    attempt: Callable[[], Awaitable[Result]],
    seconds: float,
    *,
    and_for: tuple[type[DataLayerError], ...] = (),
) -> Result:
    """Try until it works, or until that many seconds are over.

    Args:
        attempt: may be repeated harmlessly, also after it has worked without anybody having learnt it.
        seconds: how long no further attempt is begun.
        and_for: errors after which it is repeated, in addition to those of a database or a storage that is away.

    Raises:
        DataLayerError: of the last attempt.
    """
    clock = asyncio.get_running_loop().time
    deadline, pauses = clock() + seconds, Backoff(0.1, 1.0, jitter=0.3)
    while True:
        try:
            return await attempt()
        except DataLayerError as error:
            pause = pauses.next()
            if (
                not isinstance(error, (*_PASSING, *and_for))
                or isinstance(error, _LASTING)
                or clock() + pause > deadline
            ):
                raise
            log.warning("hosted_call_held", reason=error.code)
            await asyncio.sleep(pause)
