"""Projects, their lists and their histories as the cache has them.

A list has many pages, by order, filter and place, and a change may move rows across all of them. So its key holds a
random name under which its pages are kept: to invalidate the key is to leave all pages behind at once. A page is loaded
after its name was; so it is never older than what was invalidated before.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from data_layer.cache import Cache
from data_layer.entities.enums import ProjectStatus
from data_layer.errors import NotFoundError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.base import Value
from data_layer.schemas.generations import GenerationView
from data_layer.schemas.projects import ProjectFull
from data_layer.services.permissions import as_of_now
from data_layer.services.project_keys import owner_key, project_key

CACHED_SECONDS = 60
Page = TypeVar("Page")
_Page = tuple[GenerationView, ...]


class _Opened(Value):
    """A project, and the name under which the pages of its history are kept."""

    project: ProjectFull
    pages: str


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

    async def listed(self, owner_id: UUID, shape: str, load: Callable[[], Awaitable[Page]], as_type: Any) -> Page:
        """A page of somebody's projects, asked for by that person.

        Args:
            owner_id: whose.
            shape: distinguishes this page from all others of the list.
            load: reads it from the database.
            as_type: what it is.

        Raises:
            PermissionDeniedError: the account is gone, or not active.
        """
        key = f"{owner_key(owner_id)}:{await self._pages_of(owner_id)}:{shape}"
        page: Page = await self._cache.get_or_load(key, load, CACHED_SECONDS, as_type=as_type)
        return page

    async def history(self, project: ProjectFull, shape: str, load: Callable[[], Awaitable[_Page]]) -> _Page:
        """A page of a project's history, asked for by its owner; see ``listed``.

        A page on which a variant runs is loaded each time: its checkpoints change it, and name no key.
        """
        await self._pages_of(project.user_id)
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

    async def _pages_of(self, user_id: UUID) -> str:
        """The name of what is cached of somebody's list; only of an active account."""
        return await self._cache.get_or_load(
            owner_key(user_id), lambda: self._name_pages(user_id), CACHED_SECONDS, as_type=str
        )

    async def _load(self, project_id: UUID) -> _Opened:
        async with self._transactions() as tx:
            project = await tx.projects.view(project_id)
        if project is None or project.status is ProjectStatus.DELETED:
            raise NotFoundError(f"no project has the id {project_id}")
        return _Opened(project=project, pages=_new_name())

    async def _name_pages(self, user_id: UUID) -> str:
        async with self._transactions() as tx:
            await as_of_now(tx, Actor.user(user_id))
        return _new_name()


def _new_name() -> str:
    return secrets.token_urlsafe(9)
