"""``data.shares``: links by which anybody may read one page of a project."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import SecretStr

from data_layer.entities import AuditLog, GeneratedCode, Project, Share
from data_layer.entities.enums import AuditAction, ProjectStatus
from data_layer.errors import InvalidValueError, LimitReachedError, NotFoundError
from data_layer.repositories.repository import MAXIMUM_PAGE, check_number
from data_layer.repositories.shares import OpenedShare
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.projects import ProjectFull
from data_layer.schemas.shares import NewShare, SharedPage, ShareView
from data_layer.services.arguments import checks_arguments
from data_layer.services.generations.copies import import_page
from data_layer.services.page_images import live_page
from data_layer.services.permissions import Permission, as_of_now, is_allowed, require
from data_layer.services.view_counts import ViewCounts

MAXIMUM_NUMBER = 100
"""Most shares of one project that are in force at once."""

SHARE_PATH = "/s/"
"""Where the service shows shares: the token follows, so what begins like this stands in no log."""

LONGEST_LIFETIME = timedelta(days=3650)

_TOKEN_BYTES = 32


@checks_arguments
class ShareService:
    """Links to a version of a project, or to whichever is its latest.

    Owners share their projects. Moderators see which shares there are and end them, and make none. To everybody else a
    project and its shares are like missing ones. A variant that is being written, has failed or was cancelled is not
    shared.
    """

    def __init__(self, transactions: Transactions, views: ViewCounts, *, base_url: str = "") -> None:
        self._transactions = transactions
        self._views = views
        self._base_url = base_url

    async def create(
        self,
        actor: Actor,
        project_id: UUID,
        *,
        version: int | None = None,
        variant_index: int | None = None,
        expires_in: timedelta | None = None,
    ) -> NewShare:
        """Make a link. Its token is returned here once; what is stored is a hash.

        Args:
            actor: the owner of the project.
            project_id: the project.
            version: the only version that the link ever shows; without it the link follows the latest.
            variant_index: which variant of that version; by default the one that is selected now.
            expires_in: after which time it stops working; ten years at most, for ever by default.

        Raises:
            NotFoundError: the actor has no such project, or it no such version that can be shown.
            LimitReachedError: the project has 100 shares in force.
            InvalidValueError: the project is archived, or a value out of range; ``field`` says which.
        """
        if expires_in is not None and not timedelta(0) < expires_in <= LONGEST_LIFETIME:
            raise InvalidValueError("expires_in must be longer than nothing, and ten years at most", field="expires_in")
        for name, number in (("version", version), ("variant_index", variant_index)):
            if number is not None:
                check_number(name, number)
        if variant_index is not None and version is None:
            raise InvalidValueError("variant_index needs a version to belong to", field="variant_index")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        async with self._transactions() as tx:
            # Two that are created at the same moment are counted one after the other.
            project = await _load_authorized(tx, actor, project_id, Permission.SHARE_PROJECT, lock=True)
            if project.status is ProjectStatus.ARCHIVED:
                raise InvalidValueError("an archived project is not shared; restore it first", field="status")
            if await tx.shares.count_live(project_id) >= MAXIMUM_NUMBER:
                raise LimitReachedError(f"a project may have {MAXIMUM_NUMBER} shares; revoke one first")
            code_id = None
            if version is not None:
                code_id, variant_index = await _variant(tx, project_id, version, variant_index)
            expires_at = None if expires_in is None else datetime.now(UTC) + expires_in
            share = Share(project_id=project_id, code_id=code_id, token_hash=_hash(token), expires_at=expires_at)
            tx.add(share)
            await tx.flush()
            view = ShareView.model_validate(_fields(share) | {"version": version, "variant_index": variant_index})
            shown = view.model_dump(mode="json", include={"version", "variant_index", "expires_at"}, exclude_none=True)
            tx.add(
                _entry(
                    actor, AuditAction.PROJECT_SHARE, project, "Shared a project", {"share_id": str(share.id)} | shown
                )
            )
        return NewShare(share=view, token=SecretStr(token))

    async def list(
        self, actor: Actor, project_id: UUID, *, limit: int = MAXIMUM_PAGE, after: UUID | None = None
    ) -> Sequence[ShareView]:
        """Return the shares of a project, also those that have ended, the newest first.

        Args:
            actor: the owner, or a moderator.
            project_id: which project.
            limit: the length of the page, 1000 at most.
            after: the id of the last share of the page before.

        Raises:
            NotFoundError: the project does not exist, or the actor may not see its shares.
        """
        async with self._transactions() as tx:
            await _load_authorized(tx, actor, project_id, Permission.READ_SHARES)
            return await tx.shares.views(project_id, limit=limit, after=after)

    async def revoke(self, actor: Actor, share_id: UUID) -> bool:
        """End a share at once and for good; whether it was not revoked already.

        Raises:
            NotFoundError: the share does not exist, or the actor may not end it.
        """
        async with self._transactions() as tx:
            actor = await as_of_now(tx, actor)
            try:
                share = await tx.shares.get(share_id, lock=True)
                project = await tx.projects.get(share.project_id)
            except NotFoundError:
                raise _missing_share(share_id) from None
            if not is_allowed(actor, Permission.REVOKE_SHARE, owner=project.user_id):
                raise _missing_share(share_id)
            if share.revoked_at is not None:
                return False
            share.revoked_at = datetime.now(UTC)
            tx.add(_entry(actor, AuditAction.PROJECT_UNSHARE, project, "Revoked a share", {"share_id": str(share.id)}))
            return True

    async def open(self, token: str) -> SharedPage:
        """Return what a link shows, and count the view. The token is all that is needed, so no actor is.

        Nothing is disclosed but the page. An unknown token, a share that was revoked or has expired, a project that is
        archived or deleted, and an owner whose account is not active make no difference.

        Raises:
            NotFoundError: there is nothing to show.
        """
        async with self._transactions() as tx:
            opened = await _opened(tx, token)
        self._views.count(GeneratedCode, opened.code_id)
        return opened.page

    async def show(self, token: str) -> str:
        """Return the page that a link shows, with images that live, and count the view; see ``open``.

        Raises:
            NotFoundError: there is nothing to show.
        """
        async with self._transactions() as tx:
            opened = await _opened(tx, token)
            page = await live_page(tx, opened.project_id, opened.code_id, opened.page.code)
        self._views.count(GeneratedCode, opened.code_id)
        return page

    async def fork(
        self, actor: Actor, token: str, *, name: str = "Copy of a shared page", owner_id: UUID | None = None
    ) -> ProjectFull:
        """Make a project of the actor's own of what a link shows, which counts as a view of it.

        The page is version 1, of type import, with the images that it shows at addresses of its own. Nothing else comes
        along: neither name, settings and other files of the shared project, nor prompts, models and costs. What happens
        to the share, to its project or to its owner later does not change the copy.

        Args:
            actor: whose project it will be.
            token: of the link.
            name: of the project.
            owner_id: instead of the actor, where the system acts.

        Raises:
            NotFoundError: the link shows nothing, see ``open``.
            PermissionDeniedError: the actor has no active account, or names another person.
            InvalidValueError: the name cannot be one; ``field`` says which value is meant.
        """
        owner_id = owner_id or actor.user_id
        require(actor, Permission.CHANGE_PROJECT, owner=owner_id)
        if owner_id is None:
            raise InvalidValueError("owner_id is missing: the system has no projects", field="owner_id")
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.CHANGE_PROJECT, owner=owner_id)
            opened = await _opened(tx, token)
            live = await live_page(tx, opened.project_id, opened.code_id, opened.page.code)
            page = opened.page.model_copy(update={"code": live})
            project = await import_page(tx, owner_id, page, name=name, base=self._base_url)
            new: dict[str, object] = {"name": project.name, "share_id": str(opened.id)}
            tx.add(_entry(actor, AuditAction.PROJECT_CLONE, project, "Forked a shared page", new))
            view = ProjectFull.model_validate(project)
        self._views.count(GeneratedCode, opened.code_id)
        return view


async def _opened(tx: UnitOfWork, token: str) -> OpenedShare:
    opened = await tx.shares.open(_hash(token))
    if opened is None:
        raise NotFoundError("there is no such share")
    return opened


async def _load_authorized(
    tx: UnitOfWork, actor: Actor, project_id: UUID, permission: Permission, *, lock: bool = False
) -> Project:
    actor = await as_of_now(tx, actor)
    try:
        project = await tx.projects.get(project_id, lock=lock)
    except NotFoundError:
        raise _missing_project(project_id) from None
    is_there = project.status is not ProjectStatus.DELETED
    if not is_there or not is_allowed(actor, permission, owner=project.user_id):
        raise _missing_project(project_id)
    return project


async def _variant(tx: UnitOfWork, project_id: UUID, version: int, variant_index: int | None) -> tuple[UUID, int]:
    found = await tx.shares.variant(project_id, version, variant_index)
    if found is None:
        which = f"version {version}" if variant_index is None else f"variant {variant_index} of version {version}"
        raise NotFoundError(f"the project has no {which} that can be shown")
    return found


def _missing_project(project_id: UUID) -> NotFoundError:
    return NotFoundError(f"no project has the id {project_id}")


def _missing_share(share_id: UUID) -> NotFoundError:
    return NotFoundError(f"no share has the id {share_id}")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _fields(share: Share) -> dict[str, object]:
    return {name: getattr(share, name) for name in ShareView.model_fields if hasattr(share, name)}


def _entry(
    actor: Actor, action: AuditAction, project: Project, description: str, values: dict[str, object]
) -> AuditLog:
    user_id = actor.user_id or project.user_id
    return AuditLog.data_action(action, user_id, "project", project.id, description, new_values=values)
