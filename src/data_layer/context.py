"""Who acts, and from where: set once per request, and taken over by everything that is recorded meanwhile.

It travels with the task (a context variable), so concurrent requests do not see each other's, and tasks that a request
starts inherit it.
"""

from __future__ import annotations

import ipaddress
import sys
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from random import getrandbits
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack
from uuid import UUID

from data_layer.text_cache import cached_by_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_layer.entities.enums import UserRole

LONGEST_USER_AGENT = 1024
LONGEST_CORRELATION_ID = 255


class ContextFields(TypedDict, total=False):
    """What can be known about a request."""

    actor_id: UUID | None
    actor_role: UserRole | None
    ip_address: str | None
    user_agent: str | None
    session_id: UUID | None
    api_key_id: UUID | None
    correlation_id: str | None
    source: str | None


class RequestContext(NamedTuple):
    """Who acts, and from where. Unknown things are ``None``.

    ``actor_id`` is the user who acts, ``session_id`` the id of the session's row (never its token),
    ``api_key_id`` that of the API key which a program shows, ``source`` the program or the part of it that was called,
    such as ``api`` or ``cli``.
    """

    actor_id: UUID | None = None
    actor_role: UserRole | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    session_id: UUID | None = None
    api_key_id: UUID | None = None
    correlation_id: str | None = None
    source: str | None = None


class Priority(Enum):
    """Who gets a connection of the database first while all are in use."""

    PROBE = "probe"
    """What asks for so little that it is never kept waiting for others."""
    SHED_LAST = "shed_last"
    """What nobody would send again if it was refused, and work that no request began."""
    ORDINARY = "ordinary"
    """What is refused when too much waits."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How work waits while the database has no connection for it.

    Attributes:
        priority: which callers are served first, and refused last.
        seconds: returns how long it may wait from now on; None, or that it returns None: DB_POOL_TIMEOUT.
    """

    priority: Priority = Priority.SHED_LAST
    seconds: Callable[[], float | None] | None = None


_OWN_WORK = Patience()
_patience: ContextVar[Patience] = ContextVar("patience", default=_OWN_WORK)


def set_patience(patience: Patience) -> None:
    """Say how what this task does from now on waits for the database, and what the tasks do that it starts."""
    _patience.set(patience)


def current_patience() -> Patience:
    """How this task waits."""
    return _patience.get()


_NOTHING = RequestContext()
_current: ContextVar[RequestContext] = ContextVar("request_context", default=_NOTHING)


class _Block:
    """The block of ``request_context``; a class, because each request opens one and a generator costs twice as much."""

    __slots__ = ("_fields", "_outer")

    def __init__(self, fields: ContextFields) -> None:
        self._fields = fields
        self._outer = _NOTHING

    def __enter__(self) -> RequestContext:
        self._outer = _current.get()
        fields = _cleaned(self._fields)
        # Mostly it is the outermost block, and replacing nothing would take twice as long.
        context = RequestContext(**fields) if self._outer is _NOTHING else self._outer._replace(**fields)
        _current.set(context)
        return context

    def __exit__(self, *_: object) -> None:
        # Not by a token: a generator that a framework closes elsewhere must not fail there.
        _current.set(self._outer)


def request_context(**fields: Unpack[ContextFields]) -> AbstractContextManager[RequestContext]:
    """Set what is known for the block; what is not named here stays as it was outside.

    What came with the request is never a reason to fail: an address that is none is left out, and texts are shortened
    and freed of what PostgreSQL cannot store.
    """
    return _Block(fields)


def extend_request_context(**fields: Unpack[ContextFields]) -> None:
    """Add what becomes known within a block of ``request_context``, such as the actor; it is forgotten with the block.

    It reaches what runs in the same task from now on, so call it in the task of the block.
    """
    _current.set(_current.get()._replace(**_cleaned(fields)))


def resume_request_context(context: RequestContext) -> None:
    """Set what was known in a block of ``request_context`` again, where a request goes on after that has ended.

    It stays for the rest of the task.
    """
    _current.set(context)


def current_context() -> RequestContext:
    """What is known in this task; the correlation id also where only the middleware for it has set one."""
    context = _current.get()
    correlation_id = current_correlation_id()
    return context if correlation_id == context.correlation_id else context._replace(correlation_id=correlation_id)


def current_correlation_id() -> str | None:
    """Which request, command or job this task works for; every event of the log asks."""
    given = _current.get().correlation_id
    if given is None and (given := _correlation_id_of_middleware()) is not None:
        return _clean(given, LONGEST_CORRELATION_ID)
    return given


def new_correlation_id() -> str:
    """An id for work that no request began, in the shape that requests without one get."""
    # Nobody guesses anything by it, and random bytes of the system would cost each request a call.
    return f"{getrandbits(128):032x}"


def _cleaned(fields: ContextFields) -> ContextFields:
    cleaned = fields.copy()
    if (address := fields.get("ip_address")) is not None:
        cleaned["ip_address"] = _address(address)
    if user_agent := fields.get("user_agent"):
        cleaned["user_agent"] = _clean(user_agent, LONGEST_USER_AGENT)
    if correlation_id := fields.get("correlation_id"):
        cleaned["correlation_id"] = _clean(correlation_id, LONGEST_CORRELATION_ID)
    return cleaned


@cached_by_text(4096)
def _address(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _clean(text: str, length: int) -> str:
    return text[:length].replace("\0", "").encode(errors="replace").decode()


def _correlation_id_of_middleware() -> str | None:
    # Nobody can have set it before the middleware was imported; importing it here would cost every program its import.
    module = sys.modules.get("asgi_correlation_id.context")
    value: str | None = module.correlation_id.get() if module else None
    return value
