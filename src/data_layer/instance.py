"""The process-wide instance behind the four functions that the specification names."""

from __future__ import annotations

import asyncio

from data_layer.config import Settings
from data_layer.errors import NotInitializedError
from data_layer.layer import DataLayer
from data_layer.schemas.operations import Health
from data_layer.services.statistics import Statistics


class _Holder:
    """Keeps the instance, and the event loop to which it and the lock belong."""

    def __init__(self) -> None:
        self.instance: DataLayer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    def lock(self) -> asyncio.Lock:
        """The lock under which the instance is opened and closed.

        Raises:
            NotInitializedError: the instance belongs to another event loop, which can still close it.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            in_use = self.instance is not None or self._lock.locked()
            if in_use and self._loop is not None and not self._loop.is_closed():
                raise _belongs_elsewhere()
            self.instance, self._loop, self._lock = None, loop, asyncio.Lock()
        return self._lock

    def current(self) -> DataLayer:
        """The instance.

        Raises:
            NotInitializedError: there is none, or it belongs to another event loop.
        """
        if self.instance is None:
            raise NotInitializedError("call initialize_data_layer() first")
        if self._loop is not asyncio.get_running_loop():
            raise _belongs_elsewhere()
        return self.instance


_holder = _Holder()


async def initialize_data_layer(settings: Settings | None = None) -> DataLayer:
    """Open the data layer of this process, or return it when it is open.

    Args:
        settings: by default those of the environment; they count for the call that opens it.

    Raises:
        DataLayerError: when it cannot be opened; see ``DataLayer.open``.
    """
    async with _holder.lock():
        if _holder.instance is None:
            _holder.instance = await DataLayer(settings).open()
        return _holder.instance


async def shutdown_data_layer() -> None:
    """Close the data layer of this process. Harmless when it is closed."""
    async with _holder.lock():
        instance, _holder.instance = _holder.instance, None
        if instance is not None:
            await instance.close()


async def check_data_layer_health() -> Health:
    """Whether database, cache and storage work.

    Raises:
        NotInitializedError: before ``initialize_data_layer``.
    """
    return await _holder.current().health()


async def get_data_layer_stats() -> Statistics:
    """Figures of database, cache and storage.

    Raises:
        NotInitializedError: before ``initialize_data_layer``.
    """
    return await _holder.current().statistics()


def _belongs_elsewhere() -> NotInitializedError:
    return NotInitializedError(
        "the data layer belongs to another event loop; use it there, and call shutdown_data_layer() there first"
    )
