"""``data.operations``: the health of everything and what is logged, for administrators who have no shell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from data_layer.database.schema_check import SchemaState
from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction
from data_layer.errors import InvalidValueError
from data_layer.observability.levels import OURS, LevelChange, LevelFile
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.doctor import Finding
from data_layer.schemas.operations import LogLevel, LogLevelChange, OperatingState
from data_layer.services.arguments import checks_arguments
from data_layer.services.permissions import Permission, as_of_now, require

LONGEST_CHANGE = timedelta(days=7)
"""For how long a level of the log may be changed from here; with a shell it can be for ever."""


def ignore_finding(_finding: Finding) -> None:
    """Ignore it."""


@checks_arguments
class OperationService:
    """What ``data-layer doctor``, ``db current`` and ``logs level`` do, for administrators.

    Args:
        transactions: checks in them who may do this.
        schema: where the tables stand.
        examine: has the doctor look at everything, and passes on each finding.
        levels: what operators have changed.
        log_level: LOG_LEVEL.
    """

    def __init__(
        self,
        transactions: Transactions,
        *,
        schema: Callable[[], Awaitable[SchemaState]],
        examine: Callable[[Callable[[Finding], None]], Awaitable[Sequence[Finding]]],
        levels: LevelFile,
        log_level: str,
    ) -> None:
        self._transactions = transactions
        self._schema = schema
        self._examine = examine
        self._levels = levels
        self._log_level = log_level

    async def examine(
        self, actor: Actor, *, on_finding: Callable[[Finding], None] = ignore_finding
    ) -> Sequence[Finding]:
        """Have the doctor look at settings, servers, tables, storage and this machine; nothing is changed.

        Args:
            actor: an administrator.
            on_finding: called with each finding as soon as it is known.

        Raises:
            PermissionDeniedError: the actor is not an administrator.
        """
        await self._require(actor, Permission.READ_OPERATIONS)
        return await self._examine(on_finding)

    async def state(self, actor: Actor) -> OperatingState:
        """Return where the tables stand, and what is logged.

        Raises:
            PermissionDeniedError: the actor is not an administrator.
            InvalidValueError: the file of changed levels cannot be believed.
        """
        await self._require(actor, Permission.READ_OPERATIONS)
        schema = await self._schema()
        changes = await asyncio.to_thread(self._levels.read)
        return OperatingState(
            migrations=schema.state,
            revision=schema.revision,
            head=schema.head,
            pending=schema.pending,
            log_level=self._log_level,
            level_changes=tuple(LogLevelChange(logger=c.logger, level=c.level, until=c.until) for c in changes),
        )

    async def change_log_level(self, actor: Actor, level: LogLevel, length: timedelta) -> None:
        """Change what all processes with this DATA_FOLDER log, for a while; they notice within two seconds.

        Raises:
            PermissionDeniedError: the actor is not an administrator.
            InvalidValueError: the time is longer than a week, or the folder cannot be written.
        """
        if not timedelta(0) < length <= LONGEST_CHANGE:
            raise InvalidValueError("length must be longer than nothing, and a week at most", field="length")
        change = LevelChange(OURS, level.value, datetime.now(UTC).replace(microsecond=0) + length)
        await self._record(actor, "Changed the level of the log", {"level": level})
        await asyncio.to_thread(self._replace, change)

    async def reset_log_levels(self, actor: Actor) -> None:
        """Undo all changes of levels, so that LOG_LEVEL counts. Harmless to repeat.

        Raises:
            PermissionDeniedError: the actor is not an administrator.
        """
        await self._record(actor, "Reset the levels of the log", {})
        await asyncio.to_thread(self._levels.remove)

    def _replace(self, change: LevelChange) -> None:
        others = [each for each in self._levels.read() if each.logger != change.logger]
        self._levels.write([*others, change])

    async def _require(self, actor: Actor, permission: Permission) -> None:
        require(actor, permission)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), permission)

    async def _record(self, actor: Actor, description: str, values: dict[str, str]) -> None:
        """Record a change before it is made: the file is outside the database, and must not change unrecorded."""
        require(actor, Permission.CHANGE_OPERATIONS)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.CHANGE_OPERATIONS)
            tx.add(
                AuditLog.admin_action(
                    AuditAction.ADMIN_SYSTEM_CONFIG,
                    actor.user_id,
                    description,
                    resource_type="log",
                    resource_id=OURS,
                    new_values=values,
                )
            )
