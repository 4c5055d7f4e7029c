"""Where the primaries are and which of them holds a key."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NamedTuple, Protocol

from data_layer.cache.errors import is_demotion
from data_layer.cache.wire.primary import Primary
from data_layer.errors import CacheError
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from hiredis import ReplyError

    from data_layer.cache.address import ServerAddress
    from data_layer.cache.wire.connect import Connector
    from data_layer.cache.wire.line import Line
    from data_layer.cache.wire.primary import Prepare

_PROBE_SECONDS = 1.0

logger = get_log(__name__)


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
    """One server at a fixed address, which may be a name that leads to another server after a failover.

    Connections that exist stay where they are. So once a second a new one shows where the address leads to now, also
    when the server at the other end of the old ones was cut off and still takes itself for the primary.
    """

    def __init__(self, address: ServerAddress, connector: Connector, prepare: Prepare) -> None:
        self._address = address
        self._connector = connector
        self._prepare = prepare
        self._watching: asyncio.Task[None] | None = None
        self.only = Primary(str(address), connector, self._locate, self._prepare_primary)
        self.primaries = (self.only,)

    def find(self, _key: bytes | None) -> Primary | None:
        """Always the same."""
        return self.only

    async def discover(self) -> None:
        """Nothing has to be found out."""

    async def detour(self, refusal: ReplyError, primary: Primary, _key: bytes | None) -> Detour | None:
        """A demoted server's connections are closed by now; its name may lead to its successor."""
        return Detour(primary) if is_demotion(refusal) else None

    async def close(self) -> None:
        """Closes all lines."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self.only.close()

    async def _locate(self) -> ServerAddress:
        return self._address

    async def _prepare_primary(self, primary: Primary, line: Line) -> None:
        if self._watching is None and self._address.socket_path is None:
            self._watching = asyncio.create_task(self._watch(), name="cache address")
        await self._prepare(primary, line)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_SECONDS * random.uniform(0.8, 1))  # noqa: S311  (no secret)
            if not self.only.was_connected_for(_PROBE_SECONDS / 2):
                continue
            try:
                line = await self._connector.open(self._address, is_primary=True)
                line.close()
                self.only.require_same_server(line.run_id)
            except CacheError as error:
                logger.info("cache_address_checked", server=self.only.name, reason=str(error))
