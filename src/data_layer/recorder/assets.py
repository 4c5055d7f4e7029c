"""Images that generated pages show, kept while they are alive.

| it is named | it is kept as | it is found again by |
| --- | --- | --- |
| ``…/local-assets/NAME``, anywhere | an object ``local-assets/NAME`` of the storage | its name |
| by a provider, in what a tool reports | a public file of the project | the file's name, a hash of the address |

Codes are stored as they came. Addresses are only rewritten when a project is handed out to be opened again, and carry
the id of their variant as a fragment: an edit of a code that was handed out brings it back, so its parent is known.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from starlette.responses import Response

from data_layer.errors import DataLayerError, FileNotFoundInStorageError, NotFoundError
from data_layer.observability.log import get_log
from data_layer.recorder.protocol import ASSETS_PATH
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import TreeGeneration
from data_layer.services.files.backends import PUBLIC_PATH

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import Actor
    from data_layer.schemas.codes import GeneratedCodeFull

log = get_log(__name__)

MOST_OF_A_RUN = 64
"""Assets that are kept of one request."""
_LARGEST = 20 * 2**20
_SECONDS = 45.0
_AT_ONCE = 4
_PREFIX = "asset-"
_ADDRESS = re.compile(r"""https?://[^\s"'<>()\\`{}|^]{1,4000}""")
_LOCAL = re.compile(r"""(?:https?://[^\s"'<>()\\`/]{1,255})?/local-assets/([A-Za-z0-9][A-Za-z0-9._-]{0,199})""")
_HANDED_OUT = re.compile(
    rf"""{re.escape(PUBLIC_PATH)}[A-Za-z0-9_-]{{22}}\.[a-z0-9]{{1,8}}#([0-9a-f-]{{36}})|"""
    r"""/local-assets/[A-Za-z0-9._-]{1,200}#([0-9a-f-]{36})"""
)
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}


def local_names(text: str) -> set[str]:
    """The names of the local assets that a text names."""
    return set(_LOCAL.findall(text)) if ASSETS_PATH in text else set()


def addresses_in(value: Any) -> set[str]:
    """The addresses in what a tool reports."""
    match value:
        case str():
            return set(_ADDRESS.findall(value))
        case Mapping():
            return addresses_in(list(value.values()))
        case list():
            return set().union(*(addresses_in(each) for each in value))
    return set()


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
        self._kept: set[str] = set()

    async def keep_local(self, names: Iterable[str]) -> None:
        """Put local assets into the storage; what fails is logged."""
        for name in names:
            if name in self._kept or _type_of(name) is None:
                continue
            async with self._slots:
                try:
                    async with asyncio.timeout(_SECONDS):
                        content = await self._read_local(name)
                        if content is not None:
                            await self._data.storage.upload(content, _key(name), str(_type_of(name)))
                            self._kept.add(name)
                except (DataLayerError, TimeoutError) as error:
                    log.warning("asset_not_kept", code=getattr(error, "code", type(error).__name__))

    async def keep_remote(self, actor: Actor, project_id: UUID, addresses: Iterable[str]) -> None:
        """Keep what is at the addresses of providers as public files of the project; what fails is logged."""
        for address in addresses:
            if ASSETS_PATH in address:
                continue
            async with self._slots:
                try:
                    await self._data.files.save_from_url(
                        address,
                        owner_id=actor.user_id,
                        file_name=f"{_PREFIX}{_hash(address)}",
                        attached_to=Attachment(project_id=project_id),
                    )
                except DataLayerError as error:
                    log.warning("asset_not_kept", code=error.code)

    async def answer(self, path: str) -> Response | None:
        """A local asset that their application has no more."""
        name = path.removeprefix(ASSETS_PATH)
        kind = _type_of(name)
        if kind is None or _LOCAL.fullmatch(f"{ASSETS_PATH}{name}") is None:
            return None
        try:
            content = await self._data.storage.download(_key(name))
        except FileNotFoundInStorageError:
            return None
        headers = {
            "cache-control": "public, max-age=86400",
            "x-content-type-options": "nosniff",
            "access-control-allow-origin": "*",
            "cross-origin-resource-policy": "cross-origin",
        }
        return Response(content, media_type=kind, headers=headers)

    async def _read_local(self, name: str) -> bytes | None:
        """What their application answers for a local asset; None where it is not an image that can be kept."""
        path = f"{ASSETS_PATH}{name}"
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

    async def rewritten(
        self, actor: Actor, project_id: UUID, generations: Sequence[TreeGeneration], base: str
    ) -> list[TreeGeneration]:
        """Generations whose codes name living images.

        Args:
            actor: the owner.
            project_id: of the generations.
            generations: with their codes.
            base: where the person reaches this service, such as ``http://127.0.0.1:3000``.
        """
        public = await self._public_addresses(actor, project_id)
        shown = []
        for generation in generations:
            variants = tuple(
                each.model_copy(update={"code": _rewrite(each.code, each.id, public, base)}) if each.code else each
                for each in generation.variants
            )
            shown.append(generation.model_copy(update={"variants": variants}))
        return shown

    async def variant_handed_out(self, actor: Actor, code: str) -> GeneratedCodeFull | None:
        """The variant of which a code is the form that was handed out."""
        found = {first or second for first, second in _HANDED_OUT.findall(code)}
        for name in found:
            try:
                variant = await self._data.generations.open_variant(actor, UUID(name))
            except (NotFoundError, ValueError):
                continue
            public = await self._public_addresses(actor, variant.project_id)
            if _normalised(_rewrite(variant.code, variant.id, public, "")) == _normalised(code):
                return variant
        return None

    async def _public_addresses(self, actor: Actor, project_id: UUID) -> dict[str, str]:
        """The permanent addresses of the assets of a project, by the hashes of those that they had."""
        found: dict[str, str] = {}
        attached_to = Attachment(project_id=project_id)
        async with aclosing(self._data.files.list_all(owner_id=actor.user_id, attached_to=attached_to)) as files:
            async for file in files:
                if file.file_name is not None and file.file_name.startswith(_PREFIX):
                    published = await self._data.files.publish(file.id, owner_id=actor.user_id)
                    found[file.file_name.removeprefix(_PREFIX)[:64]] = f"{PUBLIC_PATH}{published.name}"
        return found


def _rewrite(code: str, code_id: UUID, public: Mapping[str, str], base: str) -> str:
    """A code whose addresses live, marked with the id of its variant."""

    def replace(match: re.Match[str]) -> str:
        address = match[0]
        kept = public.get(_hash(address))
        if kept is not None:
            return f"{base}{kept}#{code_id}"
        local = _LOCAL.fullmatch(address)
        if local is not None and _origin(address) != base:
            return f"{base}{ASSETS_PATH}{local[1]}#{code_id}"
        return address

    return _ADDRESS.sub(replace, code) if public or ASSETS_PATH in code else code


_ORIGIN = re.compile(r"""https?://[^\s"'<>()\\`/]{1,255}(?=/(?:a|local-assets)/)""")


def _normalised(code: str) -> str:
    """A code without the origins of our own addresses: a person may come back by another name."""
    return re.sub(rf"({re.escape(ASSETS_PATH)}[A-Za-z0-9._-]+)#[0-9a-f-]{{36}}", r"\1", _ORIGIN.sub("", code)).strip()


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _hash(address: str) -> str:
    return hashlib.sha256(address.encode(errors="replace")).hexdigest()


def _key(name: str) -> str:
    return f"local-assets/{name}"


def _type_of(name: str) -> str | None:
    return _TYPES.get(unquote(name).rpartition(".")[2].lower())
