"""What can be done with one variant, by its id."""

from __future__ import annotations

import asyncio
from uuid import UUID

from data_layer.entities import GeneratedCode
from data_layer.errors import InvalidValueError
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeFull
from data_layer.schemas.generations import CodeDiff, GenerationView
from data_layer.schemas.projects import ProjectFull
from data_layer.services.generations.access import open_code
from data_layer.services.generations.copies import copy_version
from data_layer.services.generations.trees import Trees
from data_layer.services.generations.versions import difference, require_complete, restore_code
from data_layer.services.permissions import Permission


class Variants(Trees):
    """Variants by their ids, wherever they are in their projects."""

    async def open_variant(self, actor: Actor, code_id: UUID, *, reason: str | None = None) -> GeneratedCodeFull:
        """A variant with its code; the view is counted, see ``version``.

        Args:
            actor: the owner of the project.
            code_id: which variant.
            reason: why, where a moderator looks at somebody else's; it is recorded.

        Raises:
            NotFoundError: the actor has no such variant.
        """
        async with self._transactions() as tx:
            _, code = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
            view = GeneratedCodeFull.model_validate(code)
        self._views.count(GeneratedCode, code_id)
        return view

    async def compare(
        self, actor: Actor, code_id: UUID, against_id: UUID | None = None, *, reason: str | None = None
    ) -> CodeDiff:
        """What a variant changes of another one.

        Args:
            actor: the owner of both projects, which may be one.
            code_id: which variant.
            against_id: the other one, by default the one that it was made from.
            reason: see ``open_variant``.

        Raises:
            NotFoundError: the actor has no such variant.
            InvalidValueError: it was made from none, so that ``against_id`` is needed.
        """
        async with self._transactions() as tx:
            _, code = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
            other_id = against_id or code.parent_id
            if other_id is None:
                raise InvalidValueError("the variant was made from no other one; say against which", field="against")
            _, other = await open_code(tx, actor, other_id, Permission.READ_CODE, reason=reason)
        return await asyncio.to_thread(difference, other, code)

    async def restore_variant(self, actor: Actor, code_id: UUID) -> GenerationView:
        """Make a variant the last version of its project again; see ``restore``.

        Raises:
            NotFoundError: the actor has no such variant.
            InvalidValueError: it is not complete.
        """
        async with self._transactions() as tx:
            project, code = await open_code(tx, actor, code_id, Permission.CHANGE_CODE)
            return await restore_code(tx, actor, project, require_complete(code, "code_id"))

    async def fork_variant(self, actor: Actor, code_id: UUID, *, name: str | None = None) -> ProjectFull:
        """Begin a new project with a variant; see ``fork``.

        Raises:
            NotFoundError: the actor has no such variant.
            InvalidValueError: it is not complete, or the name cannot be one.
        """
        async with self._transactions() as tx:
            project, code = await open_code(tx, actor, code_id, Permission.COPY_PROJECT)
            return await copy_version(tx, actor, project, require_complete(code, "code_id"), name=name)
