"""Sessions in the cache: the id is a secret, so Redis sees only its hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from data_layer.cache.near import MISSING

if TYPE_CHECKING:
    from data_layer.cache.entries import Entries
    from data_layer.cache.keys import Namespace
    from data_layer.cache.near import NearCopy
    from data_layer.cache.time_to_live import TimeToLive

Value = TypeVar("Value")


class SessionEntries:
    """The part of ``Cache`` for sessions."""

    _namespace: Namespace
    _near: NearCopy | None

    @property
    def _entries(self) -> Entries:
        raise NotImplementedError

    async def set_session(self, session_id: str, data: object, ttl: TimeToLive) -> None:
        """Stores the data of a session, in place of any other.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the data, or it is too large.
        """
        await self._entries.write(self._namespace.session(session_id), data, ttl, exactly=True)

    @overload
    async def get_session(self, session_id: str) -> Any: ...
    @overload
    async def get_session(self, session_id: str, as_type: type[Value]) -> Value | None: ...
    async def get_session(self, session_id: str, as_type: Any = None) -> Any:
        """The data of a session, or None when there is none or it has ended."""
        redis_key = self._namespace.session(session_id)
        if self._near is not None:
            value = self._near.find(redis_key, as_type)
            if value is not MISSING:
                return value
        return await self._entries.read(redis_key, as_type)

    async def extend_session(self, session_id: str, ttl: TimeToLive) -> bool:
        """Gives a session a new time to live from now, and says whether it was there."""
        return await self._entries.set_life(self._namespace.session(session_id), ttl)

    async def delete_session(self, session_id: str) -> bool:
        """Removes a session, and says whether it was there."""
        return bool(await self._entries.remove(self._namespace.session(session_id)))
