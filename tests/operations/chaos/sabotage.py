"""Takes away one of the things that make it safe, so that the checker can show that it notices."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from data_layer.cache import write_intents
from data_layer.database import transaction
from data_layer.errors import CommitUnknownError, DatabaseUnavailableError, StorageUnavailableError
from data_layer.repositories import unit_of_work
from data_layer.services.audit import buffer
from data_layer.services.sessions import watermark
from data_layer.storage.object_store import adapter, files


def _acknowledge_everything() -> None:
    """Report to a caller that a change is stored when the connection broke before or during the commit."""
    commit = unit_of_work.UnitOfWork._commit

    async def never_fail(self: Any) -> None:
        with suppress(CommitUnknownError, DatabaseUnavailableError):
            await commit(self)

    unit_of_work.UnitOfWork._commit = never_fail  # type: ignore[method-assign]


def _invalidate_nothing() -> None:
    async def announce(_self: Any, _keys: Any, _token: bytes, _limit: float) -> None:
        pass

    async def settle(_self: Any, _keys: Any, _token: bytes = b"") -> int:
        return 0

    write_intents.WriteIntents.announce = announce  # type: ignore[method-assign, assignment]
    write_intents.WriteIntents.settle = settle  # type: ignore[method-assign, assignment]


def _believe_copies_of_sessions() -> None:
    """Copies are believed without knowing what has changed since."""
    take = watermark.Watermark.take

    def take_and_trust(self: Any, *arguments: Any, **options: Any) -> Any:
        take(self, *arguments, **options)
        self.fresh_until = math.inf
        return {}

    watermark.Watermark.take = take_and_trust  # type: ignore[method-assign]
    watermark.Watermark.vouches_for = lambda *_: True  # type: ignore[method-assign]
    watermark.Watermark.abandon = lambda *_: None  # type: ignore[method-assign]


def _keep_connections() -> None:
    """A connection that is not in order is neither closed nor given back."""
    kept = []

    async def keep(_self: Any, connection: Any) -> None:
        kept.append(connection)

    transaction.Transaction._end = keep  # type: ignore[method-assign, assignment]


def _translate_nothing() -> None:
    """Errors of the storage's library come out as they are."""

    @contextmanager
    def untranslated(*_: Any) -> Iterator[None]:
        yield

    for module in (adapter, files):
        vars(module)["translated"] = untranslated


def _forget_audit_entries() -> None:
    """What PostgreSQL does not take is not kept on disk."""

    async def lose(_self: Any, _rows: Any) -> None:
        pass

    buffer.AuditBuffer._keep = lose  # type: ignore[method-assign, assignment]


def _wait_for_ever() -> None:
    """A storage that does not answer in time is waited for a minute longer."""
    finish = files.Upload._finish

    async def finish_late(self: Any, request: Any) -> None:
        try:
            await finish(self, request)
        except Exception as error:
            await asyncio.sleep(60)
            raise StorageUnavailableError("late") from error

    files.Upload._finish = finish_late  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    "acknowledgements": _acknowledge_everything,
    "invalidations": _invalidate_nothing,
    "revocations": _believe_copies_of_sessions,
    "connections": _keep_connections,
    "errors": _translate_nothing,
    "audit": _forget_audit_entries,
    "limits": _wait_for_ever,
}


def sabotage(what: str | None) -> None:
    """Break it, in this process."""
    if what is not None:
        SABOTAGES[what]()
