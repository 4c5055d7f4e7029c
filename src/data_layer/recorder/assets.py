"""Images that generated pages show, kept by ``data.pages`` while they are alive.

Local assets are read from the application itself, whatever it keeps them in; those at providers from their addresses.
What cannot be kept at the moment is tried again for as long as it may be alive.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self
from uuid import UUID, uuid4

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message

from data_layer.concurrency import Backoff
from data_layer.durability import sync_folder
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
        while waiting and (not attempt or time.time() < until):
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


_PARTIAL = ".partial"
_LEFTOVER_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class WaitingList:
    """Images that are to be kept for the pages of a project.

    Attributes:
        owner_id: whose project it is.
        project_id: which one.
        addresses: where the images are.
        until: the time, in seconds since 1970, up to which they may be alive.
        file: locked; None for a list that could not be written.
        path: of that file.
    """

    owner_id: UUID
    project_id: UUID
    addresses: tuple[str, ...]
    until: float
    file: BinaryIO | None = None
    path: Path | None = None

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> Self:
        """Read a list that was written.

        Raises:
            KeyError, TypeError, ValueError: it is not one.
        """
        found = orjson.loads(file.read())
        ids = UUID(found["owner_id"]), UUID(found["project_id"])
        return cls(*ids, tuple(map(str, found["addresses"])), float(found["until"]), file, path)

    def release(self) -> None:
        """Leave it to the next process."""
        if self.file is not None:
            self.file.close()

    def remove(self) -> None:
        """Nothing of it is left to do."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.release()


class WaitingAssets:
    """The folder of the lists. Its methods are for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, owner_id: UUID, project_id: UUID, addresses: Iterable[str], until: float) -> WaitingList:
        """Write a list, and lock it; where that fails it is kept in memory only."""
        wanted = tuple(sorted(addresses))
        try:
            return self._write(owner_id, project_id, wanted, until)
        except OSError as error:
            log.warning("assets_not_noted", reason=type(error).__name__)
            return WaitingList(owner_id, project_id, wanted, until)

    def abandoned(self) -> list[WaitingList]:
        """The lists that no process works on, locked."""
        found = []
        for path in self._folder.glob("*.json"):
            with suppress(OSError):  # It was worked off in this moment, or somebody works on it.
                found += self._claim(path)
        return found

    def remove_leftovers(self) -> None:
        """Remove what processes left that died while they wrote."""
        for path in self._folder.glob(f"*{_PARTIAL}"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                    path.unlink()

    def _write(self, owner_id: UUID, project_id: UUID, addresses: tuple[str, ...], until: float) -> WaitingList:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{uuid4().hex}.json"
        partial = path.with_suffix(_PARTIAL)
        content = {"owner_id": owner_id, "project_id": project_id, "addresses": addresses, "until": until}
        file = os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
            partial.rename(path)
            sync_folder(self._folder)
        except BaseException:
            file.close()
            raise
        return WaitingList(owner_id, project_id, addresses, until, file, path)

    def _claim(self, path: Path) -> list[WaitingList]:
        file = path.open("rb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                return [WaitingList.read(file, path)]
        except OSError:
            file.close()
            raise
        except (KeyError, TypeError, ValueError) as error:  # Another version has written it, or another program.
            log.warning("asset_list_rejected", path=str(path), reason=type(error).__name__)
            path.rename(path.with_suffix(".rejected"))
        file.close()
        return []
