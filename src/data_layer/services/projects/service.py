"""``data.projects``: the projects of people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import inspect

from data_layer.entities import AuditLog, Project
from data_layer.entities.changes import changes_of
from data_layer.entities.enums import AuditAction, ProjectStatus
from data_layer.errors import (
    ChangedMeanwhileError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.repositories.project_search import Scope
from data_layer.repositories.repository import check_limit
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment, FileView
from data_layer.schemas.projects import (
    ProjectChanges,
    ProjectDraft,
    ProjectFilter,
    ProjectFull,
    ProjectOrder,
    ProjectPage,
    ProjectSummary,
)
from data_layer.schemas.search import SearchPage
from data_layer.services.arguments import checks_arguments
from data_layer.services.cached_projects import CachedProjects
from data_layer.services.generations.access import open_project
from data_layer.services.generations.copies import copy_version, copy_with_history
from data_layer.services.generations.versions import code_at, require_complete
from data_layer.services.image_files import ImageFiles, ImageSource, show_screenshot
from data_layer.services.permissions import Permission, active_role, as_of_now, is_allowed, reading_entry, require
from data_layer.services.project_keys import keys_of_project
from data_layer.services.project_moves import move_project
from data_layer.services.projects.cursors import decode_cursor, encode_cursor
from data_layer.services.projects.overview import ProjectDetails, ProjectOverview, ProjectRow
from data_layer.services.search import ProjectSearch
from data_layer.services.view_counts import ViewCounts

_EVERYTHING = ProjectFilter()
_MAY_BE_SET = frozenset({ProjectStatus.DRAFT, ProjectStatus.ACTIVE, ProjectStatus.COMPLETED})
_MAY_BE_EMPTY = frozenset({"description", "instructions"})
# The audit trail outlives the project: it says that these changed, not to what.
_CONTENT = ("description", "instructions", "settings", "metadata_")


@checks_arguments
class ProjectService:
    """Projects, each of one person.

    To others a project is like a missing one. Moderators and administrators may read it when they give a reason, which
    is recorded; only its owner changes it.
    """

    def __init__(
        self, transactions: Transactions, images: ImageFiles, cached: CachedProjects, views: ViewCounts
    ) -> None:
        self._transactions = transactions
        self._images = images
        self._cached = cached
        self._views = views
        self._overview = ProjectOverview(transactions)
        self._search = ProjectSearch(transactions)

    async def close(self) -> None:
        """Stop what a search has begun and not ended: indexing what it did not wait for."""
        await self._search.close()

    async def create(
        self,
        actor: Actor,
        draft: ProjectDraft,
        *,
        screenshot: ImageSource | None = None,
        file_name: str | None = None,
        owner_id: UUID | None = None,
    ) -> ProjectFull:
        """Create a project.

        Args:
            actor: the owner.
            draft: what is in it.
            screenshot: an image: its bytes, a path, a stream, a base64 data URL, or an http(s) URL, which is fetched at
                once. It is stored with thumbnails.
            file_name: what the owner calls the screenshot.
            owner_id: whose project it will be, by default the actor's.

        Raises:
            InvalidFileError, FileTooLargeError: the screenshot may not be stored.
            InvalidUrlError, FetchError: its URL may not be fetched, or could not be.
            InvalidValueError: a value cannot be stored; ``field`` says which.
            PermissionDeniedError: the actor may not do this for that person.
        """
        owner_id = _owner(actor, owner_id, Permission.CHANGE_PROJECT)
        project = Project(user_id=owner_id, name=_clean_name(draft.name))
        for name in draft.model_fields_set - {"name"}:
            _assign(project, name, getattr(draft, name))
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.CHANGE_PROJECT, owner=owner_id)
        if screenshot is None:
            return await self._insert(actor, project, None)
        stored = self._images.stored(screenshot, owner_id=owner_id, field="screenshot", file_name=file_name)
        async with stored as file:
            return await self._insert(actor, project, file)

    async def _insert(self, actor: Actor, project: Project, file: FileView | None) -> ProjectFull:
        if file is not None:
            show_screenshot(project, file)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.CHANGE_PROJECT, owner=project.user_id)
            tx.add(project)
            tx.invalidate(*keys_of_project(project.id, project.user_id))
            new = {"name": project.name, "type": project.type.value}
            tx.add(_entry(AuditAction.PROJECT_CREATE, actor, project, "Created a project", new_values=new))
            await tx.flush()
            if file is not None and not await tx.files.keep(file.id, Attachment(project_id=project.id)):
                raise NotFoundError("the screenshot was removed before the project was created; try again")
            return ProjectFull.model_validate(project)

    async def clone(
        self,
        actor: Actor,
        project_id: UUID,
        *,
        name: str | None = None,
        history: bool = True,
        version: int | None = None,
    ) -> ProjectFull:
        """Copy a project. The copy holds files of its own, so it stays whole when the original is removed.

        Its screenshot, images, tags, settings and instructions come along; shares, events, usage, counters of views,
        copies and downloads, and keys of the application that sent the generations do not. It is private and no
        favourite. A variant that is still running is cancelled in the copy, with the code that was stored so far.

        Args:
            actor: the owner.
            project_id: which one.
            name: of the copy; by default that of the original and "(copy)".
            history: copy the generations, with their numbers. Without it one version becomes version 1, of type import.
            version: the last one of the history; without history the only one, by default the latest complete one.

        Raises:
            NotFoundError: the actor has none with this id, or it has no such version.
            InvalidValueError: the version to begin with is not complete, or the name cannot be one.
        """
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.COPY_PROJECT)
            if history:
                if version is not None:
                    await code_at(tx, project_id, version, None)
                return await copy_with_history(tx, actor, project, last=version, name=name)
            if version is None:
                code = await tx.codes.latest(project_id)
            else:
                code = require_complete(await code_at(tx, project_id, version, None))
            return await copy_version(tx, actor, project, code, name=name)

    async def open(
        self, actor: Actor, project_id: UUID, *, reason: str | None = None, is_counted: bool = True
    ) -> ProjectFull:
        """Return a project, from the cache if it is there, and count the view.

        Its ``view_count`` and ``last_viewed_at`` are late: views are written every ten seconds, and do not take a
        project out of the cache, where it stays for a minute.

        Args:
            actor: the owner, or a moderator.
            project_id: which one.
            reason: why somebody else's project is looked at; recorded in the audit trail.
            is_counted: False where a page shows something else of the project, so that nobody views it.

        Raises:
            NotFoundError: the actor has none with this id, or it is deleted.
            PermissionDeniedError: a moderator gave no reason.
        """
        project = await self._cached.project(project_id)
        if not is_allowed(actor, Permission.READ_PROJECT, owner=project.user_id):
            async with self._transactions() as tx:
                await _read_for_a_reason(tx, actor, project.user_id, reason, resource_id=str(project_id))
        if is_counted:
            self._views.count(Project, project_id)
        return project

    async def list(
        self,
        actor: Actor,
        wanted: ProjectFilter = _EVERYTHING,
        *,
        order: ProjectOrder = ProjectOrder.UPDATED,
        is_descending: bool = True,
        after: str | None = None,
        limit: int = 50,
        owner_id: UUID | None = None,
        reason: str | None = None,
    ) -> ProjectPage:
        """Return a page of somebody's projects.

        A project that nobody changes meanwhile is on exactly one page, whatever happens to others.

        Args:
            actor: the owner, or a moderator.
            wanted: which projects; deleted ones only if it names that status.
            order: by what.
            is_descending: the largest or latest first.
            after: ``next`` of the page before.
            limit: the length of the page, 1000 at most.
            owner_id: whose, by default the actor's.
            reason: see ``open``.

        Raises:
            InvalidValueError: the cursor or the limit cannot be; ``field`` says which.
            PermissionDeniedError: they belong to somebody else.
        """
        owner_id = _owner(actor, owner_id, Permission.READ_PROJECT_FOR_A_REASON)
        check_limit(limit)
        position = None if after is None else decode_cursor(after, order, is_descending=is_descending)

        async def load(tx: UnitOfWork, *, by_owner: bool) -> ProjectPage:
            standing, found = await tx.projects.page(
                owner_id, wanted, order, is_descending=is_descending, after=position, limit=limit
            )
            if by_owner:
                active_role(standing)
            shown, is_last = found[:limit], len(found) <= limit
            following = None if is_last else encode_cursor(shown[-1], order, is_descending=is_descending)
            return ProjectPage(projects=tuple(shown), next=following)

        if actor.user_id == owner_id:
            shape = _shape(wanted, order, limit, after, is_descending=is_descending)
            return await self._cached.listed(owner_id, shape, partial(load, by_owner=True), limit=limit)
        async with self._transactions() as tx:
            if not is_allowed(await as_of_now(tx, actor), Permission.READ_PROJECT, owner=owner_id):
                await _read_for_a_reason(tx, actor, owner_id, reason, resource_id=None)
            return await load(tx, by_owner=False)

    async def search(
        self,
        actor: Actor,
        text: str,
        *,
        include_public: bool = False,
        after: str | None = None,
        limit: int = 20,
        owner_id: UUID | None = None,
        reason: str | None = None,
    ) -> SearchPage:
        """Find projects by words in names, tags, descriptions, instructions, prompts and the latest version's page.

        As in a web search all words must occur, ``"quoted words"`` together and exactly; ``or`` and ``-not`` work, and
        the last word need not be complete. Other forms of a word are found in English and in the language that the
        person prefers. What was changed before the call is found, unless it is more than two seconds' work to index.

        Args:
            actor: the owner, a moderator, or anybody who asks for public projects.
            text: what to look for, at most 500 characters. Without a word to look for nothing is found.
            include_public: also what is public of the projects of others.
            after: ``next`` of the page before.
            limit: the length of the page, 100 at most.
            owner_id: whose projects, by default the actor's; of the system everybody's.
            reason: see ``open``.

        Raises:
            InvalidValueError: the text is too long, or the cursor or the limit cannot be; ``field`` says which.
            PermissionDeniedError: the projects belong to somebody else.
        """
        scope = await self._scope(actor, owner_id, reason, include_public=include_public)
        language_of = scope.owner_id or actor.user_id
        return await self._search.search(text, scope, language_of=language_of, after=after, limit=limit)

    async def _scope(self, actor: Actor, owner_id: UUID | None, reason: str | None, *, include_public: bool) -> Scope:
        if owner_id is None and actor.is_system:
            return Scope(is_everything=True)
        if owner_id is None and actor.user_id is None and include_public:
            return Scope(has_public=True)
        owner_id = _owner(actor, owner_id, Permission.READ_PROJECT_FOR_A_REASON)
        async with self._transactions() as tx:
            if not is_allowed(await as_of_now(tx, actor), Permission.READ_PROJECT, owner=owner_id):
                await _read_for_a_reason(tx, actor, owner_id, reason, resource_id=None)
        return Scope(owner_id, has_public=include_public)

    async def update(
        self, actor: Actor, project_id: UUID, changes: ProjectChanges, *, expected: int | None
    ) -> ProjectFull:
        """Change a project, unless somebody else did since the caller read it.

        Args:
            actor: the owner.
            project_id: which one.
            changes: what is not given stays.
            expected: the ``revision`` that the caller has read. Generations and views do not raise it. With None the
                changes are made whatever others have changed, as a mark should be.

        Raises:
            ChangedMeanwhileError: it has another revision; ``wanted`` and ``current`` hold both states.
            NotFoundError: the actor has none with this id.
            InvalidValueError: a value cannot be stored; ``field`` says which.
        """
        async with self._transactions() as tx:
            project = await _load_authorized(tx, actor, project_id)
            if expected is not None and project.revision != expected:
                raise _changed_meanwhile(project, changes)
            for name in changes.model_fields_set:
                _assign(project, name, getattr(changes, name))
            recorded = changes_of(project, without=("updated_at", *_CONTENT))
            names = sorted(name for name in changes.model_fields_set if _is_changed(project, name))
            if names:
                metadata = {"changed": names}
                entry = _entry(AuditAction.PROJECT_UPDATE, actor, project, "Changed a project", **recorded._asdict())
                entry.metadata_ = metadata
                tx.add(entry)
            return await _finish(tx, project)

    async def archive(self, actor: Actor, project_id: UUID) -> ProjectFull:
        """Put a project aside. Harmless to repeat.

        Raises:
            NotFoundError: the actor has none with this id.
        """
        async with self._transactions() as tx:
            project = await _load_authorized(tx, actor, project_id)
            return await _move(tx, actor, project, ProjectStatus.ARCHIVED, AuditAction.PROJECT_ARCHIVE)

    async def unarchive(self, actor: Actor, project_id: UUID) -> ProjectFull:
        """Return an archived project to the status that it had. Harmless to repeat.

        Raises:
            NotFoundError: the actor has none with this id.
        """
        async with self._transactions() as tx:
            project = await _load_authorized(tx, actor, project_id)
            if project.status is not ProjectStatus.ARCHIVED:
                return ProjectFull.model_validate(project)
            return await _move(tx, actor, project, _status(project.status_before_archive), AuditAction.PROJECT_RESTORE)

    async def delete(self, actor: Actor, project_id: UUID) -> None:
        """Move a project to the trash: it is gone from everywhere, and ``restore`` undoes it.

        Raises:
            NotFoundError: the actor has none with this id, or it is deleted already.
        """
        async with self._transactions() as tx:
            project = await _load_authorized(tx, actor, project_id)
            await _move(tx, actor, project, ProjectStatus.DELETED, AuditAction.PROJECT_DELETE)

    async def restore(self, actor: Actor, project_id: UUID) -> ProjectFull:
        """Undo ``delete``, as long as maintenance has not removed the project. Harmless to repeat.

        Raises:
            NotFoundError: the actor has none with this id.
        """
        async with self._transactions() as tx:
            project = await _load_authorized(tx, actor, project_id, also_deleted=True)
            if project.status is not ProjectStatus.DELETED:
                return ProjectFull.model_validate(project)
            return await _move(tx, actor, project, _status(project.status_before_delete), AuditAction.PROJECT_RESTORE)

    async def recent(self, *, limit: int = 50, is_deleted: bool = False) -> Sequence[ProjectRow]:
        """For operators: the projects of all users that were changed last, newest first; or deleted last."""
        return await self._overview.recent(limit=limit, is_deleted=is_deleted)

    async def find(self, id_or_name: str, *, is_deleted: bool = False) -> ProjectSummary:
        """For operators: one project, by its id or by its name; with ``is_deleted`` by its name in the trash.

        Raises:
            NotFoundError: when there is none, or several have the name.
        """
        return await self._overview.find(id_or_name, is_deleted=is_deleted)

    async def details(self, id_or_name: str) -> ProjectDetails:
        """For operators: one project, by its id or by its name.

        Raises:
            NotFoundError: when there is none, or several have the name.
        """
        return await self._overview.details(id_or_name)


def _shape(wanted: ProjectFilter, order: ProjectOrder, limit: int, after: str | None, *, is_descending: bool) -> str:
    """What distinguishes a page from all others of the same list, short enough for a key."""
    shape = f"{order}:{is_descending}:{limit}"
    if after is None and wanted == _EVERYTHING:
        return shape
    rest = (after, sorted(wanted.statuses), wanted.model_dump(mode="json", exclude={"statuses"}))
    return f"{shape}:{hashlib.sha256(orjson.dumps(rest)).hexdigest()}"


def _owner(actor: Actor, owner_id: UUID | None, permission: Permission) -> UUID:
    """Whose projects are meant; after a first check, which needs no database."""
    owner_id = owner_id or actor.user_id
    require(actor, permission, owner=owner_id)
    if owner_id is None:
        raise InvalidValueError("owner_id is missing: the system has no projects", field="owner_id")
    return owner_id


async def _load_authorized(tx: UnitOfWork, actor: Actor, project_id: UUID, *, also_deleted: bool = False) -> Project:
    """The project, locked, for somebody who may change it."""
    actor = await as_of_now(tx, actor)
    try:
        project = await tx.projects.get(project_id, lock=True)
    except NotFoundError:
        raise _missing(project_id) from None
    is_hidden = project.status is ProjectStatus.DELETED and not also_deleted
    if is_hidden or not is_allowed(actor, Permission.CHANGE_PROJECT, owner=project.user_id):
        raise _missing(project_id)
    return project


async def _read_for_a_reason(
    tx: UnitOfWork, actor: Actor, owner_id: UUID, reason: str | None, *, resource_id: str | None
) -> None:
    """Let a moderator look, and record it. Strangers learn nothing, not even that the project exists."""
    actor = await as_of_now(tx, actor)
    if not is_allowed(actor, Permission.READ_PROJECT_FOR_A_REASON, owner=owner_id):
        raise _missing(resource_id)
    if reason is None:
        raise PermissionDeniedError("say why you look at somebody else's project: give a reason, which is recorded")
    tx.add(
        reading_entry(
            *(actor, owner_id, "Read the projects of another person", reason),
            resource_type="project" if resource_id else "user",
            resource_id=resource_id or str(owner_id),
        )
    )


async def _move(
    tx: UnitOfWork, actor: Actor, project: Project, status: ProjectStatus, action: AuditAction
) -> ProjectFull:
    move_project(tx, project, status, action, by=actor.user_id)
    return await _finish(tx, project)


async def _finish(tx: UnitOfWork, project: Project) -> ProjectFull:
    tx.invalidate(*keys_of_project(project.id, project.user_id))
    await tx.flush()
    return ProjectFull.model_validate(project)


def _changed_meanwhile(project: Project, changes: ProjectChanges) -> ChangedMeanwhileError:
    current = ProjectFull.model_validate(project).model_dump(mode="json")
    wanted = changes.model_dump(mode="json", exclude_unset=True)
    return ChangedMeanwhileError(
        f"the project has revision {project.revision} now; read it again, then decide which values to keep",
        wanted=wanted,
        current={name: current[name] for name in (*wanted, "revision", "updated_at")},
    )


def _assign(project: Project, name: str, value: Any) -> None:
    if value is None and name not in _MAY_BE_EMPTY:
        raise InvalidValueError(f"{name} cannot be empty", field=name)
    match name:
        case "name":
            value = _clean_name(value)
        case "tags":
            value = list(dict.fromkeys(tag.strip() for tag in value if tag.strip()))
        case "status" if value not in _MAY_BE_SET:
            raise InvalidValueError(f"status cannot be set to {value}: archive or delete the project", field="status")
        case "status" if project.status is ProjectStatus.ARCHIVED:
            raise ConflictError("the project is archived: unarchive it first", field="status")
        case "metadata":
            name = "metadata_"
        case _:
            pass
    if getattr(project, name) != value:
        setattr(project, name, value)


def _is_changed(project: Project, name: str) -> bool:
    return bool(inspect(project).attrs["metadata_" if name == "metadata" else name].history.has_changes())


def _clean_name(name: str) -> str:
    if not name.strip():
        raise InvalidValueError("name is empty; give the project one", field="name")
    return name.strip()


def _status(before: str | None) -> ProjectStatus:
    """The status to return to; of projects that were archived or deleted before it was kept, nobody knows it."""
    return ProjectStatus.ACTIVE if before is None else ProjectStatus(before)


def _missing(project_id: UUID | str | None) -> NotFoundError:
    return NotFoundError("there are no such projects" if project_id is None else f"no project has the id {project_id}")


def _entry(action: AuditAction, actor: Actor, project: Project, description: str, **fields: Any) -> AuditLog:
    return AuditLog.data_action(action, actor.user_id or project.user_id, "project", project.id, description, **fields)
