"""Commands that are reported to an observer; without one they are sent by ``CommandRunner`` itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from typing_extensions import override

from data_layer.cache.address import CacheAddress
from data_layer.cache.commands import CommandRunner, Sent
from data_layer.cache.statistics import Counters
from data_layer.cache.wire.connection import Command
from data_layer.cache.wire.node import Node
from data_layer.errors import CacheError
from data_layer.settings.redis import RedisSettings

CommandObserver = Callable[[str, int, float, str | None], None]

"""Called in the task whose work it is with the command's name, the batch's size, seconds, and an error's code."""

_SEVERAL = "PIPELINE"


class ObservedCommandRunner(CommandRunner):
    """Reports each answered command to an observer, never its key or value."""

    def __init__(
        self, address: CacheAddress, settings: RedisSettings, counters: Counters, observer: CommandObserver
    ) -> None:
        super().__init__(address, settings, counters)
        self._observer = observer

    @override
    async def run(self, *command: str | bytes | int, repeatable: bool = True) -> Any:
        with self._watched(str(command[0])):
            return await super().run(*command, repeatable=repeatable)

    @override
    async def run_on(self, primary: Node, *command: str | bytes | int) -> Any:
        with self._watched(str(command[0])):
            return await super().run_on(primary, *command)

    @override
    async def finish(self, sent: Sent, deadline: float | None = None) -> list[Any]:
        with self._watched_batch(sent.commands):
            return await super().finish(sent, deadline)

    @override
    async def run_all(self, commands: Sequence[Command], *, atomic: bool = False, repeatable: bool = True) -> list[Any]:
        if not atomic:
            return await super().run_all(commands, repeatable=repeatable)
        with self._watched_batch(commands):
            return await super().run_all(commands, atomic=True, repeatable=repeatable)

    @override
    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._watched("MGET", len(keys)):
            return await super().get_many(keys)

    @override
    async def get_with_life(self, key: bytes) -> tuple[bytes | None, int]:
        with self._watched("GET"):
            return await super().get_with_life(key)

    @override
    async def unlink(self, keys: Sequence[bytes]) -> int:
        with self._watched("UNLINK", len(keys)):
            return await super().unlink(keys)

    def _watched_batch(self, commands: Sequence[Command]) -> Any:
        name = str(commands[0][0]) if len(commands) == 1 else _SEVERAL
        return self._watched(name, len(commands))

    @contextmanager
    def _watched(self, name: str, size: int = 1) -> Iterator[None]:
        started, code = perf_counter(), None
        try:
            yield
        except CacheError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            self._observer(name, size, perf_counter() - started, code)
