"""Commands that are sent together, with a result for each."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from data_layer.errors import DataLayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from data_layer.cache.time_to_live import TimeToLive


class Batch:
    """Collects commands; ``execute`` sends them in one go and gives their results in order. Made by ``Cache.pipeline``.

    Each method means what the one of the same name on ``Cache`` does. Commands on one key take effect in order; it is
    no transaction. The cache sends what is asked for at the same time together anyway: a batch is for many commands
    whose results are wanted one by one, failures included.
    """

    def __init__(self, cache: Any) -> None:
        # Any, because modules do not import each other in a circle: it is the Cache.
        self._cache = cache
        self._commands: list[Callable[[], Coroutine[Any, Any, Any]]] = []

    def __len__(self) -> int:
        return len(self._commands)

    def get(self, key: str, as_type: Any = None) -> Self:
        """The value, or None."""
        return self._add(partial(self._cache.get, key, as_type))

    def set(self, key: str, value: object, ttl: TimeToLive) -> Self:
        """Stores a value; the result is None."""
        return self._add(partial(self._cache.set, key, value, ttl))

    def add(self, key: str, value: object, ttl: TimeToLive) -> Self:
        """Stores a value if the key is absent; the result says whether it did."""
        return self._add(partial(self._cache.add, key, value, ttl))

    def delete(self, key: str) -> Self:
        """Removes a key; the result says whether it was there."""
        return self._add(partial(self._cache.delete, key))

    def exists(self, key: str) -> Self:
        """Whether the key is there."""
        return self._add(partial(self._cache.exists, key))

    def expire(self, key: str, ttl: TimeToLive) -> Self:
        """Gives a key a new time to live; the result says whether it was there."""
        return self._add(partial(self._cache.expire, key, ttl))

    def touch(self, key: str, ttl: TimeToLive) -> Self:
        """Lets a key live at least so long; the result says whether it was there."""
        return self._add(partial(self._cache.touch, key, ttl))

    def ttl(self, key: str) -> Self:
        """Seconds that the key has left, or None."""
        return self._add(partial(self._cache.ttl, key))

    def increment(self, key: str, amount: int = 1, *, ttl: TimeToLive) -> Self:
        """Adds to a whole number; the result is the sum."""
        return self._add(partial(self._cache.increment, key, amount, ttl=ttl))

    def get_many(self, keys: Iterable[str], as_type: Any = None) -> Self:
        """The values that were found, by key."""
        return self._add(partial(self._cache.get_many, keys, as_type))

    def set_many(self, values: Mapping[str, object], ttl: TimeToLive) -> Self:
        """Stores values; the result is None."""
        return self._add(partial(self._cache.set_many, values, ttl))

    def delete_many(self, keys: Iterable[str]) -> Self:
        """Removes keys; the result says how many were there."""
        return self._add(partial(self._cache.delete_many, keys))

    async def execute(self) -> list[Any]:
        """The results in the order of the commands; one that failed has its DataLayerError as result.

        The batch is empty afterwards and can be filled again.
        """
        commands, self._commands = self._commands, []
        results = await asyncio.gather(*(command() for command in commands), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, DataLayerError):
                raise result
        return results

    def _add(self, command: Callable[[], Coroutine[Any, Any, Any]]) -> Self:
        self._commands.append(command)
        return self
