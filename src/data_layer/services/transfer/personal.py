"""Everything about one person as one ZIP, made while it is read: little of it is in memory.

::

    account.json, identities.json, sessions.json, api-keys.json, second-factors.json, design-systems.json
    projects/{id}.zip            each project as `data-layer projects export` writes it: versions, codes, files, images
    shares.json                  links to pages of the projects
    trash.json                   which projects are in the trash; what is in them comes once they are taken out
    files.jsonl, files/…         files that belong to no project, and their bytes
    usage.jsonl                  the ledger of paid models
    audit.jsonl                  what the audit trail says of them
    summary.json                 how many there are of each, and what could not be read; the last part

Secrets are left out: neither passwords nor tokens, keys, codes, nor their hashes.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast
from uuid import UUID
from zipfile import ZipFile

import orjson

from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, ProjectStatus
from data_layer.errors import NotFoundError, StorageError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.api_keys import ApiKeyView
from data_layer.schemas.audit import AuditFilter
from data_layer.schemas.base import Value
from data_layer.schemas.files import FileView
from data_layer.schemas.projects import ProjectFilter, ProjectSummary
from data_layer.schemas.shares import ShareView
from data_layer.services.accounts import AccountService
from data_layer.services.accounts.dependencies import load_authorized
from data_layer.services.api_keys import ApiKeyService
from data_layer.services.arguments import checks_arguments
from data_layer.services.audit.service import AuditService
from data_layer.services.designs import DesignSystemService
from data_layer.services.files import FileService
from data_layer.services.permissions import Permission
from data_layer.services.projects import ProjectService
from data_layer.services.sessions import SessionService
from data_layer.services.shares import ShareService
from data_layer.services.transfer.archives import ArchiveSink, ProjectArchives, new_archive, stored_part
from data_layer.services.usage import UsageService

Listed = TypeVar("Listed", ApiKeyView, ShareView)

_PAGE = 200
_PIECE = 256 * 1024
_IN_MEMORY = 4 * 2**20  # A larger project waits on the disk for its place in the archive.
_IDENTITIES = {"azure_ad": "azure_id", "google": "google_id", "github": "github_id"}
_DELETED = frozenset({ProjectStatus.DELETED})
_NOT_DELETED = frozenset(ProjectStatus) - _DELETED


@dataclass(frozen=True, slots=True)
class PersonalDataSources:
    """The services that know something of a person."""

    accounts: AccountService
    sessions: SessionService
    api_keys: ApiKeyService
    designs: DesignSystemService
    projects: ProjectService
    shares: ShareService
    files: FileService
    usage: UsageService
    audit: AuditService


class ExportProgress:
    """How far an archive is: projects, and files that belong to none."""

    def __init__(self) -> None:
        self.projects = self.projects_done = self.files = self.files_done = 0

    def counted(self) -> dict[str, int]:
        """The numbers by their names."""
        return dict(vars(self))

    def completed(self) -> dict[str, Any]:
        """The same once all is done: what was deleted meanwhile is not waited for any more."""
        return self.counted() | {"projects": self.projects_done, "files": self.files_done}


class PersonalArchives:
    """Makes archives; the caller has checked that it is allowed.

    Args:
        transactions: where identities are read.
        sources: the services that know something.
        archives: writes projects.
    """

    def __init__(self, transactions: Transactions, sources: PersonalDataSources, archives: ProjectArchives) -> None:
        self._transactions = transactions
        self._sources = sources
        self._archives = archives

    async def pieces(self, user_id: UUID, progress: ExportProgress) -> AsyncGenerator[bytes]:
        """Yield an archive, piece by piece.

        Args:
            user_id: the person.
            progress: is kept up to date.

        Raises:
            PermissionDeniedError: the account is not active.
            NotFoundError: the account does not exist.
        """
        async with self._transactions() as tx:
            user = await tx.users.get(user_id)
            role, identities = user.role, {kind: getattr(user, name) for kind, name in _IDENTITIES.items()}
            others = await tx.identities.list(user_id=user_id)
            progress.projects = await tx.projects.count(user_id=user_id, status=_NOT_DELETED)
            progress.files = await tx.files.count(owner_id=user_id, project_id=None, code_id=None, image_id=None)
        described = [{"provider": kind, "subject": subject} for kind, subject in identities.items() if subject]
        described += [{"provider": "oidc", "issuer": each.issuer, "subject": each.subject} for each in others]
        export = _Export(self._sources, self._archives, Actor.user(user_id, role), described, progress)
        async with aclosing(export.pieces()) as pieces:
            async for piece in pieces:
                yield piece


@checks_arguments
class PersonalDataService:
    """Hands people everything that is kept about them, ``data.personal_data``, while they wait.

    Args:
        transactions: where the export is written down.
        archives: makes it.
    """

    def __init__(self, transactions: Transactions, archives: PersonalArchives) -> None:
        self._transactions = transactions
        self._archives = archives

    async def export(self, actor: Actor, user_id: UUID) -> AsyncGenerator[bytes]:
        """Yield a ZIP with everything about a person, piece by piece; ``data.exports`` makes it in the background.

        It is written down in the audit trail before the first piece. What the storage has lost is named in
        ``summary.json``. An archive that breaks off has no end, so no program takes it for a whole one; at most for
        the archive of the last project in it.

        Args:
            actor: the person.
            user_id: the person.

        Raises:
            PermissionDeniedError: for anybody else, or an account that is not active.
            NotFoundError: the account does not exist.
        """
        async with self._transactions() as tx:
            await load_authorized(tx, actor, Permission.EXPORT_ACCOUNT, user_id, lock=False)
            entry = AuditLog.security_event(
                AuditAction.SECURITY_DATA_EXPORT,
                "Exported everything about a person",
                user_id=user_id,
                is_success=True,
                resource_type="user",
                resource_id=str(user_id),
            )
            tx.add(entry)
        async with aclosing(self._archives.pieces(user_id, ExportProgress())) as pieces:
            async for piece in pieces:
                yield piece


class _Export:
    """One archive that is being made."""

    def __init__(
        self,
        sources: PersonalDataSources,
        archives: ProjectArchives,
        actor: Actor,
        identities: list[dict[str, Any]],
        progress: ExportProgress,
    ) -> None:
        self._sources = sources
        self._archives = archives
        self._actor = actor
        self._user_id = cast("UUID", actor.user_id)
        self._identities = identities
        self._progress = progress
        self._counts: dict[str, int] = {}
        self._missing: list[str] = []

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the archive."""
        sink = ArchiveSink()
        with new_archive(cast("BinaryIO", sink)) as archive:
            async with aclosing(self._fill(archive)) as steps:
                async for _ in steps:
                    if piece := sink.take():
                        yield piece
            summary = {"exported_at": datetime.now(UTC), "counts": self._counts, "missing": self._missing}
            archive.writestr("summary.json", _json(summary))
        yield sink.take()

    async def _fill(self, archive: ZipFile) -> AsyncGenerator[None]:
        """Write part after part, and yield often, so that what was written is handed on."""
        sources, actor, user_id = self._sources, self._actor, self._user_id
        archive.writestr("account.json", _json(await sources.accounts.get(actor, user_id)))
        archive.writestr("identities.json", _json(self._identities))
        archive.writestr("sessions.json", _json(await sources.sessions.list(actor, user_id)))
        keys = [key async for key in _each(partial(sources.api_keys.list, actor, user_id, limit=_PAGE))]
        archive.writestr("api-keys.json", _json(keys))
        archive.writestr("second-factors.json", _json(await sources.accounts.list_factors(actor, user_id)))
        archive.writestr("design-systems.json", _json(await sources.designs.list(actor)))
        yield
        shares: list[Value] = []
        async for project in self._projects(ProjectFilter()):
            shares += [each async for each in _each(partial(sources.shares.list, actor, project.id, limit=_PAGE))]
            async with aclosing(self._write_project(archive, project.id)) as steps:
                async for _ in steps:
                    yield
            self._progress.projects_done += 1
        archive.writestr("shares.json", _json(shares))
        trash = [project async for project in self._projects(ProjectFilter(statuses=_DELETED))]
        archive.writestr("trash.json", _json(trash))
        self._counts |= {"shares": len(shares), "projects_in_trash": len(trash)}
        for name, rows in (("usage", self._usage()), ("audit", self._audit()), ("files", self._files())):
            async with aclosing(rows), aclosing(self._write_lines(archive, name, rows)) as steps:
                async for _ in steps:
                    yield
        async with aclosing(self._files()) as files:
            async for file in files:
                async with aclosing(self._write_file(archive, file)) as steps:
                    async for _ in steps:
                        yield
                self._progress.files_done += 1

    async def _projects(self, wanted: ProjectFilter) -> AsyncGenerator[ProjectSummary]:
        after = None
        while True:
            page = await self._sources.projects.list(self._actor, wanted, after=after, limit=_PAGE)
            for project in page.projects:
                yield project
            if page.next is None:
                return
            after = page.next

    async def _usage(self) -> AsyncGenerator[Value]:
        before = None
        while page := await self._sources.usage.entries(self._actor, user_id=self._user_id, limit=_PAGE, before=before):
            for entry in page:
                yield entry
            before = page[-1].id

    async def _audit(self) -> AsyncGenerator[Value]:
        cursor, wanted = None, AuditFilter(user_id=self._user_id)
        while True:
            page = await self._sources.audit.list(self._actor, wanted, limit=_PAGE, cursor=cursor)
            for entry in page.entries:
                yield entry
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def _files(self) -> AsyncGenerator[FileView]:
        """The files that no project has."""
        async with aclosing(self._sources.files.list_all(owner_id=self._user_id)) as files:
            async for file in files:
                if file.project_id is None and file.code_id is None and file.image_id is None:
                    yield file

    async def _write_project(self, archive: ZipFile, project_id: UUID) -> AsyncGenerator[None]:
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as waiting:
            try:
                written = await self._archives.write(self._actor, project_id, cast("BinaryIO", waiting))
            except NotFoundError:
                return  # Deleted at this moment.
            for name in ("generations", "variants", "files", "images"):
                self._count(f"{name}_of_projects", getattr(written, name))
            self._count("projects")
            if written.missing:
                self._missing.append(f"{written.missing} files of the project {project_id}")
            waiting.seek(0)
            with archive.open(stored_part(f"projects/{project_id}.zip"), "w", force_zip64=True) as part:
                while piece := waiting.read(_PIECE):
                    part.write(piece)
                    yield

    async def _write_lines(self, archive: ZipFile, name: str, rows: AsyncGenerator[Value]) -> AsyncGenerator[None]:
        with archive.open(f"{name}.jsonl", "w", force_zip64=True) as part:
            async for row in rows:
                part.write(row.model_dump_json().encode() + b"\n")
                self._count(name)
                yield

    async def _write_file(self, archive: ZipFile, file: FileView) -> AsyncGenerator[None]:
        name = f"files/{file.id}.{file.key.rpartition('.')[2] or 'bin'}"
        try:
            async with self._sources.files.open(file.id, owner_id=self._user_id) as opened:
                # What breaks off leaves an entry that is too short, which the summary names.
                with archive.open(stored_part(name), "w", force_zip64=True) as part:
                    async for chunk in opened.chunks:
                        part.write(chunk)
                        yield
        except (NotFoundError, StorageError):
            self._missing.append(name)

    def _count(self, name: str, number: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + number


async def _each(list_page: Callable[..., Awaitable[Sequence[Listed]]]) -> AsyncGenerator[Listed]:
    """All rows of a list whose pages begin after an id."""
    after = None
    while page := await list_page(after=after):
        for row in page:
            yield row
        after = page[-1].id


def _json(value: Any) -> bytes:
    def plain(each: Any) -> Any:
        return each.model_dump(mode="json") if isinstance(each, Value) else str(each)

    return orjson.dumps(value, default=plain, option=orjson.OPT_INDENT_2)
