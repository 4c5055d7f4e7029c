"""``data.maintenance``: removes what has expired, and keeps the months of the audit trail.

One process of a cluster at a time; in small steps, each a transaction of its own, so that it can be interrupted
anywhere: the next round goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from data_layer.concurrency import Backoff
from data_layer.context import request_context
from data_layer.database.engine import Database
from data_layer.database.transaction import exclusive_run
from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction
from data_layer.errors import DataLayerError, StatementTimeoutError
from data_layer.observability.log import get_log
from data_layer.observability.timing import timed
from data_layer.repositories.audit_partitions import AuditPartitions, Month
from data_layer.repositories.exports import has_ended
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.operations import MaintenanceReport
from data_layer.services.api_keys import KEPT_AFTER_END
from data_layer.services.arguments import checks_arguments
from data_layer.services.files.cleanup import CleanupReport
from data_layer.services.files.maintenance import FileMaintenance
from data_layer.services.generations import LiveStreams
from data_layer.services.generations.bodies import CodeCheck, CodeCheckReport, pack_codes, remove_orphans
from data_layer.services.generations.expiry import end_expired
from data_layer.services.permissions import Permission, as_of_now, require
from data_layer.services.search import SearchIndex

log = get_log(__name__)

LOCK = int.from_bytes(b"datamain")
"""The key of the advisory lock, in each database."""

MONTHS_AHEAD = 3
_FIRST_MONTH = Month(2020, 1)  # No id of ours is older; what seems to be is another kind of id.
_BATCH = 1_000
_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.4, 3.2
_SECONDS_TO_INDEX = 600.0
_SESSION_GRACE = timedelta(days=1)
_EXPORTS_LISTED = timedelta(days=30)
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_PROJECTS = 20  # Each with all its versions, images and files, in one transaction.
# Each reader of the journal reads it every second; a process that slept longer than this reads everything again.
_JOURNAL_GRACE = timedelta(hours=1)

Progress = Callable[[str, int], None]
Removal = Callable[["UnitOfWork"], Awaitable[int]]


def ignore_progress(_step: str, _count: int) -> None:
    """Ignore it."""


def _file_figures(report: CleanupReport) -> dict[str, int]:
    return {
        "files_expired": report.expired,
        "uploads_abandoned": report.abandoned,
        "objects_removed": report.half_deleted + report.unreferenced + report.orphans,
    }


@checks_arguments
class MaintenanceService:
    """Removes expired sessions, tokens, files and old months of the audit trail, and makes months ahead."""

    def __init__(
        self,
        database: Database,
        transactions: Transactions,
        files: FileMaintenance,
        live: LiveStreams,
        *,
        retention_months: int,
        trash_retention: timedelta | None,
        event_days: int,
        mail_days: int,
    ) -> None:
        self._database = database
        self._transactions = transactions
        self._files = files
        self._live = live
        self._retention_months = retention_months
        self._trash_retention = trash_retention
        self._event_days = event_days
        self._mail_days = mail_days
        self._partitions = AuditPartitions(database)

    async def run(
        self, actor: Actor, *, dry_run: bool = False, on_progress: Progress = ignore_progress
    ) -> MaintenanceReport:
        """One round.

        Args:
            actor: the caller.
            dry_run: change nothing, and report what there is to do.
            on_progress: called with the step and a number, again and again.

        Raises:
            PermissionDeniedError: the actor may not run maintenance.
            DatabaseError: the database cannot be asked at all.
        """
        require(actor, Permission.RUN_MAINTENANCE)
        async with self._transactions() as tx:
            actor = await as_of_now(tx, actor)
        require(actor, Permission.RUN_MAINTENANCE)
        async with exclusive_run(self._database, LOCK) as is_ours:
            if not is_ours:
                return MaintenanceReport(
                    is_dry_run=dry_run, is_complete=False, problems=("another process is at it; nothing was done",)
                )
            parts = (self._partitions, self._transactions, self._files, self._live)
            round_ = _Round(
                *parts,
                retention_months=self._retention_months,
                trash_retention=self._trash_retention,
                event_days=self._event_days,
                mail_days=self._mail_days,
                on_progress=on_progress,
            )
            if dry_run:
                return await round_.plan()
            return await round_.run(actor)

    async def check_codes(
        self, *, repair: bool = False, on_progress: Callable[[int], None] = lambda _: None
    ) -> CodeCheckReport:
        """Compare the bodies of all codes with their hashes, and all codes with what is stored of them.

        Args:
            repair: store a damaged or missing text again that is found whole in a row, or as a body of another project;
                and correct sizes and hashes of codes.
            on_progress: called with how many bodies were seen.
        """
        return await CodeCheck(self._transactions, repair=repair, on_progress=on_progress).run()

    async def end_expired_variants(self) -> int:
        """The step that cannot wait for the next round: end the variants whose writer has stopped; how many."""
        return await end_expired(self._transactions, self._live)


class _Round:
    """One round, in the process that has the lock."""

    def __init__(
        self,
        partitions: AuditPartitions,
        transactions: Transactions,
        files: FileMaintenance,
        live: LiveStreams,
        *,
        retention_months: int,
        trash_retention: timedelta | None,
        event_days: int,
        mail_days: int,
        on_progress: Progress,
    ) -> None:
        self._now = now = datetime.now(UTC)
        self._partitions = partitions
        self._transactions = transactions
        self._files = files
        self._live = live
        self._on_progress = on_progress
        self._expired = now - _SESSION_GRACE
        self._trash_end = _EARLIEST if trash_retention is None else now - trash_retention
        self._keys_end = now - KEPT_AFTER_END
        self._journal_end = now - _JOURNAL_GRACE
        self._events_end = now - timedelta(days=event_days) if event_days else None
        self._mails_end = now - timedelta(days=mail_days)
        self._exports_end = now - _EXPORTS_LISTED
        self._this_month = Month.of(now)
        self._last_month = self._this_month.plus(MONTHS_AHEAD)
        self._oldest_kept = self._this_month.plus(-retention_months) if retention_months else None
        self._found: dict[str, Any] = {}
        self._problems: list[str] = []

    async def plan(self) -> MaintenanceReport:
        """What there is to do."""
        async with self._transactions() as tx:
            found: dict[str, Any] = {
                "sessions_removed": await tx.sessions.count_expired(self._expired),
                "refresh_tokens_removed": await tx.refresh_tokens.count_expired(self._expired),
                "api_keys_removed": await tx.api_keys.count_ended(self._keys_end),
                "session_changes_removed": await tx.sessions.count_changes(self._journal_end),
                "projects_removed": await tx.projects.count_deleted(self._trash_end),
                "variants_expired": await tx.generations.count_expired(),
                "generation_events_removed": await tx.generation_events.count_old(self._events_end),
                "mails_removed": await tx.mails.count_old(self._mails_end),
                "exports_expired": await tx.exports.count_expired(self._now),
                "exports_removed": await tx.exports.count_old(self._exports_end),
                "projects_indexed": await tx.project_search.count_changed(),
                "codes_packed": await tx.code_bodies.count_unpacked() if await tx.code_bodies.may_pack() else 0,
                "code_bodies_removed": await tx.code_bodies.count_orphans(),
            }
        found |= _file_figures(await self._files.clean_regularly(apply=False))
        found["images_given_thumbnails"] = await self._files.make_thumbnails(apply=False)
        months = await self._partitions.months()
        moved = await self._months_to_move()
        return MaintenanceReport(
            is_dry_run=True,
            **found,
            audit_partitions_made=tuple(map(str, self._missing(months, moved))),
            audit_partitions_moved=tuple(map(str, moved)),
            audit_partitions_dropped=tuple(map(str, self._old(months))),
            audit_triggers_restored=tuple(str(trigger) for trigger, _ in await self._partitions.unprotected()),
        )

    async def run(self, actor: Actor) -> MaintenanceReport:
        """Do it."""
        with timed("maintenance_finished") as timer:
            await self._step("generations", self._end_variants)
            await self._step("search", self._index_projects)
            await self._step("sessions", self._remove_sessions)
            await self._step("projects", self._remove_projects)
            timer.checkpoint("sessions_removed")
            await self._step("audit partitions", self._keep_months)
            timer.checkpoint("audit_partitions_kept")
            await self._step("audit triggers", self._protect_audit_trail)
            timer.checkpoint("audit_trail_protected")
            await self._step("files", self._remove_files)
            timer.checkpoint("files_removed")
            await self._step("thumbnails", self._make_thumbnails)
            timer.checkpoint("thumbnails_made")
            await self._step("code bodies", self._pack_codes)
            timer.checkpoint("codes_packed")
            report = MaintenanceReport(**self._found, is_complete=not self._problems, problems=tuple(self._problems))
            timer.add(**report.model_dump(exclude_defaults=True))
        if report.audit_partitions_dropped or report.audit_partitions_moved or report.audit_triggers_restored:
            await self._record(actor, report)
        return report

    async def _step(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """A step that fails does not keep the others from being done."""
        try:
            await work()
        except DataLayerError as error:
            self._problems.append(f"{name}: {error}")
            log.warning("maintenance_step_failed", step=name, code=error.code, reason=str(error))

    async def _end_variants(self) -> None:
        self._found["variants_expired"] = await end_expired(self._transactions, self._live)

    async def _index_projects(self) -> None:
        indexed = await SearchIndex(self._transactions).update(None, seconds=_SECONDS_TO_INDEX)
        self._found["projects_indexed"] = indexed.count

    async def _pack_codes(self) -> None:
        self._found["code_bodies_removed"] = await remove_orphans(self._transactions)
        self._found["codes_packed"] = await pack_codes(self._transactions, self._on_progress)

    async def _remove_sessions(self) -> None:
        removals: dict[str, Removal] = {
            "refresh_tokens_removed": lambda tx: tx.refresh_tokens.remove_expired(self._expired, limit=_BATCH),
            "sessions_removed": lambda tx: tx.sessions.remove_expired(self._expired, limit=_BATCH),
            "api_keys_removed": lambda tx: tx.api_keys.remove_ended(self._keys_end, limit=_BATCH),
            "session_changes_removed": lambda tx: tx.sessions.remove_changes(self._journal_end, limit=_BATCH),
            "idempotency_keys_removed": lambda tx: tx.idempotency_keys.remove_old(limit=_BATCH),
            "login_attempts_removed": lambda tx: tx.login_attempts.remove_stale(limit=_BATCH),
            "generation_events_removed": lambda tx: tx.generation_events.remove_old(self._events_end, limit=_BATCH),
            "mails_removed": lambda tx: tx.mails.remove_old(self._mails_end, limit=_BATCH),
            "exports_expired": lambda tx: tx.exports.expire(has_ended(self._now), limit=_BATCH),
            "exports_removed": lambda tx: tx.exports.remove_old(self._exports_end, limit=_BATCH),
        }
        for name, remove in removals.items():
            await self._remove(name, remove, _BATCH)

    async def _remove_projects(self) -> None:
        async def remove(tx: UnitOfWork) -> int:
            projects = await tx.projects.remove_deleted(self._trash_end, limit=_PROJECTS)
            for project in projects:
                what = "Removed a deleted project for good"
                tx.add(AuditLog.data_action(AuditAction.PROJECT_DELETE, project.user_id, "project", project.id, what))
            return len(projects)

        await self._remove("projects_removed", remove, _PROJECTS)

    async def _remove(self, name: str, remove: Removal, batch: int) -> None:
        self._found[name] = 0
        removed = batch
        while removed == batch:
            async with self._transactions() as tx:
                removed = await remove(tx)
            self._found[name] += removed
            self._on_progress(name, self._found[name])

    async def _remove_files(self) -> None:
        report = await self._files.clean_regularly(apply=True, on_progress=self._on_progress)
        self._found |= _file_figures(report)

    async def _make_thumbnails(self) -> None:
        name = "images_given_thumbnails"
        self._found[name] = await self._files.make_thumbnails(apply=True, on_progress=partial(self._on_progress, name))

    async def _keep_months(self) -> None:
        await self._patiently(self._partitions.remove_leftovers)
        await self._move()
        months = await self._partitions.months()
        for month in self._missing(months, []):
            await self._patiently(partial(self._partitions.create, month))
            self._note("audit_partitions_made", month)
        for month in self._old(months):
            await self._patiently(partial(self._partitions.drop, month))
            self._note("audit_partitions_dropped", month)

    async def _protect_audit_trail(self) -> None:
        restored: list[str] = []

        async def protect() -> None:
            async for trigger in self._partitions.protect():
                restored.append(str(trigger))  # noqa: PERF401  (what was restored before a failure counts)

        await self._patiently(protect)
        if restored:
            self._found["audit_triggers_restored"] = tuple(restored)
            log.warning("audit_triggers_restored", triggers=restored)

    async def _move(self) -> None:
        """Bring entries out of the default partition into their months."""
        moved = await self._months_to_move()
        months = list(moved)
        # Entries of this month may come into the default partition at any moment until it has its own: so it is always
        # made in this way, under the lock.
        if self._this_month not in (*moved, *await self._partitions.months()):
            months.append(self._this_month)
        has_expired = self._oldest_kept is not None and await self._partitions.expired_in_default(self._oldest_kept)
        if not months and not has_expired:
            return
        for month in months:
            async for copied in self._partitions.copy_from_default(month):
                self._on_progress(f"move {month}", copied)
        await self._patiently(lambda: self._partitions.exchange_default(months, self._oldest_kept))
        for month in months:
            self._note("audit_partitions_moved" if month in moved else "audit_partitions_made", month)

    async def _months_to_move(self) -> list[Month]:
        """Months with entries in the default partition, as far as ids can be of such a time."""
        first = self._oldest_kept or await self._partitions.first_in_default()
        if first is None:
            return []
        return await self._partitions.months_in_default(max(first, _FIRST_MONTH), self._last_month)

    def _missing(self, months: list[Month], moved: list[Month]) -> list[Month]:
        ahead = [self._this_month.plus(number) for number in range(MONTHS_AHEAD + 1)]
        return [month for month in ahead if month not in months and month not in moved]

    def _old(self, months: list[Month]) -> list[Month]:
        return [month for month in months if self._oldest_kept is not None and month < self._oldest_kept]

    def _note(self, name: str, month: Month) -> None:
        self._found[name] = (*self._found.get(name, ()), str(month))
        self._on_progress(name, len(self._found[name]))

    async def _patiently(self, change: Callable[[], Awaitable[Any]]) -> None:
        """A change that needs a lock which others may have for a while."""
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await change()
            except StatementTimeoutError:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(pauses.next())
            else:
                return

    async def _record(self, actor: Actor, report: MaintenanceReport) -> None:
        with request_context(actor_id=actor.user_id, actor_role=actor.role, source="maintenance"):
            async with self._transactions() as tx:
                tx.add(
                    AuditLog.system_event(
                        AuditAction.SYSTEM_MAINTENANCE,
                        "Changed the tables of the audit trail",
                        resource_type="audit_logs",
                        metadata_=report.model_dump(mode="json", exclude_defaults=True),
                    )
                )
