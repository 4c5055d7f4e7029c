"""Projects, their lists and their histories as the cache has them.

A list has many pages, by order, filter and place, and a change may move rows across all of them. So its key holds a
random name under which its pages are kept: to invalidate the key is to leave all pages behind at once. A page is loaded
after its name was; so it is never older than what was invalidated before.

The page of a list that is asked for first is kept beside the name: after each change somebody looks at the list again,
mostly at the same page, and gets it with one load instead of two.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from data_layer.cache import Cache
from data_layer.entities.enums import ProjectStatus
from data_layer.errors import NotFoundError
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.base import Value
from data_layer.schemas.generations import GenerationView
from data_layer.schemas.projects import ProjectFull, ProjectPage
from data_layer.services.permissions import as_of_now
from data_layer.services.project_keys import owner_key, project_key

CACHED_SECONDS = 60
LONGEST_PAGE_BESIDE_NAME = 100
"""Projects. To read a history is to read the name too, and with it the page."""
_Page = tuple[GenerationView, ...]


class _Opened(Value):
    """A project, and the name under which the pages of its history are kept."""

    project: ProjectFull
    pages: str


class _Listed(Value):
    """The name under which the pages of a person's list are kept, and the page that was asked for first, if one was."""

    pages: str
    shape: str | None = None
    page: ProjectPage | None = None


class CachedProjects:
    """What is read of projects far more often than it changes."""

    def __init__(self, transactions: Transactions, cache: Cache) -> None:
        self._transactions = transactions
        self._cache = cache

    async def project(self, project_id: UUID) -> ProjectFull:
        """A project, whichever actor asks.

        Raises:
            NotFoundError: there is none, or it is deleted.
        """
        return (await self._opened(project_id)).project

    async def listed(
        self, owner_id: UUID, shape: str, load: Callable[[UnitOfWork], Awaitable[ProjectPage]], *, limit: int
    ) -> ProjectPage:
        """A page of somebody's projects, asked for by that person.

        Args:
            owner_id: whose.
            shape: distinguishes this page from all others of the list.
            load: reads it from the database, for an active account only.
            limit: how many projects it has at most.

        Raises:
            PermissionDeniedError: the account is gone, or not active.
        """

        async def load_page() -> ProjectPage:
            async with self._transactions() as tx:
                return await load(tx)

        async def load_with_name() -> _Listed:
            return _Listed(pages=_new_name(), shape=shape, page=await load_page())

        load_name = load_with_name if limit <= LONGEST_PAGE_BESIDE_NAME else partial(self._load_name, owner_id)
        listed = await self._listed(owner_id, load_name)
        if listed.page is not None and listed.shape == shape:
            return listed.page
        key = f"{owner_key(owner_id)}:{listed.pages}:{shape}"
        page: ProjectPage = await self._cache.get_or_load(key, load_page, CACHED_SECONDS, as_type=ProjectPage)
        return page

    async def history(self, project: ProjectFull, shape: str, load: Callable[[], Awaitable[_Page]]) -> _Page:
        """A page of a project's history, asked for by its owner; see ``listed``.

        A page on which a variant runs is loaded each time: its checkpoints change it, and name no key.
        """
        await self._listed(project.user_id, partial(self._load_name, project.user_id))
        opened = await self._opened(project.id)
        key = f"history_of:{project.id}:{opened.pages}:{shape}"
        is_new = False

        async def load_now() -> _Page:
            nonlocal is_new
            is_new = True
            return await load()

        page = await self._cache.get_or_load(key, load_now, CACHED_SECONDS, as_type=_Page)
        is_running = any(generation.status.is_running for generation in page)
        return await load() if is_running and not is_new else page

    async def _opened(self, project_id: UUID) -> _Opened:
        return await self._cache.get_or_load(
            project_key(project_id), lambda: self._load(project_id), CACHED_SECONDS, as_type=_Opened
        )

    async def _listed(self, user_id: UUID, load: Callable[[], Awaitable[_Listed]]) -> _Listed:
        """What is cached of the list of an active account."""
        listed: _Listed = await self._cache.get_or_load(owner_key(user_id), load, CACHED_SECONDS, as_type=_Listed)
        return listed

    async def _load(self, project_id: UUID) -> _Opened:
        async with self._transactions() as tx:
            project = await tx.projects.view(project_id)
        if project is None or project.status is ProjectStatus.DELETED:
            raise NotFoundError(f"no project has the id {project_id}")
        return _Opened(project=project, pages=_new_name())

    async def _load_name(self, user_id: UUID) -> _Listed:
        async with self._transactions() as tx:
            await as_of_now(tx, Actor.user(user_id))
        return _Listed(pages=_new_name())


def _new_name() -> str:
    return secrets.token_urlsafe(9)
