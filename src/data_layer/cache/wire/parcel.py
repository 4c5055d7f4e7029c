"""Commands that go to one server together, and the keys that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_layer.cache.wire.large_keys import LARGE
from data_layer.cache.wire.line import Command, pack

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterable, Iterator, Sequence

    from data_layer.cache.wire.primary import Primary

_COMMANDS_ON_ONE_KEY = (
    "APPEND DECR DECRBY DUMP EXPIRE EXPIRETIME GET GETDEL GETEX GETRANGE HDEL HGET HGETALL HLEN HMGET HSET INCR INCRBY "
    "PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PTTL SADD SCARD SET SISMEMBER SMEMBERS SREM STRLEN TTL TYPE ZADD ZCARD "
    "ZRANGE ZREM ZSCORE"
)
_KEYS_TOGETHER = 2000
_BYTES_TOGETHER = 2**20
_COMMANDS_ON_MANY_KEYS = frozenset({"DEL", "EXISTS", "MGET", "TOUCH", "UNLINK"})

KEY_POSITIONS: dict[object, int] = {**dict.fromkeys(_COMMANDS_ON_ONE_KEY.split(), 1), "EVAL": 3, "EVALSHA": 3}
"""Where the only key stands, in commands that have one. Any other command goes to whichever primary."""


def keys_of(command: Command) -> list[bytes]:
    """The keys that decide where a command goes and what it may not overtake."""
    if command[0] in _COMMANDS_ON_MANY_KEYS:
        return [as_bytes(key) for key in command[1:]]
    position = KEY_POSITIONS.get(command[0])
    return [] if position is None or len(command) <= position else [as_bytes(command[position])]


def as_bytes(argument: str | bytes | int) -> bytes:
    """The argument as it travels."""
    return argument if isinstance(argument, bytes) else str(argument).encode()


class Parcel:
    """One command, or those of one transaction.

    Args:
        commands: in their order.
        repeatable: whether they may be sent once more when it is unknown if they were carried out.
        atomic: whether they become one transaction.
    """

    __slots__ = (
        "_commands",
        "_entered",
        "is_atomic",
        "key",
        "keys",
        "packed",
        "primary",
        "repeatable",
        "size",
        "waiters",
    )

    def __init__(self, commands: Sequence[Command], *, repeatable: bool, atomic: bool = False) -> None:
        self.packed = [pack(command) for command in commands]
        if atomic:
            self.packed = [pack(("MULTI",)), *self.packed, pack(("EXEC",))]
        self.keys = [key for command in commands for key in keys_of(command)]
        self.key = self.keys[0] if self.keys else None
        self.repeatable = repeatable
        self.size = sum(map(len, self.packed))
        self.primary: Primary | None = None
        self.waiters: list[Future[Any]] | None = None
        self.is_atomic = atomic
        self._commands = commands
        self._entered: Primary | None = None

    def is_large_for(self, primary: Primary) -> bool:
        """Whether it has to take the line for large values."""
        return self.size > LARGE or (bool(primary.large) and not primary.large.keys().isdisjoint(self.keys))

    def enter(self, primary: Primary) -> None:
        """From now on, commands on its keys follow it on the line for large values."""
        if self._entered is not primary:
            self.leave()
            self._entered = primary
            for key in self.keys:
                primary.large.enter(key)

    def leave(self, answer: object = None) -> None:
        """It was answered, or given up."""
        if self._entered is not None:
            is_small = self._commands[0][0] == "GET" and isinstance(answer, bytes) and len(answer) <= LARGE
            is_small = is_small or self._commands[0][0] in {"DEL", "UNLINK"}
            for key in self.keys:
                self._entered.large.leave(key, is_small=is_small)
            self._entered = None


def together(parcels: Iterable[Parcel]) -> Iterator[list[Parcel]]:
    """So many that they neither fill the memory nor keep the server for long."""
    some: list[Parcel] = []
    keys = size = 0
    for parcel in parcels:
        some.append(parcel)
        keys += max(len(parcel.keys), 1)
        size += parcel.size
        if keys >= _KEYS_TOGETHER or size >= _BYTES_TOGETHER:
            yield some
            some, keys, size = [], 0, 0
    if some:
        yield some
