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
the caller gives up                the page is stored nevertheless
=================================  ====================================================================================
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from data_layer.concurrency import SingleFlight
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
from data_layer.hosted.holding import held
from data_layer.hosted.people import reservation_of
from data_layer.hosted.reading import BodyReader, Medium, ReadStore
from data_layer.hosted.routes import Call, HostedRoutes, by_back_end
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import FileView, PublicFile
from data_layer.schemas.generations import GenerationView
from data_layer.schemas.lineage import ReceivedGeneration, ReceivedVariant
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.generations.text import storable_json
from data_layer.web.bodies import read_body

log = get_log(__name__)

_HELD_SECONDS = 60.0
"""For how long a page is tried: longer than its caller waits, because it has nobody else."""
_IMAGES_SECONDS = 7.0
"""For how long a page waits for its images."""
_ASSET_HELD_SECONDS = protocol.ASSET_SECONDS - 5
_ATTEMPTS = 3
_UNTIL_TAKEN = timedelta(hours=1)
_MOST_BODIES = 8
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
        self._bodies = asyncio.Semaphore(_MOST_BODIES)
        self._saves: SingleFlight[_Saved, UUID] = SingleFlight("hosted image")
        self._known: OrderedDict[_Saved, tuple[UUID, datetime]] = OrderedDict()

    def routes(self) -> HostedRoutes:
        """Return the calls."""
        secret = self._data.settings.hosted.saas_api_secret
        if secret is None:
            raise InvalidValueError("SAAS_API_SECRET is not set", field="saas_api_secret")
        routes, authorize = HostedRoutes(), by_back_end(secret)
        routes.add("POST", "/generations/store", self.store, authorize=authorize)
        routes.add("POST", "/assets/store_image_data", self.store_image_data, authorize=authorize)
        routes.add("POST", "/assets/store_image_url", self.store_image_url, authorize=authorize)
        return routes

    async def store(self, call: Call) -> dict[str, str]:
        """Store one variant, and answer when it is durable."""
        async with self._bodies:
            read = await self._reader.store(await read_body(call, protocol.STORE_BYTES))
        owner_id = _user(read.generation.user_id)
        started_at = protocol.now() - timedelta(seconds=read.generation.duration)
        files, missing = await self._save_media(read, owner_id)
        received = _received(read, files, missing, started_at)

        stored = await held(lambda: self._receive(received, owner_id), _HELD_SECONDS)
        index = read.generation.variant_index
        return {"generation_id": next(str(code.id) for code in stored.variants if code.variant_index == index)}

    async def _receive(self, received: ReceivedGeneration, owner_id: UUID) -> GenerationView:
        receive = partial(
            self._data.generations.receive, SYSTEM, owner_id=owner_id, reservation_id=reservation_of(owner_id)
        )
        try:
            return await receive(received)
        except NotFoundError:
            if not received.files:
                raise
            # Its files were deleted since they were saved; the page must not be lost for that.
            return await receive(received.model_copy(update={"files": ()}))

    async def store_image_data(self, call: Call) -> dict[str, str]:
        """Keep an image that a person uploaded, or that was cut out of one."""
        async with self._bodies:
            body = await self._reader.object(await read_body(call, protocol.ASSET_BYTES))
        protocol.image_kind(body.get("source_type"))
        owner_id = _user_or_system(body.get("user_id"))
        medium = await self._reader.medium(protocol.require_text(body, "data_url"))
        if medium is None:
            raise InvalidValueError("data_url must be a data URL in Base64", field="data_url")
        if len(medium.content) > protocol.LARGEST_ASSET:
            raise InvalidValueError(f"an image may have {protocol.LARGEST_ASSET} bytes at most", field="data_url")

        async def save() -> FileView:
            return await self._data.files.save(
                medium.content, owner_id=owner_id, expires_in=_UNTIL_TAKEN, allowed_types=protocol.ASSET_TYPES
            )

        published = await self._publish(save, owner_id)
        return {"asset_id": str(published.id), "public_url": self._address(published)}

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

        return {"public_url": self._address(await self._publish(save, owner_id, and_for=(FetchError,)))}

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
