"""Images that generated pages show, kept by ``data.pages`` while they are alive.

Local assets are read from the application itself, whatever it keeps them in; those at providers from their addresses.
What cannot be kept at the moment is tried again for as long as it may be alive.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from time import time
from typing import Any
from uuid import UUID

from starlette.responses import Response
from starlette.types import ASGIApp, Message

from data_layer.concurrency import Backoff
from data_layer.errors import DataLayerError, FetchAddressError, FetchError
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.recorder.delivery import is_transient
from data_layer.recorder.protocol import ASSET_TOOLS, ASSETS_PATH
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import Piece, VariantEvent, WholeCode
from data_layer.services.page_images import addresses_in, local_names

log = get_log(__name__)

MOST_OF_A_RUN = 64
"""Assets that are kept of one request."""
ALIVE_SECONDS = 3600.0
"""For how long providers keep what they have made."""
_MOST_FETCHES = 4
_LARGEST = 20 * 2**20
_SECONDS = 45.0
_AT_ONCE = 4
_MOST_KEPT = 10_000


def named_in(pieces: Iterable[Piece]) -> set[str]:
    """What is to be kept of what was said: local assets by their paths, others by their addresses."""
    found: set[str] = set()
    for piece in pieces:
        if isinstance(piece, WholeCode):
            found |= _local(piece.code)
        elif isinstance(piece, VariantEvent) and "data" in piece.payload:
            data = piece.payload["data"]
            is_tool = isinstance(data, Mapping) and data.get("name") in ASSET_TOOLS
            for text in _texts(data.get("output") if isinstance(data, Mapping) else data):
                found |= _local(text)
                found |= addresses_in(text) if is_tool else set()
    return found


def _local(text: str) -> set[str]:
    return {f"{ASSETS_PATH}{name}" for name in local_names(text)}


def _texts(value: Any) -> Iterable[str]:
    """The texts in what a tool reports."""
    match value:
        case str():
            yield value
        case Mapping():
            for each in value.values():
                yield from _texts(each)
        case list():
            for each in value:
                yield from _texts(each)


class Assets:
    """Keeps assets, and finds them again.

    Args:
        data: keeps them.
        application: serves the local ones of this computer.
    """

    def __init__(self, data: DataLayer, application: ASGIApp) -> None:
        self._data = data
        self._application = application
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._kept: OrderedDict[tuple[UUID, str], None] = OrderedDict()

    async def keep(self, actor: Actor, project_id: UUID, addresses: Iterable[str], *, until: float) -> None:
        """Keep what is at addresses for the pages of a project; what fails for good is logged.

        Args:
            actor: the owner of the project.
            project_id: which one.
            addresses: of the images.
            until: the time, in seconds since 1970, up to which an attempt is repeated.
        """
        waiting = sorted(address for address in addresses if (project_id, address) not in self._kept)
        pauses, attempt = Backoff(0.5, 60.0), 0
        while waiting and (not attempt or time() < until):
            attempt += 1
            is_last = attempt >= _MOST_FETCHES
            waiting = [
                each for each in waiting if not await self._try_to_keep(actor, project_id, each, is_last=is_last)
            ]
            if waiting:
                await asyncio.sleep(pauses.next())
        for address in waiting:
            log.warning("asset_not_kept", is_local=address.startswith(ASSETS_PATH), code="too_late")

    async def answer(self, path: str) -> Response | None:
        """A local asset that their application has no more."""
        kept = await self._data.pages.read_local(path.removeprefix(ASSETS_PATH))
        if kept is None:
            return None
        headers = {
            "cache-control": "public, max-age=86400",
            "x-content-type-options": "nosniff",
            "access-control-allow-origin": "*",
            "cross-origin-resource-policy": "cross-origin",
        }
        content, kind = kept
        return Response(content, media_type=kind, headers=headers)

    async def _try_to_keep(self, actor: Actor, project_id: UUID, address: str, *, is_last: bool) -> bool:
        """Whether nothing is left to do for an address: it is kept, or cannot be, or its host has failed too often."""
        is_local = address.startswith(ASSETS_PATH)
        async with self._slots:
            try:
                async with asyncio.timeout(_SECONDS):
                    content = await self._read_local(address) if is_local else None
                    await self._data.pages.keep(actor, project_id, address, content)
            except (DataLayerError, TimeoutError, OSError) as error:
                has_failed = isinstance(error, FetchError) and not isinstance(error, FetchAddressError)
                if is_transient(error) or (has_failed and not is_last):
                    return False
                log.warning("asset_not_kept", is_local=is_local, code=getattr(error, "code", type(error).__name__))
                return True
        self._kept[project_id, address] = None
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return True

    async def _read_local(self, path: str) -> bytes | None:
        """What their application answers for a local asset; None where it has none that can be kept."""
        pieces: list[bytes] = []
        status = 0
        size = 0
        is_asked = False

        async def receive() -> Message:
            nonlocal is_asked
            if is_asked:
                return {"type": "http.disconnect"}
            is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and size <= _LARGEST:
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "state": {},
        }
        try:
            await self._application(scope, receive, send)
        except Exception as error:  # noqa: BLE001  (whatever their application raises)
            log.warning("asset_not_read", reason=type(error).__name__)
            return None
        return b"".join(pieces) if status == 200 and 0 < size <= _LARGEST else None
