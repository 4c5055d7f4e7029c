"""Whole projects as one file: a ZIP with ``project.json``, the codes, and the files that belong to it.

::

    project.json                 what the project is, its generations and their variants; names the files below
    codes/0003-1.html            the code of variant 1 of version 3, byte for byte
    pages/0003-1.html            the same for a browser, without the service: with the images of this archive
    files/0001.png               what is attached to the project, and what its pages show
    images/0001.webp             its images
"""

from __future__ import annotations

import asyncio
import io
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import UUID

import orjson

from data_layer.concurrency import uninterrupted
from data_layer.errors import InvalidFileError, NotFoundError, StorageError
from data_layer.repositories.files import PageImage
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment, FileView
from data_layer.schemas.generations import OpenedTree, TreeCode
from data_layer.schemas.projects import ProjectFull
from data_layer.services.files import FileService
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.files.owners import ANY_OWNER
from data_layer.services.generations import GenerationService
from data_layer.services.images import ImageService
from data_layer.services.page_images import PageImages, address_hash, names_of_images
from data_layer.services.projects import ProjectService

FORMAT, VERSION = "data-layer project", 1
DESCRIPTION = "project.json"
LARGEST_PART = 64 * 2**20
"""Bytes of one part, decompressed."""
MOST_PARTS = 100_000

_PAGE = 200
_OF_GENERATION = {
    *("id", "number", "generation_type", "input_mode", "prompt", "full_prompt", "design_system", "inputs"),
    *("external_source", "external_key", "selected_variant", "started_at", "ended_at"),
}
_OF_VARIANT = {
    *("id", "variant_index", "parent_id", "name", "code_stack", "provider", "model", "status", "error_message"),
    *("is_favorite", "rating", "feedback", "generation_time_seconds"),
}
"""Without tokens: they are in the ledger, together with what they cost."""
_OF_PROJECT = {
    *("id", "name", "description", "type", "status", "tags", "settings", "instructions", "is_public", "is_favorite"),
    *("metadata", "created_at", "updated_at"),
}
_OF_IMAGE = {"prompt", "revised_prompt", "name", "provider", "kind", "model", "size", "quality", "style", "seed"}
_DAMAGED = (
    *(KeyError, TypeError, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""What ``zipfile`` raises for an archive that somebody has damaged."""


@dataclass(frozen=True, slots=True)
class ExportedProject:
    """What was written: how many there are of each."""

    name: str
    generations: int
    variants: int
    files: int
    images: int
    missing: int


class ProjectArchives:
    """Writes projects to archives.

    Args:
        projects: reads them.
        generations: their versions.
        files: what is attached to them.
        images: their images.
    """

    def __init__(
        self, projects: ProjectService, generations: GenerationService, files: FileService, images: ImageService
    ) -> None:
        self._projects = projects
        self._generations = generations
        self._files = files
        self._images = images

    async def write(self, actor: Actor, project_id: UUID, target: BinaryIO) -> ExportedProject:
        """Write a project; a file that breaks off has no end, so no program takes it for a whole one.

        What the storage has lost, or was deleted meanwhile, is left out, and counted as missing.

        Args:
            actor: its owner.
            project_id: which one.
            target: where to.

        Raises:
            NotFoundError: the actor has no such project.
        """
        opened = await self._open(actor, project_id)
        written: Counter[str] = Counter()
        with new_archive(target) as archive:
            async with aclosing(self._fill(archive, actor, opened)) as kinds:
                async for kind in kinds:
                    written[kind] += 1
        counts = {name: written[name] for name in ("generations", "variants", "files", "images", "missing")}
        return ExportedProject(opened.project.name, **counts)

    async def pieces(self, actor: Actor, project_id: UUID) -> AsyncGenerator[bytes]:
        """Yield what ``write`` writes, piece by piece while it is read.

        Raises:
            NotFoundError: the actor has no such project.
        """
        opened = await self._open(actor, project_id)
        sink = ArchiveSink()
        with new_archive(cast("BinaryIO", sink)) as archive:
            async with aclosing(self._fill(archive, actor, opened)) as parts:
                async for _ in parts:
                    if piece := sink.take():
                        yield piece
        yield sink.take()

    async def _open(self, actor: Actor, project_id: UUID) -> OpenedTree:
        return await self._generations.tree(actor, project_id, code=TreeCode.NONE)

    async def _fill(self, archive: zipfile.ZipFile, actor: Actor, opened: OpenedTree) -> AsyncGenerator[str]:
        """Write part after part, and yield of each what it is, or that it is missing."""
        project = opened.project
        shown = _ShownImages(archive, self._files, project)
        async for file in self._files.list_all(owner_id=project.user_id, attached_to=Attachment(project_id=project.id)):
            yield await shown.add(file)
        generations: list[dict[str, Any]] = []
        async for generation in opened.generations:
            full = await self._generations.open(actor, generation.id)
            described = full.model_dump(mode="json", include=_OF_GENERATION)
            described["variants"] = []
            for variant in generation.variants:
                whole = await self._generations.open_variant(actor, variant.id)
                name = f"{generation.number:04}-{variant.variant_index}.{_extension(whole.code_stack)}"
                await _write(archive, f"codes/{name}", whole.code)
                for kind in await shown.add_named(whole.code):
                    yield kind
                await _write(archive, f"pages/{name}", shown.page(whole.code))
                described["variants"].append(
                    whole.model_dump(mode="json", include=_OF_VARIANT) | {"code": f"codes/{name}"}
                )
                yield "variants"
            generations.append(described)
            yield "generations"
        images: list[dict[str, Any]] = []
        async for image_id in self._images_of(actor, project):
            name = f"images/{len(images) + 1:04}"
            try:
                image = await self._images.open(actor, image_id)
                downloaded = await self._images.download(actor, image_id)
            except (NotFoundError, StorageError):
                yield "missing"
                continue
            await _write(archive, stored_part(name), downloaded)
            images.append(image.model_dump(mode="json", include=_OF_IMAGE) | {"path": name})
            yield "images"
        content = {
            "format": FORMAT,
            "version": VERSION,
            "project": project.model_dump(mode="json", include=_OF_PROJECT),
            "generations": generations[::-1],
            "files": shown.described,
            "images": images,
        }
        await _write(archive, DESCRIPTION, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    async def _images_of(self, actor: Actor, project: ProjectFull) -> AsyncGenerator[UUID]:
        after = None
        while True:
            page = await self._images.list(actor, project.id, after=after, limit=_PAGE)
            for image in page.images:
                yield image.id
            if page.next is None:
                return
            after = page.next


class _ShownImages:
    """The files of an archive, by the addresses at which pages of its project name them."""

    def __init__(self, archive: zipfile.ZipFile, files: FileService, project: ProjectFull) -> None:
        self.described: list[dict[str, Any]] = []
        self._archive = archive
        self._files = files
        self._project = project
        self._images: list[PageImage] = []
        self._paths: dict[str, str] = {}
        self._known: set[str] = set()

    async def add(self, file: FileView, address: str | None = None) -> str:
        """Write a file that is named by an address, if it is; what it is, or that it is missing."""
        name = f"files/{len(self.described) + 1:04}.{_extension_of(file)}"
        try:
            downloaded = await self._files.download(file.id, owner_id=ANY_OWNER)
        except (NotFoundError, StorageError):
            return "missing"
        await _write(self._archive, stored_part(name), downloaded)
        hashed, end = address or file.address_hash, file.public_name
        names = [*file.earlier_names, end] if hashed and end else []
        self.described.append(
            {
                "id": str(file.id),
                "path": name,
                "file_name": file.file_name if file.owner_id == self._project.user_id else None,
                "content_type": file.content_type,
                "is_screenshot": file.key == self._project.original_image,
                "address_hash": hashed,
                "names": names,
            }
        )
        if hashed and end:
            self._images.append(PageImage(hashed, end, file.earlier_names))
            self._paths[end] = f"../{name}"
            self._known.update(names)
        return "files"

    async def add_named(self, code: str) -> list[str]:
        """Write what a code names by permanent addresses that are not the project's; see ``add``."""
        names, _ = names_of_images(code)
        new = [name for name in names if name not in self._known]
        self._known.update(new)
        kinds: list[str] = []
        for name in new:
            with suppress(NotFoundError):
                kinds.append(await self.add(await self._files.published(name), address_hash(f"{PUBLIC_PATH}{name}")))
        return kinds

    def page(self, code: str) -> str:
        """A code with the paths of its images, from the folder of the pages."""
        return PageImages(self._images).written(code, lambda end: self._paths[end])


@contextmanager
def new_archive(target: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Write an archive; one that breaks off gets no end, so no program takes it for a whole one."""
    archive = zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED)
    try:
        yield archive
    except BaseException:
        archive.fp = None  # Closing it, which its finalizer does too, would write the end.
        raise
    archive.close()


def stored_part(name: str) -> zipfile.ZipInfo:
    """A part that is compressed already."""
    part = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
    part.compress_type = zipfile.ZIP_STORED
    return part


async def _write(archive: zipfile.ZipFile, part: str | zipfile.ZipInfo, content: str | bytes) -> None:
    """Compress a part off the event loop, and to its end: an archive cannot be closed while one is being written."""
    await uninterrupted(asyncio.to_thread(archive.writestr, part, content))


def read_archive(path: Path) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    """Open an archive, and return what it says; the caller closes it.

    Raises:
        InvalidFileError: it is none of ours.
    """
    not_ours = InvalidFileError(f"{path.name} is not a project that was exported here")
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED:
        raise not_ours from None
    with ExitStack() as stack:
        stack.enter_context(archive)
        if len(archive.infolist()) > MOST_PARTS:
            raise InvalidFileError(f"{path.name} has more than {MOST_PARTS} parts")
        try:
            content = orjson.loads(read_part(archive, DESCRIPTION))
        except ValueError:
            raise not_ours from None
        if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
            raise not_ours
        stack.pop_all()
    return archive, content


def read_part(archive: zipfile.ZipFile, name: Any) -> bytes:
    """Return a part of an archive; one that would be very large is not decompressed.

    Raises:
        InvalidFileError: it is missing, too large or damaged.
    """
    try:
        with archive.open(name) as part:
            content = part.read(LARGEST_PART + 1)
    except _DAMAGED:
        raise InvalidFileError(f"the archive has no part {name!r}, or it is damaged") from None
    if len(content) > LARGEST_PART:
        raise InvalidFileError(f"the part {name!r} has more than {LARGEST_PART} bytes")
    return content


def _extension(stack: str) -> str:
    return "svg" if stack == "svg" else "html"


def _extension_of(file: FileView) -> str:
    return file.key.rpartition(".")[2] or "bin"


def described_list(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects in what an archive says."""
    items = content.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


class ArchiveSink(io.RawIOBase):
    """Takes what an archive writes, until it is handed on; it cannot go back, and ``zipfile`` finds that out."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, content: Any, /) -> int:
        """Keep it."""
        piece = bytes(content)
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
