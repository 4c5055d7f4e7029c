"""The process-wide instance behind the four functions that the specification names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from data_layer.errors import NotInitializedError
from data_layer.layer import DataLayer

if TYPE_CHECKING:
    from data_layer.config import Settings
    from data_layer.schemas.health import Health
    from data_layer.services.statistics import Statistics


class _Holder:
    """Keeps the instance and the event loop that it belongs to."""

    instance: DataLayer | None = None
    opening: asyncio.Lock | None = None
    loop: asyncio.AbstractEventLoop | None = None

    def lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            if self.instance is not None and self.loop is not None and not self.loop.is_closed():
                raise NotInitializedError("the data layer belongs to another event loop; shut it down there first")
            self.loop, self.opening, self.instance = loop, asyncio.Lock(), None
        if self.opening is None:
            self.opening = asyncio.Lock()
        return self.opening


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
    return await _current().health()


async def get_data_layer_stats() -> Statistics:
    """Figures of database, cache and storage.

    Raises:
        NotInitializedError: before ``initialize_data_layer``.
    """
    return await _current().statistics()


def _current() -> DataLayer:
    if _holder.instance is None:
        raise NotInitializedError("call initialize_data_layer() first")
    return _holder.instance
