"""Where the primaries are and which of them holds a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from data_layer.cache.wire.primary import Primary

if TYPE_CHECKING:
    from hiredis import ReplyError

    from data_layer.cache.address import ServerAddress
    from data_layer.cache.wire.connect import Connector
    from data_layer.cache.wire.primary import Prepare


class Detour(NamedTuple):
    """Where a refused command is to be sent instead; ``asking`` because the slot is being moved there."""

    primary: Primary
    asking: bool = False


class Routing(Protocol):
    """One of: a single server, sentinels, a cluster."""

    @property
    def only(self) -> Primary | None:
        """The primary for all keys, if there is but one."""

    @property
    def primaries(self) -> tuple[Primary, ...]:
        """All that are known."""

    def find(self, key: bytes | None) -> Primary | None:
        """The primary that holds the key, or any for no key; None before ``discover``."""

    async def discover(self) -> None:
        """Finds out where the primaries are.

        Raises:
            CacheError: when nobody can be asked.
        """

    async def detour(self, refusal: ReplyError, primary: Primary, key: bytes | None) -> Detour | None:
        """Where to send a command that was refused without having been carried out; None when that would not help."""

    async def close(self) -> None:
        """Closes all lines."""


class SingleServer:
    """One server at a fixed address."""

    def __init__(self, address: ServerAddress, connector: Connector, prepare: Prepare) -> None:
        self._address = address
        self.only = Primary(str(address), connector, self._locate, prepare)
        self.primaries = (self.only,)

    def find(self, _key: bytes | None) -> Primary | None:
        """Always the same."""
        return self.only

    async def discover(self) -> None:
        """Nothing has to be found out."""

    async def detour(self, _refusal: ReplyError, _primary: Primary, _key: bytes | None) -> Detour | None:
        """Nobody else can be asked."""

    async def close(self) -> None:
        """Closes all lines."""
        await self.only.close()

    async def _locate(self) -> ServerAddress:
        return self._address
