"""Thumbnails: made after an image was stored, by whichever process gets to it first.

The row of an image says that its thumbnails are still to be made. The process that stored it makes them soon, one image
after the other, while no others are being stored; whatever shows a thumbnail before has it made at once, and waits for
that. Where a process ends before, maintenance makes them.

| the process dies | left behind |
| --- | --- |
| before the thumbnails are stored | an image whose row says that they are to be made |
| between storing and recording them | that, and objects that no row names, which ``storage cleanup`` removes |
| after | the thumbnails |

Two processes may make the same thumbnails at once: each stores its own, and the first to change the row of the image
records them. The other removes its own, as it does where the image was deleted meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from uuid import UUID

from data_layer.concurrency import SingleFlight, cancel_and_wait, is_set_within, uninterrupted
from data_layer.entities import StoredFile
from data_layer.entities.enums import FileState
from data_layer.errors import (
    DamagedFileError,
    DataLayerError,
    FileNotFoundInStorageError,
    FileTooLargeError,
    ImageTimeoutError,
    InvalidFileError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.stored_objects import ObjectRecord
from data_layer.repositories.unit_of_work import Transactions
from data_layer.services.files.backends import THUMBNAIL_TYPE, StorageBackends, new_place, thumbnail_key
from data_layer.services.files.packing import verified
from data_layer.services.files.removal import leaving_rest_to_cleanup, recorded_or_discarded
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import InspectedFile, Inspector, Thumbnail, receive

log = get_log(__name__)

WAITING = 1_000
"""Images that may wait in one process; for more of them it asks the database, once these are done."""

SECONDS_IN_TIME = 5.0
"""How long thumbnails that are needed now are waited for at most."""

_AT_ONCE = 2
# Others that are saved go first: until none has come for so long, though never longer than the second number.
_QUIET_SECONDS = 0.2
_PATIENCE_SECONDS = 2.0
_FINISH_SECONDS = 5.0
_ROUND_SECONDS = 600.0
_BATCH = 100
_MOST_FAILURES = 10
_YOUNG = timedelta(minutes=10)
"""How old an image must be for maintenance: until then the process that has stored it may be about to make them."""

_Place = tuple[datetime, UUID]


class ThumbnailMaker:
    """Makes the thumbnails of stored images: in the background, in time for a reader, and for maintenance."""

    def __init__(
        self, transactions: Transactions, backends: StorageBackends, inspector: Inspector, threads: FileThreads
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._inspector = inspector
        self._threads = threads
        self._waiting: dict[str, None] = {}
        self._has_more = False
        self._looked_until: _Place | None = None
        self._arrived = asyncio.Event()
        self._arrived_at = -_QUIET_SECONDS
        self._closing = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._flights: SingleFlight[str, None] = SingleFlight("thumbnails")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to make those of the images that are added."""
        self._task = asyncio.create_task(self._run(), name="thumbnail-maker", context=Context())

    def add(self, key: str) -> None:
        """Have thumbnails of a stored image made soon."""
        self._arrived_at = monotonic()
        if len(self._waiting) < WAITING:
            self._waiting[key] = None
        else:
            self._has_more = True
        self._arrived.set()

    async def make_in_time(self, key: str) -> None:
        """Have thumbnails of an image made now. Return when they are, or else after five seconds."""
        self._waiting.pop(key, None)
        try:
            async with asyncio.timeout(SECONDS_IN_TIME):
                await self._flights.run(key, partial(self._make, key))
        except (DataLayerError, TimeoutError) as error:
            log.warning("thumbnails_delayed", key=key, reason=str(error) or "they were not made in time")

    async def make_overdue(self, on_progress: Callable[[int], None]) -> int:
        """Make those that no process has made, for ten minutes at most; how many images were gone through.

        Raises:
            DataLayerError: ten images after each other failed for a reason that may pass.
        """
        done = failures = 0
        end = monotonic() + _ROUND_SECONDS
        after: _Place | None = None
        while True:
            page = await self._overdue(after)
            for image in page:
                if monotonic() > end:
                    return done
                await self._let_others_go_first()
                try:
                    await self._flights.run(image.key, partial(self._make, image.key))
                except DataLayerError as error:
                    log.warning("thumbnails_delayed", key=image.key, reason=str(error))
                    failures += 1
                    if failures == _MOST_FAILURES:
                        raise
                else:
                    failures = 0
                    done += 1
                    on_progress(done)
            if len(page) < _BATCH:
                return done
            after = _place_of(page[-1])

    async def count_overdue(self) -> int:
        """How many images there are of which no process has made any."""
        async with self._transactions() as tx:
            return await tx.stored_files.count_without_thumbnails(older_than=_YOUNG)

    async def close(self) -> None:
        """Make those that are still waiting, for five seconds at most; the rest is left to others."""
        self._closing.set()
        self._arrived.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_FINISH_SECONDS)
            await cancel_and_wait(self._task)
        await self._flights.close()
        if self._waiting or self._has_more:
            log.info("thumbnails_left_to_maintenance", images=len(self._waiting))

    async def _run(self) -> None:
        while self._waiting or self._has_more or not self._closing.is_set():
            if not self._waiting and self._has_more:
                await self._look_for_more()
            if not self._waiting:
                await self._arrived.wait()
                self._arrived.clear()
                continue
            await self._let_others_go_first()
            if self._waiting:
                key = next(iter(self._waiting))
                del self._waiting[key]
                await self._make_sometime(key)

    async def _make_sometime(self, key: str) -> None:
        try:
            await self._flights.run(key, partial(self._make, key))
        except Exception as error:  # noqa: BLE001  (whatever it was: the next ones may succeed)
            log.warning("thumbnails_delayed", key=key, reason=str(error))

    async def _look_for_more(self) -> None:
        """Take over images that did not fit, and what other processes have not done yet; each once."""
        images: Sequence[StoredFile] = ()
        try:
            async with self._transactions() as tx:
                images = await tx.stored_files.without_thumbnails(
                    older_than=timedelta(0), after=self._looked_until, limit=WAITING
                )
        except DataLayerError as error:
            log.warning("thumbnails_left_to_maintenance", reason=str(error))
        self._has_more = len(images) == WAITING
        self._looked_until = _place_of(images[-1]) if self._has_more else None
        self._waiting |= {image.key: None for image in images}

    async def _let_others_go_first(self) -> None:
        end = monotonic() + _PATIENCE_SECONDS
        while not self._closing.is_set() and (left := min(self._arrived_at + _QUIET_SECONDS, end) - monotonic()) > 0:
            await is_set_within(self._closing, left)

    async def _overdue(self, after: _Place | None) -> Sequence[StoredFile]:
        async with self._transactions() as tx:
            return await tx.stored_files.without_thumbnails(older_than=_YOUNG, after=after, limit=_BATCH)

    async def _make(self, key: str) -> None:
        """Make, store and record the thumbnails of an image.

        Raises:
            DataLayerError: they could not be made now; later it may work.
        """
        async with self._slots:
            async with self._transactions() as tx:
                image = await tx.stored_files.to_make_thumbnails_of(key)
            if image is None:
                return
            thumbnails = await self._decode(image)
            place = new_place()
            rows = [_row(image, place, thumbnail) for thumbnail in thumbnails]
            try:
                await self._store(rows, thumbnails)
            except BaseException:
                await uninterrupted(self._discard(image, rows))
                raise
            await recorded_or_discarded(
                self._record(image, rows), is_kept=bool, discard=partial(self._discard, image, rows)
            )

    async def _decode(self, image: ObjectRecord) -> Sequence[Thumbnail]:
        """The thumbnails; none where they cannot be made, now or later."""
        try:
            async with (
                self._backends.of(image.backend).open(image.key) as file,
                receive(verified(file.chunks, image.sha256), image.size, self._threads) as received,
            ):
                return await self._inspector.thumbnails(InspectedFile(image.content_type, received))
        except ImageTimeoutError:
            raise
        except (InvalidFileError, FileNotFoundInStorageError, DamagedFileError, FileTooLargeError) as error:
            log.warning("thumbnails_failed", key=image.key, reason=str(error))
            return []

    async def _store(self, rows: Sequence[StoredFile], thumbnails: Sequence[Thumbnail]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for row, thumbnail in zip(rows, thumbnails, strict=True):
                    group.create_task(self._backends.put(row, thumbnail.file))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _record(self, image: ObjectRecord, rows: Sequence[StoredFile]) -> bool:
        """Whether they were recorded: the image may be gone, or others have been quicker."""
        async with self._transactions() as tx:
            is_ours = await tx.stored_files.end_thumbnails(image)
            for row in rows if is_ours else ():
                tx.files.add_object(row)
        if rows and is_ours:
            log.debug("thumbnails_made", key=image.key, thumbnails=len(rows))
        return is_ours

    async def _discard(self, image: ObjectRecord, rows: Sequence[StoredFile]) -> None:
        """Remove what was stored and not recorded. What fails stays as an orphaned file."""
        with leaving_rest_to_cleanup(files=len(rows)):
            await self._backends.of(image.backend).delete_many([row.key for row in rows])


def _place_of(image: StoredFile) -> _Place:
    return image.updated_at, image.id


def _row(image: ObjectRecord, place: str, thumbnail: Thumbnail) -> StoredFile:
    file = thumbnail.file
    return StoredFile(
        parent_id=image.id,
        owner_id=image.owner_id,
        backend=image.backend,
        key=thumbnail_key(place, thumbnail.size),
        state=FileState.STORED,
        content_type=THUMBNAIL_TYPE,
        size=file.size,
        original_size=file.size,
        sha256=file.sha256,
        width=thumbnail.width,
        height=thumbnail.height,
        image_format="WEBP",
    )
