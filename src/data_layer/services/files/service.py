"""What the product can do with files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from data_layer.entities.enums import FileState
from data_layer.errors import InvalidValueError, NotFoundError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.files import Attachment, DirectUpload, FileView, PublicFile, ThumbnailView
from data_layer.services.arguments import checks_arguments
from data_layer.services.fetching import Fetcher
from data_layer.services.files.backends import (
    PUBLIC_PATH,
    THUMBNAIL_TYPE,
    StorageBackends,
    headers_of,
    is_public_name,
    public_name,
    require_size,
)
from data_layer.services.files.ingest import FileIngest, SaveRequest, new_reference
from data_layer.services.files.owners import ANY_OWNER, Owner, require_owner
from data_layer.services.files.packing import unpack, verified
from data_layer.services.files.removal import FileRemoval, leaving_rest_to_cleanup
from data_layer.services.files.sources import content_of
from data_layer.services.files.thumbnails import ThumbnailMaker
from data_layer.services.files.uploads import DirectUploads
from data_layer.storage import FileContent, OpenFile, SignedUrl
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import Inspector, canonical_type, clean_file_name, content_disposition, receive

SHOWN_INLINE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What a browser shows and never runs; everything else is offered as a download, because it may be hostile."""

_PAGE = 200


@checks_arguments
class FileService:
    """Files of users and of the system.

    Each has an id of its own, also where its bytes are shared with other files of the same owner: deleting one never
    takes another one away. Methods that take an ``owner_id`` know a file of somebody else as little as a missing one;
    ``None`` is the system, and ``ANY_OWNER`` is for callers that have made sure in another way.
    """

    def __init__(
        self,
        transactions: Transactions,
        backends: StorageBackends,
        inspector: Inspector,
        threads: FileThreads,
        removal: FileRemoval,
        *,
        thumbnails: ThumbnailMaker,
        fetcher: Fetcher,
        upload_expires_in: timedelta = timedelta(minutes=15),
        public_url: str = "",
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._inspector = inspector
        self._thumbnails = thumbnails
        self._threads = threads
        self._removal = removal
        self._fetcher = fetcher
        self._public_url = public_url
        self._ingest = FileIngest(transactions, backends, inspector, threads, thumbnails)
        self._uploads = DirectUploads(
            transactions,
            backends,
            ingest=self._ingest,
            removal=removal,
            inspector=inspector,
            threads=threads,
            expires_in=upload_expires_in,
        )

    async def save(
        self,
        content: FileContent,
        *,
        owner_id: UUID | None,
        content_type: str | None = None,
        file_name: str | None = None,
        attached_to: Attachment | None = None,
        expires_in: timedelta | None = None,
        allowed_types: Collection[str] | None = None,
    ) -> FileView:
        """Store a file, if it is what it should be. The thumbnails of an image are made afterwards; see ``thumbnails``.

        Args:
            content: The bytes, or where to read them.
            owner_id: Whose file it is; None for the system's.
            content_type: What it is said to be; compared with what it is.
            file_name: What its user calls it; shown to those who download it, and used for nothing else.
            attached_to: The row that it belongs to, and goes with.
            expires_in: After how long it is removed automatically.
            allowed_types: Which types may be stored, instead of ALLOWED_FILE_TYPES: for what the application makes.

        Raises:
            InvalidFileError: it may not be stored; the subclass and the message say why. Nothing was stored.
            FileTooLargeError: it is larger than MAX_FILE_SIZE.
            MissingReferenceError: the owner or the row to attach it to does not exist.
            StorageError: it could not be stored.
        """
        request = _request(owner_id, file_name, attached_to, expires_in)
        allowed = None if allowed_types is None else frozenset(map(canonical_type, allowed_types))
        async with receive(content, self._inspector.limits.max_file_size, self._threads) as received:
            inspected = await self._inspector.inspect(received, content_type, allowed)
            return await self._ingest.store(inspected, request)

    async def save_from_url(
        self,
        url: str,
        *,
        owner_id: UUID | None,
        file_name: str | None = None,
        attached_to: Attachment | None = None,
        expires_in: timedelta | None = None,
    ) -> FileView:
        """Store what a base64 data URL holds, or what an http(s) URL names, which is fetched at once.

        Only public addresses are reached. The URL itself is not kept, because it may grant access.

        Args:
            url: The URL.
            owner_id: Whose file it is; None for the system's.
            file_name: What its user calls it.
            attached_to: The row that it belongs to, and goes with.
            expires_in: After how long it is removed automatically.

        Raises:
            InvalidUrlError, FetchError: it may not be fetched, or could not be.
            InvalidValueError: it begins with ``data:`` and is not a base64 data URL.
            InvalidFileError, FileTooLargeError, MissingReferenceError, StorageError: see ``save``.
        """
        async with content_of(url, self._fetcher, field="url") as (content, content_type):
            return await self.save(
                content,
                owner_id=owner_id,
                content_type=content_type,
                file_name=file_name,
                attached_to=attached_to,
                expires_in=expires_in,
            )

    async def stat(self, file_id: UUID, *, owner_id: Owner) -> FileView:
        """What is known about a file.

        Raises:
            NotFoundError: there is no such file.
        """
        async with self._transactions() as tx:
            view = require_owner(await tx.files.view(file_id), owner_id)
        if view.state is not FileState.STORED:
            raise NotFoundError(f"no file has the id {file_id}: its upload was not completed")
        return view

    async def thumbnails(self, file_id: UUID, *, owner_id: Owner) -> tuple[ThumbnailView, ...]:
        """The small pictures of an image, smallest first; none of another file, or of an image that is small itself.

        They are made in the background once an image is stored. Where they are still to be made, this has them made at
        once, and waits for at most five seconds: after that, or where they cannot be made, there are none.

        Raises:
            NotFoundError: the owner has no file with this id.
        """
        view = await self.stat(file_id, owner_id=owner_id)
        return (await self._with_thumbnails(view)).thumbnails

    async def _with_thumbnails(self, view: FileView) -> FileView:
        if not view.thumbnails_pending:
            return view
        await self._thumbnails.make_in_time(view.key)
        return await self.stat(view.id, owner_id=ANY_OWNER)

    async def list(
        self,
        *,
        owner_id: UUID | None,
        attached_to: Attachment | None = None,
        limit: int = 100,
        after: UUID | None = None,
    ) -> Sequence[FileView]:
        """A page of an owner's files, oldest first; ``after`` is the id of the last one of the page before."""
        async with self._transactions() as tx:
            return await tx.files.views(owner_id=owner_id, attached_to=attached_to, limit=limit, after=after)

    async def list_all(
        self, *, owner_id: UUID | None, attached_to: Attachment | None = None
    ) -> AsyncGenerator[FileView]:
        """All files of an owner, oldest first, which are read in pages: ``async for file in …``."""
        after: UUID | None = None
        while True:
            page = await self.list(owner_id=owner_id, attached_to=attached_to, limit=_PAGE, after=after)
            for file in page:
                yield file
            if len(page) < _PAGE:
                return
            after = page[-1].id

    @asynccontextmanager
    async def open(self, file_id: UUID, *, owner_id: Owner) -> AsyncIterator[OpenFile]:
        """Read a file in chunks, as it was saved: decompressed, if it is stored compressed.

        Raises:
            NotFoundError: there is no such file.
            FileNotFoundInStorageError: its bytes are missing, which ``storage check`` finds too.
            DamagedFileError: they are not those that were saved; where only the hash shows it, at their end.
        """
        view = await self.stat(file_id, owner_id=owner_id)
        async with self._backends.of(view.backend).open(view.key) as file:
            require_size(view, file.information)
            described = headers_of(view) | {"content_encoding": None}
            information = replace(file.information, size=view.size, sha256=view.sha256, **described)
            chunks = unpack(file.chunks, view.size) if view.encoding else file.chunks
            yield OpenFile(information, verified(chunks, view.sha256))

    async def download(self, file_id: UUID, *, owner_id: Owner) -> bytes:
        """The whole file, in memory, as it was saved; see ``open``."""
        async with self.open(file_id, owner_id=owner_id) as file:
            return b"".join([chunk async for chunk in file.chunks])

    async def url(self, file_id: UUID, *, owner_id: Owner) -> str:
        """The address of a file, the CDN's if one is set. It grants no right to read it."""
        view = await self.stat(file_id, owner_id=owner_id)
        return self._backends.of(view.backend).url(view.key)

    async def signed_url(
        self,
        file_id: UUID,
        *,
        owner_id: Owner,
        expires_in: timedelta,
        thumbnail: int | None = None,
        as_attachment: bool = False,
    ) -> SignedUrl:
        """Permission to read a file for a while. Never store it: it expires.

        What a browser might execute, such as HTML and SVG, is always sent as an attachment.

        Args:
            file_id: The file.
            owner_id: Whose it is.
            expires_in: How long it works, one second to seven days; no longer than the file is kept.
            thumbnail: The smallest thumbnail that is at least so many pixels wide or high, instead of the file; the
                file itself where there is none. Thumbnails that are still to be made are waited for, five seconds at
                most.
            as_attachment: Have browsers save an image too, rather than show it.
        """
        view = await self.stat(file_id, owner_id=owner_id)
        key, described = view.key, headers_of(view)
        if thumbnail is not None:
            view = await self._with_thumbnails(view)
            fitting = [small for small in view.thumbnails if max(small.width, small.height) >= thumbnail]
            if fitting:
                key = min(fitting, key=lambda small: small.width).key
                described = described | {"content_type": THUMBNAIL_TYPE}
        inline = view.content_type in SHOWN_INLINE and not as_attachment
        disposition = content_disposition("inline" if inline else "attachment", view.file_name)
        if view.expires_at is not None:
            expires_in = max(min(expires_in, view.expires_at - datetime.now(UTC)), timedelta(seconds=1))
        return await self._backends.of(view.backend).signed_url(
            key, expires_in=expires_in, content_disposition=disposition, **described
        )

    async def publish(self, file_id: UUID, *, owner_id: Owner) -> PublicFile:
        """Give the bytes of a file a permanent address, which anybody may read. Harmless to repeat, also at once.

        The address stays the same when the bytes move to another storage, and works for as long as the file exists
        whose id is returned: whatever else refers to the bytes, such as the version of a page, can go. Identical bytes
        of one owner have one address, those of two owners have two.

        Raises:
            NotFoundError: there is no such file.
        """
        view = await self.stat(file_id, owner_id=owner_id)
        async with self._transactions() as tx:
            stored = await tx.files.object_of(file_id)
            reference = new_reference(stored.id, SaveRequest(view.owner_id, view.file_name))
            reference.public_name = public_name(stored.content_type)
            published = await tx.files.view(await tx.files.publish(reference))
        name = str(published.public_name)
        return PublicFile(id=published.id, name=name, url=f"{self._public_url}{PUBLIC_PATH}{name}")

    async def published(self, name: str) -> FileView:
        """Return the file that anybody may read at a permanent address, of whichever owner.

        Raises:
            NotFoundError: there is nothing at this address.
        """
        if not is_public_name(name):
            raise NotFoundError("no file has a permanent address of this form")
        async with self._transactions() as tx:
            return await tx.files.public_view(name)

    async def attach(self, file_id: UUID, to: Attachment, *, owner_id: Owner) -> FileView:
        """Have a row refer to a file as well, so that the bytes stay as long as the row does. Harmless to repeat.

        Returns the file that the row has now; it shares the bytes, and has an id of its own.

        Raises:
            NotFoundError: there is no such file.
            MissingReferenceError: there is no such row.
        """
        view = await self.stat(file_id, owner_id=owner_id)
        async with self._transactions() as tx:
            stored = await tx.files.object_of(file_id)
            existing = await tx.files.attached(stored.id, to)
            if existing is not None:
                return await tx.files.view(existing)
            reference = new_reference(stored.id, SaveRequest(view.owner_id, view.file_name, to))
            tx.files.add(reference)
            return await tx.files.view(reference.id)

    async def detach(self, file_id: UUID, attached_to: Attachment, *, owner_id: Owner) -> bool:
        """Have a row no longer refer to the bytes of a file; whether it did. What nobody refers to any more goes."""
        await self.stat(file_id, owner_id=owner_id)
        async with self._transactions() as tx:
            stored = await tx.files.object_of(file_id)
            removed = await tx.files.remove_attached(stored.id, attached_to)
        if removed:
            with leaving_rest_to_cleanup(files=1):
                await self._removal.remove([stored.id])
        return removed > 0

    async def delete(self, file_id: UUID, *, owner_id: Owner) -> bool:
        """Delete a file, or give up a direct upload; whether there was one. Shared bytes go with their last file.

        When the storage cannot be reached the file is gone for everybody, and its bytes stay until ``storage cleanup``.
        """
        async with self._transactions() as tx:
            try:
                view = require_owner(await tx.files.view(file_id), owner_id)
            except NotFoundError:
                return False
            objects = await tx.files.remove(file_id)
        end = self._removal.abandon if view.state is FileState.PENDING else self._removal.remove
        with leaving_rest_to_cleanup(files=len(objects)):
            await end(objects)
        return bool(objects)

    async def begin_upload(
        self,
        *,
        owner_id: UUID | None,
        content_type: str,
        size: int,
        sha256: str | None = None,
        file_name: str | None = None,
        attached_to: Attachment | None = None,
        expires_in: timedelta | None = None,
    ) -> DirectUpload:
        """A signed URL to which a client sends a file itself; see `DirectUploads.begin` for what is refused."""
        request = _request(owner_id, file_name, attached_to, expires_in)
        return await self._uploads.begin(request, content_type=content_type, size=size, sha256=sha256)

    async def complete_upload(self, file_id: UUID, *, owner_id: Owner) -> FileView:
        """Verify what a client has sent, and make it visible; see `DirectUploads.complete` for what is refused."""
        return await self._uploads.complete(file_id, owner_id=owner_id)


def _request(
    owner_id: UUID | None, file_name: str | None, attached_to: Attachment | None, expires_in: timedelta | None
) -> SaveRequest:
    if expires_in is not None and expires_in <= timedelta(0):
        raise InvalidValueError("expires_in must be longer than nothing", field="expires_in")
    name = None if file_name is None else clean_file_name(file_name)
    expires_at = None if expires_in is None else datetime.now(UTC) + expires_in
    return SaveRequest(owner_id, name, attached_to, expires_at)
