"""``data.pages``: pages of variants as they are shown, with images that live.

A page names images by addresses that end: a provider forgets what it has made within the hour, and what an application
keeps on its disk is gone with the disk. While they are alive, ``keep`` makes them files of the project; wherever a page
is shown, their permanent addresses take the place of those. A code itself stays as it came, to the byte.

| a code says | a reader gets |
| --- | --- |
| the address of an image that was kept | ``/a/…#VARIANT``, or ``/local-assets/…#VARIANT`` for its own application |
| such a permanent address, after an edit of what was shown | the same, at the host of today |
| anything else | what it says |

The id of the variant behind ``#`` says where a code belongs that comes back, in whichever form it was shown; without it
the code is found by its images (``services/generations/shown.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

from data_layer.entities import GeneratedCode
from data_layer.errors import DuplicateError, InvalidValueError, MissingReferenceError, NotFoundError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment, FileView
from data_layer.schemas.generations import OpenedTree, TreeGeneration
from data_layer.services.arguments import checks_arguments
from data_layer.services.fetching import Fetcher
from data_layer.services.files import FileService
from data_layer.services.files.backends import public_name
from data_layer.services.files.ingest import SaveRequest, new_reference
from data_layer.services.files.owners import ANY_OWNER
from data_layer.services.files.sources import content_of
from data_layer.services.generations.access import open_code, open_project
from data_layer.services.page_images import (
    LOCAL_PATH,
    LONGEST_ADDRESS,
    PageImages,
    address_hash,
    images_of,
    is_local_name,
    live_page,
)
from data_layer.services.permissions import Permission
from data_layer.services.view_counts import ViewCounts
from data_layer.storage import FileContent
from data_layer.storage.validation import clean_file_name

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What is kept: images that a browser shows and never runs."""


@checks_arguments
class PageService:
    """Shows pages of variants, and keeps the images that they name.

    Args:
        transactions: begins them.
        files: stores images.
        fetcher: reads them from public addresses only.
        views: counts who looks.
    """

    def __init__(self, transactions: Transactions, files: FileService, fetcher: Fetcher, views: ViewCounts) -> None:
        self._transactions = transactions
        self._files = files
        self._fetcher = fetcher
        self._views = views

    async def open(self, actor: Actor, code_id: UUID, *, base: str = "", reason: str | None = None) -> str:
        """The page of a variant; the view is counted.

        Args:
            actor: the owner of the project.
            code_id: which variant.
            base: where the service is reached, for a page that is shown elsewhere.
            reason: why, where a moderator looks at somebody else's; it is recorded.

        Raises:
            NotFoundError: the actor has no such variant.
        """
        async with self._transactions() as tx:
            _, code = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
            page = await live_page(tx, code.project_id, code.id, code.code, base=base)
        self._views.count(GeneratedCode, code_id)
        return page

    async def show(self, actor: Actor, code_id: UUID, code: str, *, base: str = "", reason: str | None = None) -> str:
        """The page of a code of a variant that was opened already, such as of an earlier state; see ``open``.

        Raises:
            NotFoundError: the actor has no such variant.
        """
        async with self._transactions() as tx:
            _, row = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason, is_recorded=False)
            return await live_page(tx, row.project_id, code_id, code, base=base)

    async def show_tree(
        self, actor: Actor, opened: OpenedTree, *, base: str = "", keeps_local: bool = False
    ) -> OpenedTree:
        """A tree with pages in the place of codes.

        Args:
            actor: the owner of the project.
            opened: the tree.
            base: see ``open``.
            keeps_local: leave ``/local-assets/…`` there, for the application that serves it and whose tools read it.

        Raises:
            NotFoundError: the actor has no such project.
        """
        async with self._transactions() as tx:
            await open_project(tx, actor, opened.project.id, Permission.READ_CODE)
            shown = await images_of(tx, opened.project.id, base=base, keeps_local=keeps_local)
        return replace(opened, generations=_shown_generations(opened.generations, shown))

    async def keep(self, actor: Actor, project_id: UUID, address: str, content: FileContent | None = None) -> bool:
        """Keep what pages of a project name by an address, unless it is kept; whether this has kept it.

        What its owner has kept of this address for another project is shared, also when the address has ended.

        Args:
            actor: the owner of the project.
            project_id: whose pages name it.
            address: a local one or a public one.
            content: what is there; by default it is fetched.

        Raises:
            NotFoundError: the actor has no such project.
            InvalidUrlError, FetchError: it may not be fetched, or could not be.
            InvalidFileError, FileTooLargeError: it is not an image that can be kept.
            StorageError: it could not be stored.
        """
        if len(address) > LONGEST_ADDRESS:
            raise InvalidValueError(f"address may have {LONGEST_ADDRESS} characters at most", field="address")
        hashed = address_hash(address)
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.CHANGE_CODE)
            owner_id = project.user_id
            kept = (await tx.files.assets_of(project_id)).get(project_id, ())
            if any(hashed == image.address_hash for image in kept):
                return False
            known = await tx.files.find_asset(hashed, owner_id=owner_id)
        if known is not None and await self._share(known, project_id, hashed):
            return True
        file = await self._save(address, content, owner_id, project_id)
        try:
            async with self._transactions() as tx:
                await tx.files.name_asset(file.id, address_hash=hashed, asset_name=public_name(file.content_type))
        except DuplicateError:  # Somebody has kept it at the same time.
            await self._files.delete(file.id, owner_id=owner_id)
            return False
        return True

    async def read_local(self, name: str) -> tuple[bytes, str] | None:
        """A local asset that was kept, and its type: anybody may read it, as at the application that made it.

        Raises:
            StorageError: it cannot be read.
        """
        if not is_local_name(name):
            return None
        async with self._transactions() as tx:
            file = await tx.files.find_asset(address_hash(f"{LOCAL_PATH}{name}"))
        if file is None or file.content_type not in IMAGE_TYPES:
            return None
        try:
            return await self._files.download(file.id, owner_id=ANY_OWNER), file.content_type
        except NotFoundError:
            return None  # Its project was removed in this moment.

    async def _share(self, known: FileView, project_id: UUID, hashed: str) -> bool:
        """Let another project refer to the bytes; whether they were still there."""
        try:
            async with self._transactions() as tx:
                stored = await tx.files.object_of(known.id)
                request = SaveRequest(known.owner_id, known.file_name, Attachment(project_id=project_id))
                reference = new_reference(stored.id, request)
                reference.address_hash, reference.asset_name = hashed, public_name(stored.content_type)
                tx.files.add(reference)
        except (NotFoundError, MissingReferenceError):
            return False
        except DuplicateError:
            return True  # Somebody has kept it at the same time.
        return True

    async def _save(self, address: str, content: FileContent | None, owner_id: UUID, project_id: UUID) -> FileView:
        name = clean_file_name(address.partition("?")[0].rpartition("/")[2])
        attached_to = Attachment(project_id=project_id)
        if content is not None:
            return await self._files.save(
                content, owner_id=owner_id, file_name=name, attached_to=attached_to, allowed_types=IMAGE_TYPES
            )
        async with content_of(address, self._fetcher, field="address") as (fetched, _):
            return await self._files.save(
                fetched, owner_id=owner_id, file_name=name, attached_to=attached_to, allowed_types=IMAGE_TYPES
            )


async def _shown_generations(
    generations: AsyncIterator[TreeGeneration], shown: PageImages
) -> AsyncIterator[TreeGeneration]:
    async for generation in generations:
        variants = tuple(
            each.model_copy(update={"code": shown.page(each.code, each.id)}) if each.code else each
            for each in generation.variants
        )
        yield generation.model_copy(update={"variants": variants})
