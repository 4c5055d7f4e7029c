"""The calls of the hosted application's back end: pages and images, each sent once and never again.

=================================  ====================================================================================
it happens                         what follows
=================================  ====================================================================================
the same variant comes again       it gets the id that it had
variants come in any order         each finds its place in the tree, by the hashes of codes
the database is away               the call is held, and answered once the page is durable
the storage is away or slow        the page is stored after seven seconds without the images that could not be; it says
                                   how many are missing
an image is damaged                the same
this process is to end             it finishes what it has begun
the caller gives up                the page is stored all the same
=================================  ====================================================================================
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fastapi import APIRouter

from data_layer.concurrency import Room, SingleFlight
from data_layer.entities.enums import GenerationStatus
from data_layer.errors import (
    DatabaseError,
    DataLayerError,
    FetchAddressError,
    FetchError,
    InvalidValueError,
    NotFoundError,
    StorageError,
)
from data_layer.hosted import protocol
from data_layer.hosted.made_images import MadeImages
from data_layer.hosted.people import page_routes, reservation_of
from data_layer.hosted.reading import BodyReader, Medium, ReadStore
from data_layer.hosted.routes import Call, HostedRoutes, by_back_end
from data_layer.hosted.turns import Turns, held
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import FileView, PublicFile
from data_layer.schemas.generations import GenerationView
from data_layer.schemas.lineage import ReceivedGeneration, ReceivedVariant
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.generations.text import storable_json
from data_layer.web.bodies import read_body
from data_layer.web.deadlines import HELD_SECONDS, PATIENCE, STORE, STORE_IMAGE_DATA, STORE_IMAGE_URL

log = get_log(__name__)

_IMAGES_SECONDS = 7.0
"""For how long a page waits for its images."""
_ASSET_HELD_SECONDS = PATIENCE[STORE_IMAGE_DATA] - 5
_ATTEMPTS = 3
_UNTIL_TAKEN = timedelta(hours=1)
_MOST_BYTES = 288 * 2**20
"""Of all bodies and images in memory; further calls wait before they are read."""
_MOST_KNOWN = 1000
_VIDEO_TYPES = frozenset({"video/mp4", "video/webm"})

_Saved = tuple[UUID, str, bytes]
"""Whose it is, of which request, and the hash."""


class BackEnd:
    """Answers the back end.

    Args:
        data: the data layer.
    """

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        self._reader = BodyReader()
        self._room = Room(_MOST_BYTES)
        # What no call waits for any more would keep its image in memory for as long as the storage likes.
        self._saves: SingleFlight[_Saved, UUID] = SingleFlight("hosted image", cancel_abandoned=True)
        self._known: OrderedDict[_Saved, tuple[UUID, datetime]] = OrderedDict()
        self._made = MadeImages(data)
        self._turns = Turns(self._receive)

    def routes(self) -> HostedRoutes:
        """Return the calls."""
        secret = self._data.settings.hosted.saas_api_secret
        if secret is None:
            raise InvalidValueError("SAAS_API_SECRET is not set", field="saas_api_secret")
        routes, authorize = HostedRoutes(), by_back_end(secret)
        # A page is stored also after its caller has given up; an image that no answer names is of no use.
        routes.add("POST", STORE, self.store, authorize=authorize, takes_long=True)
        for path, handler in ((STORE_IMAGE_DATA, self.store_image_data), (STORE_IMAGE_URL, self.store_image_url)):
            routes.add("POST", path, handler, authorize=authorize, seconds=HELD_SECONDS[path])
        return routes

    async def store(self, call: Call) -> dict[str, str]:
        """Store one variant, and answer when it is durable."""
        async with self._room_for(call, protocol.STORE_BYTES) as keep_only:
            received, owner_id = await self._read(call)
            keep_only(_size_of(received))
            stored = await held(lambda: self._turns.store(received, owner_id), HELD_SECONDS[STORE])
        index = received.variants[0].index
        return {"generation_id": next(str(code.id) for code in stored.variants if code.variant_index == index)}

    async def _read(self, call: Call) -> tuple[ReceivedGeneration, UUID]:
        """The request of a body, whose images and videos are saved, and gone from memory; and whose it is."""
        read = await self._reader.store(await read_body(call, protocol.STORE_BYTES))
        owner_id = _user(read.generation.user_id)
        started_at = protocol.now() - timedelta(seconds=read.generation.duration)
        files, missing = await self._save_media(read, owner_id)
        received = _received(read, files, missing, started_at)
        images = await self._made.shown_in(read.generation.code, owner_id)
        return received.model_copy(update={"images": images}), owner_id

    async def _receive(self, received: ReceivedGeneration, owner_id: UUID) -> GenerationView:
        try:
            return await self._data.generations.receive(
                SYSTEM, received, owner_id=owner_id, reservation_id=reservation_of(owner_id)
            )
        except NotFoundError:
            gone = [file_id for file_id in received.files if not await self._has_file(file_id, owner_id)]
            if not gone:
                raise
            self._forget(gone)
            # They were deleted since they were saved; the page must not be lost for that.
            return await self._receive(_without(received, gone), owner_id)

    async def _has_file(self, file_id: UUID, owner_id: UUID) -> bool:
        try:
            await self._data.files.stat(file_id, owner_id=owner_id)
        except NotFoundError:
            return False
        return True

    def _forget(self, files: Collection[UUID]) -> None:
        for key in [key for key, (file_id, _) in self._known.items() if file_id in files]:
            del self._known[key]

    @asynccontextmanager
    async def _room_for(self, call: Call, most: int) -> AsyncIterator[Callable[[int], None]]:
        """Wait until there is memory for a body; yield what says how much of it is still needed."""
        announced = call.headers.get("content-length", "")
        taken = await self._room.take(min(int(announced), most) if announced.isdecimal() else most)

        def keep_only(size: int) -> None:
            nonlocal taken
            kept = min(size, taken)
            self._room.give(taken - kept)
            taken = kept

        try:
            yield keep_only
        finally:
            self._room.give(taken)

    async def store_image_data(self, call: Call) -> dict[str, str]:
        """Keep an image that a person uploaded, or that was cut out of one."""
        async with self._room_for(call, protocol.ASSET_BYTES):
            medium, owner_id = await self._read_image(call)

            async def save() -> FileView:
                return await self._data.files.save(
                    medium.content, owner_id=owner_id, expires_in=_UNTIL_TAKEN, allowed_types=protocol.ASSET_TYPES
                )

            published = await self._publish(save, owner_id)
        return {"asset_id": str(published.id), "public_url": self._address(published)}

    async def _read_image(self, call: Call) -> tuple[Medium, UUID | None]:
        body = await self._reader.object(await read_body(call, protocol.ASSET_BYTES))
        protocol.image_kind(body.get("source_type"))
        owner_id = _user_or_system(body.get("user_id"))
        medium = await self._reader.medium(protocol.require_text(body, "data_url"))
        if medium is None:
            raise InvalidValueError("data_url must be a data URL in Base64", field="data_url")
        if len(medium.content) > protocol.LARGEST_ASSET:
            raise InvalidValueError(f"an image may have {protocol.LARGEST_ASSET} bytes at most", field="data_url")
        return medium, owner_id

    async def store_image_url(self, call: Call) -> dict[str, str]:
        """Keep an image that a provider has made, before its address expires."""
        body = await call.object()
        url = protocol.require_text(body, "source_url")
        protocol.image_kind(body.get("source_type"))
        owner_id = _user_or_system(body.get("user_id"))
        attempts = 0

        async def save() -> FileView:
            nonlocal attempts
            attempts += 1
            try:
                return await self._data.files.save_from_url(url, owner_id=owner_id, expires_in=_UNTIL_TAKEN)
            except FetchAddressError as error:  # Asking again does not make it public.
                raise InvalidValueError(str(error), field="source_url") from None
            except FetchError as error:
                if attempts == _ATTEMPTS:
                    raise InvalidValueError(str(error), field="source_url") from None
                raise

        published = await self._publish(save, owner_id, and_for=(FetchError,))
        if owner_id is not None:
            await self._made.remember(published, owner_id, body)
        return {"public_url": self._address(published)}

    async def _publish(
        self,
        save: Callable[[], Awaitable[FileView]],
        owner_id: UUID | None,
        and_for: tuple[type[DataLayerError], ...] = (),
    ) -> PublicFile:
        """Save and publish; the same bytes of a person have one id and one address."""

        async def attempt() -> PublicFile:
            file = await save()
            return await self._data.files.publish(file.id, owner_id=owner_id)

        return await held(attempt, _ASSET_HELD_SECONDS, and_for=and_for)

    def _address(self, file: PublicFile) -> str:
        return f"{self._data.settings.base_url}{PUBLIC_PATH}{file.name}"

    async def _save_media(self, read: ReadStore, owner_id: UUID) -> tuple[list[UUID], int]:
        """Save images and videos for a request, once for all its variants; the files, and how many are missing."""
        waiting = [
            asyncio.ensure_future(self._save_once(medium, owner_id, read.generation.group_id)) for medium in read.media
        ]
        if not waiting:
            return [], read.unreadable
        await asyncio.wait(waiting, timeout=_IMAGES_SECONDS)
        saved, missing = [], read.unreadable
        for task in waiting:
            file_id = task.result() if task.done() else None
            task.cancel()
            if file_id is None:
                missing += 1
            else:
                saved.append(file_id)
        return saved, missing

    async def _save_once(self, medium: Medium, owner_id: UUID, group_id: str) -> UUID | None:
        key = owner_id, group_id, medium.sha256
        known, saved_at = self._known.get(key, (None, protocol.now()))
        if known is not None and protocol.now() - saved_at < _UNTIL_TAKEN / 2:
            return known
        try:
            saved = await self._saves.run(key, lambda: self._save(medium, owner_id))
        except (StorageError, NotFoundError, DatabaseError) as error:
            log.warning("hosted_image_missing", reason=error.code)
            return None
        self._known[key] = saved, protocol.now()
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return saved

    async def _save(self, medium: Medium, owner_id: UUID) -> UUID:
        async def attempt() -> UUID:
            file = await self._data.files.save(
                medium.content,
                owner_id=owner_id,
                expires_in=_UNTIL_TAKEN,
                allowed_types=protocol.ASSET_TYPES | _VIDEO_TYPES,
            )
            return file.id

        return await held(attempt, _IMAGES_SECONDS)


def _received(read: ReadStore, files: Sequence[UUID], missing: int, started_at: datetime) -> ReceivedGeneration:
    """A request with one variant, as lineage takes it."""
    generation, prompt = read.generation, read.generation.prompt
    inputs: dict[str, Any] = {"files": [str(file_id) for file_id in files], "hosted": generation.notes}
    if read.addresses:
        inputs["urls"] = list(read.addresses)
    if missing:
        inputs["missing_files"] = missing
    return ReceivedGeneration(
        source=protocol.SOURCE,
        key=generation.group_id,
        at=started_at,
        generation_type=generation.request_type,
        input_mode=generation.input_mode,
        code_stack=generation.stack,
        prompt=prompt.text,
        shown=prompt.shown,
        full_prompt=prompt.full_text,
        inputs=storable_json(inputs),
        base_code=prompt.base_code,
        base_index=generation.base_variant_index,
        earlier=prompt.earlier,
        files=tuple(files),
        variants=(
            ReceivedVariant(
                index=generation.variant_index,
                code=generation.code,
                status=GenerationStatus.COMPLETED,
                model=generation.model,
                result=generation.result,
            ),
        ),
    )


def _size_of(received: ReceivedGeneration) -> int:
    """About how much memory its texts take."""
    codes = (received.base_code, *(variant.code for variant in received.variants))
    earlier = (text for turn in received.earlier for text in (turn.prompt, turn.code))
    return sum(len(text) for text in (received.prompt, received.full_prompt, *codes, *earlier) if text is not None)


def _without(received: ReceivedGeneration, gone: Collection[UUID]) -> ReceivedGeneration:
    """The same without some of its files, which are missing then."""
    left = tuple(file_id for file_id in received.files if file_id not in gone)
    missing = received.inputs.get("missing_files", 0) + len(received.files) - len(left)
    inputs = {**received.inputs, "files": [str(file_id) for file_id in left], "missing_files": missing}
    return received.model_copy(update={"files": left, "inputs": inputs})


def _user(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFoundError("no person has this user_id") from None


def _user_or_system(value: Any) -> UUID | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidValueError("user_id must be a text, or null", field="user_id")
    return _user(value)


def make_router(data: DataLayer) -> APIRouter | None:
    """Return the calls; None where no SAAS_API_SECRET is set, so that they are not answered.

    Args:
        data: the data layer that they work with.
    """
    if data.settings.hosted.saas_api_secret is None:
        return None
    router = APIRouter()
    for routes in (page_routes(), BackEnd(data).routes()):
        router.routes.extend(routes.routes)
    return router
