"""What operators do with stored files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, StorageKind
from data_layer.errors import ConfigurationError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import StorageUsage
from data_layer.services.arguments import checks_arguments
from data_layer.services.files.backends import StorageBackends
from data_layer.services.files.check import CheckReport, FileCheck, FileRepair
from data_layer.services.files.cleanup import CleanupReport, FileCleanup
from data_layer.services.files.migration import FileMigration, MigrationReport
from data_layer.services.files.removal import FileRemoval
from data_layer.services.files.thumbnails import ThumbnailMaker
from data_layer.services.permissions import Permission, as_of_now, require

SAFETY_AGE = timedelta(hours=24)
"""How long something must have been useless before it is removed."""


@checks_arguments
class FileMaintenance:
    """Compares, cleans up, migrates and counts, while the service runs."""

    def __init__(
        self,
        transactions: Transactions,
        backends: StorageBackends,
        removal: FileRemoval,
        thumbnails: ThumbnailMaker,
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._removal = removal
        self._thumbnails = thumbnails

    async def check(
        self,
        actor: Actor,
        *,
        deep: bool = False,
        repair: bool = False,
        young_for: timedelta = timedelta(hours=1),
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> CheckReport:
        """Compare the table with the storage, both ways.

        Args:
            actor: an administrator, or the operator.
            deep: read everything and compare the hashes, too.
            repair: store objects again whose bytes are there, but not as the table describes them.
            young_for: how old an object must be to be called an orphan.
            on_progress: called with how many objects were seen.

        Raises:
            PermissionDeniedError: the actor may not.
        """
        await self._authorize(actor, "Repaired stored files" if repair else None)
        check = FileCheck(
            self._transactions,
            self._backends,
            deep=deep,
            young_for=young_for,
            repair=FileRepair(self._backends) if repair else None,
        )
        return await check.run(on_progress)

    async def cleanup(
        self,
        actor: Actor,
        *,
        apply: bool = False,
        older_than: timedelta = SAFETY_AGE,
        everywhere: bool = False,
        on_progress: Callable[[str, int], None] = lambda *_: None,
    ) -> CleanupReport:
        """Remove what is expired, abandoned, unreferenced or unknown; by default only say what it would be.

        Args:
            actor: an administrator, or the operator.
            apply: really remove it.
            older_than: how long it must have been so.
            everywhere: take objects that no row knows for useless also outside of the folders in which files are
                saved. Not for a storage that an application puts files into by itself.
            on_progress: called with what was removed, and how many so far.

        Raises:
            PermissionDeniedError: the actor may not.
        """
        await self._authorize(actor, "Removed useless files" if apply else None)
        cleanup = FileCleanup(
            self._transactions,
            self._backends,
            self._removal,
            older_than=older_than,
            apply=apply,
            everywhere=everywhere,
            on_progress=on_progress,
        )
        return await cleanup.run()

    async def clean_regularly(
        self, *, apply: bool, on_progress: Callable[[str, int], None] = lambda *_: None
    ) -> CleanupReport:
        """What the service does by itself, again and again: the quick part of ``cleanup``; without apply say what."""
        cleanup = FileCleanup(
            self._transactions,
            self._backends,
            self._removal,
            older_than=SAFETY_AGE,
            apply=apply,
            everywhere=False,
            on_progress=on_progress,
        )
        return await cleanup.run_quickly()

    async def make_thumbnails(self, *, apply: bool, on_progress: Callable[[int], None] = lambda _: None) -> int:
        """What the service does by itself, again and again: make thumbnails of images whose process ended before.

        Args:
            apply: make them, for ten minutes at most; otherwise only count the images.
            on_progress: called with how many images are done.

        Returns:
            How many images these were.

        Raises:
            DataLayerError: one after the other failed for a reason that may pass.
        """
        return await (self._thumbnails.make_overdue(on_progress) if apply else self._thumbnails.count_overdue())

    async def migrate(
        self, target: StorageKind, *, on_progress: Callable[[int], None] = lambda _: None
    ) -> MigrationReport:
        """Copy everything into one of the two configured backends from the other one.

        Raises:
            ConfigurationError: not both are configured.
            ContentMismatchError: an object arrived with other bytes.
        """
        others = [kind for kind in self._backends.kinds if kind != target]
        if target not in self._backends.kinds or len(others) != 1:
            raise ConfigurationError(
                f"STORAGE_BACKEND and STORAGE_SECOND_BACKEND must name two backends, one of them {target.value}"
            )
        migration = FileMigration(self._transactions, self._backends, source=others[0], target=target)
        return await migration.run(on_progress)

    async def usage(self, actor: Actor) -> StorageUsage:
        """How many objects there are and what they take, as the table says.

        Args:
            actor: an administrator, or the operator.

        Raises:
            PermissionDeniedError: the actor may not.
        """
        await self._authorize(actor, None)
        async with self._transactions() as tx:
            return await tx.stored_files.usage()

    async def _authorize(self, actor: Actor, description: str | None) -> None:
        """Refuse unless the actor may maintain the storage, and record what is about to be changed, if anything is."""
        require(actor, Permission.MAINTAIN_STORAGE)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.MAINTAIN_STORAGE)
            if description is not None:
                tx.add(
                    AuditLog.admin_action(
                        AuditAction.SYSTEM_MAINTENANCE, actor.user_id, description, resource_type="stored_files"
                    )
                )
