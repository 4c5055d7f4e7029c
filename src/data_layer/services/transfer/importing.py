"""Brings work from elsewhere to a person: what the application has left on a disk, and projects that were exported.

======================  =====================  ======================================================================
it looks like           it is                  it becomes
======================  =====================  ======================================================================
``*.zip``               an exported project    a project with its versions, files and images
``*.json``, a list      design systems         design systems
``prompt_report_*``     reports of prompts     projects, as far as they hold pages
``Mon_DD_YYYY_…/``      results of evals       a project for each input, a version for each run of it
``*.html``              a page                 a project with one version
images                  assets                 files with permanent addresses
======================  =====================  ======================================================================

Everything may be repeated: what is there already is not brought a second time.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import orjson

from data_layer.concurrency import uninterrupted
from data_layer.entities.enums import CodeStack, GenerationStatus, InputMode, RequestType
from data_layer.errors import (
    ConflictError,
    DataLayerError,
    DuplicateError,
    FileTooLargeError,
    InvalidFileError,
    InvalidValueError,
    NotFoundError,
)
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.base import Value
from data_layer.schemas.files import Attachment, FileView
from data_layer.schemas.generations import (
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    VariantModel,
    VariantResult,
)
from data_layer.schemas.images import NewImage
from data_layer.schemas.lineage import ReceivedGeneration, ReceivedVariant
from data_layer.schemas.projects import ProjectDraft
from data_layer.services.designs import DesignSystemService
from data_layer.services.files import FileService
from data_layer.services.files.backends import is_public_name, public_name
from data_layer.services.files.sources import decode_data_url
from data_layer.services.generations import GenerationService
from data_layer.services.generations.text import storable_json
from data_layer.services.images import ImageService
from data_layer.services.pages import IMAGE_TYPES
from data_layer.services.projects import ProjectService
from data_layer.services.transfer import reports
from data_layer.services.transfer.archives import described_list, read_archive, read_part
from data_layer.services.transfer.conversations import read_model

IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
MOST_GENERATIONS = 1000
MOST_CODE = 512 * 2**20
"""Characters of all codes of a project, which are in memory together."""
_UNTIL_PUBLISHED = timedelta(hours=1)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_NAMES = 1000
LARGEST_FILE = 64 * 2**20
_REFUSALS = (InvalidValueError, InvalidFileError, FileTooLargeError, ConflictError, NotFoundError)
"""What concerns one thing; after every other error the import ends."""
_EVAL_FOLDER = re.compile(r"[A-Z][a-z]{2}_\d{2}_\d{4}_(?P<model>.+)_(?P<stack>[a-z]+_[a-z]+|bootstrap|svg)")
_EVAL_PAGE = re.compile(r"(?P<name>.+)_(?P<number>\d{1,4})")


class ImportProblem(Value):
    """What was not brought, and why."""

    path: str
    reason: str


class ImportReport(Value):
    """What came of an import.

    Attributes:
        is_dry_run: nothing was stored; ``added`` says what would be looked at.
        added: how many of each kind are new.
        known: how many were there already.
        problems: what was not understood, or not brought.
        addresses: the permanent addresses of assets, by the paths of their files.
    """

    is_dry_run: bool
    added: dict[str, int]
    known: dict[str, int]
    problems: tuple[ImportProblem, ...]
    addresses: dict[str, str]


@dataclass(slots=True)
class _Progress:
    on_progress: Callable[[str], object]
    is_dry_run: bool
    added: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    problems: list[ImportProblem] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, path: Path | str, *, is_new: bool) -> None:
        (self.added if is_new else self.known)[kind] += 1
        self.on_progress(f"{'new' if is_new else 'known'}: {kind} {_shown(path)}")

    def refuse(self, path: Path | str, reason: object) -> None:
        problem = ImportProblem(path=_shown(path), reason=_shown(str(reason)))
        self.problems.append(problem)
        self.on_progress(f"not brought: {problem.path}: {problem.reason}")


@dataclass(frozen=True, slots=True)
class ImportTargets:
    """The services that keep what is brought."""

    transactions: Transactions
    projects: ProjectService
    generations: GenerationService
    files: FileService
    images: ImageService
    designs: DesignSystemService


class Importer:
    """Brings everything below some paths to one person.

    Args:
        targets: where it is kept.
        owner_id: whose it will be.
        is_dry_run: only look.
        on_progress: receives a line for each thing.
    """

    def __init__(
        self,
        targets: ImportTargets,
        owner_id: UUID,
        *,
        is_dry_run: bool = False,
        on_progress: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._targets = targets
        self._owner_id = owner_id
        self._progress = _Progress(on_progress, is_dry_run)

    async def run(self, paths: Sequence[Path]) -> ImportReport:
        """Bring what is there. What fails is noted, and the rest goes on.

        Raises:
            DatabaseError: the database went away; repeat the import.
        """
        progress = self._progress
        prompt_reports: list[Path] = []
        for path in paths:
            if not (path.is_file() or path.is_dir()):
                progress.refuse(path, "is neither a file nor a folder" if path.exists() else "does not exist")
                continue
            for file in await asyncio.to_thread(_files_in, path):
                if reports.NAME.fullmatch(file.name):
                    prompt_reports.append(file)
                else:
                    await self._attempt(file, self._bring, file)
        for files in reports.sessions_of(prompt_reports):
            session, problems = await asyncio.to_thread(reports.read_session, files)
            for path, reason in problems:
                progress.refuse(path, reason)
            if session is not None:
                await self._attempt(f"prompt reports of session {session.key}", self._bring_session, session)
        return ImportReport(
            is_dry_run=progress.is_dry_run,
            added=dict(progress.added),
            known=dict(progress.known),
            problems=tuple(progress.problems),
            addresses=progress.addresses,
        )

    async def _attempt(self, what: Path | str, bring: Callable[[Any], Any], thing: Any) -> None:
        try:
            await bring(thing)
        except (DataLayerError, OSError) as error:
            if isinstance(error, DataLayerError) and not isinstance(error, _REFUSALS):
                raise
            self._progress.refuse(what, error)

    async def _bring(self, file: Path) -> None:
        suffix = file.suffix.lower()
        if suffix == ".zip":
            await self._bring_project(file)
        elif suffix == ".json":
            await self._bring_designs(file)
        elif suffix in {".html", ".htm"}:
            await self._bring_page(file)
        elif suffix in IMAGES:
            await self._bring_asset(file)
        else:
            self._progress.refuse(file, "is nothing that is known here")

    async def _bring_asset(self, file: Path) -> None:
        files, progress = self._targets.files, self._progress
        if progress.is_dry_run:
            progress.note("asset", file, is_new=True)
            return
        saved = await files.save(
            file,
            owner_id=self._owner_id,
            file_name=_shown(file.name),
            expires_in=_UNTIL_PUBLISHED,
            allowed_types=IMAGES.values(),
        )
        published = await files.publish(saved.id, owner_id=self._owner_id)
        await files.delete(saved.id, owner_id=self._owner_id)
        progress.addresses[_shown(file)] = published.url
        progress.note("asset", file, is_new=saved.reference_count == 1)

    async def _bring_designs(self, file: Path) -> None:
        content = _read_json(file)
        items = content if isinstance(content, list) else None
        if items is None or not all(isinstance(item, Mapping) and "name" in item for item in items):
            raise InvalidFileError("is JSON, but neither a list of design systems nor a prompt report")
        known = {
            (design.name, design.content)
            for design in await self._targets.designs.list(SYSTEM, owner_id=self._owner_id)
        }
        for item in items:
            name, text = str(item["name"]).strip(), str(item.get("content", ""))
            place = f"{file} ({name})"
            if (name, text) in known or self._progress.is_dry_run:
                self._progress.note("design system", place, is_new=(name, text) not in known)
                continue
            try:
                await self._targets.designs.create(SYSTEM, name=name, content=text, owner_id=self._owner_id)
            except _REFUSALS as error:
                self._progress.refuse(place, error)
            else:
                known.add((name, text))
                self._progress.note("design system", place, is_new=True)

    async def _bring_page(self, file: Path) -> None:
        code = _read(file).decode("utf-8", "surrogateescape")
        folder = _EVAL_FOLDER.fullmatch(file.parent.name)
        page = _EVAL_PAGE.fullmatch(file.stem)
        if folder is not None and page is not None:
            await self._bring_eval(file, code, folder, page)
            return
        digest = hashlib.sha256(code.encode("utf-8", "surrogateescape")).hexdigest()
        received = ReceivedGeneration(
            source="import",
            key=self._key("page", digest),
            at=_time_of(file),
            generation_type=RequestType.IMPORT,
            input_mode=InputMode.TEXT,
            prompt=storable_json(file.stem[:80]),
            variants=(ReceivedVariant(index=0, code=code),),
        )
        await self._receive("page", file, received)

    async def _bring_eval(self, file: Path, code: str, folder: re.Match[str], page: re.Match[str]) -> None:
        """A result of an evaluation: one variant of a run over one input, whose image may lie beside."""
        stack = folder["stack"] if folder["stack"] in set(CodeStack) else CodeStack.HTML_TAILWIND
        picture = file.parent.parent.parent / "inputs" / f"{page['name']}.png"
        files = await self._save_for_project(picture, picture) if picture.is_file() else []
        received = ReceivedGeneration(
            source="import",
            key=self._key("eval", f"{file.parent.name}/{page['name']}"),
            at=_time_of(file),
            code_stack=CodeStack(stack),
            prompt=storable_json(f"{page['name']} ({file.parent.name})"[:80]),
            inputs={"files": [str(file_id) for file_id in files]},
            files=tuple(files),
            variants=(ReceivedVariant(index=int(page["number"]), code=code, model=read_model(folder["model"])),),
        )
        await self._receive("evaluation result", file, received)

    async def _bring_session(self, session: reports.Session) -> None:
        name = f"prompt reports of session {session.key}"
        if session.code is None:
            raise InvalidFileError("no page was written as a whole in it")
        if session.is_changed:
            self._progress.refuse(
                name, "the model changed its page in pieces afterwards; what is brought is the one before"
            )
        prompt, files, urls = session.prompt, [], []
        for url in prompt.media:
            if url[:5].lower() != "data:":
                urls.append(url[:2048])
            else:
                files += await self._save_for_project(url, f"an image of {name}")
        received = ReceivedGeneration(
            source="import",
            key=self._key("report", session.key),
            at=session.at,
            generation_type=RequestType.CREATE if prompt.base_code is None else RequestType.UPDATE,
            prompt=prompt.text,
            full_prompt=prompt.full_text,
            shown=prompt.shown,
            base_code=prompt.base_code,
            earlier=prompt.earlier,
            inputs=storable_json({"files": [str(file_id) for file_id in files], "urls": urls}),
            files=tuple(files),
            variants=(ReceivedVariant(index=0, code=session.code, model=session.model, result=session.result),),
        )
        await self._receive("prompt report", name, received)

    async def _receive(self, kind: str, path: Path | str, received: ReceivedGeneration) -> None:
        known = await self._is_known(received.key, received.variants[0].index)
        if not known and not self._progress.is_dry_run:
            await self._targets.generations.receive(SYSTEM, received, owner_id=self._owner_id)
        self._progress.note(kind, path, is_new=not known)

    async def _is_known(self, key: str, variant: int | None = None) -> bool:
        async with self._targets.transactions() as tx:
            generation = await tx.generations.find_one(external_source="import", external_key=key)
            if generation is None or variant is None:
                return generation is not None
            return await tx.codes.find_one(generation_id=generation.id, variant_index=variant) is not None

    async def _save_for_project(self, source: Path | str, what: Path | str) -> list[UUID]:
        """Save an image for a project that is about to be stored; without one it goes by itself.

        Nothing in a dry run, and for an image that may not be stored: the page is worth more.
        """
        if self._progress.is_dry_run:
            return []
        try:
            saved = await self._targets.files.save(
                source if isinstance(source, Path) else decode_data_url(source, "image")[0],
                owner_id=self._owner_id,
                file_name=_shown(source.name) if isinstance(source, Path) else None,
                expires_in=_UNTIL_PUBLISHED,
                allowed_types=IMAGES.values(),
            )
        except _REFUSALS as error:
            self._progress.refuse(what, error)
            return []
        return [saved.id]

    async def _bring_project(self, file: Path) -> None:
        archive, content = await asyncio.to_thread(read_archive, file)
        with archive:
            described = content.get("project")
            generations = described_list(content, "generations")
            if not isinstance(described, dict) or len(generations) > MOST_GENERATIONS:
                raise InvalidFileError(f"describes no project, or one with more than {MOST_GENERATIONS} versions")
            keys = [self._key("project", f"{described.get('id')}/{place}") for place in range(len(generations))]
            if keys and await self._is_known(keys[0]):
                self._progress.note("project", file, is_new=False)
                return
            finished = await asyncio.to_thread(_finished, archive, generations, keys)
            if not self._progress.is_dry_run:
                await self._store_project(archive, content, described, finished)
            self._progress.note("project", file, is_new=True)

    async def _store_project(
        self,
        archive: ZipFile,
        content: Mapping[str, Any],
        described: Mapping[str, Any],
        finished: Sequence[FinishedGeneration],
    ) -> None:
        files, targets = described_list(content, "files"), self._targets
        shown = next((each for each in files if each.get("is_screenshot") is True), None)
        project = await targets.projects.create(
            SYSTEM,
            _draft(described),
            screenshot=None if shown is None else await _read_part(archive, shown.get("path")),
            file_name=None if shown is None else shown.get("file_name"),
            owner_id=self._owner_id,
        )
        try:
            await self._fill_project(archive, content, project.id, finished)
        except BaseException:
            # Half a project would keep the next import from bringing the whole one.
            await uninterrupted(targets.projects.delete(SYSTEM, project.id))
            raise

    async def _fill_project(
        self, archive: ZipFile, content: Mapping[str, Any], project_id: UUID, finished: Sequence[FinishedGeneration]
    ) -> None:
        targets, renamed = self._targets, dict[str, str]()
        for each in described_list(content, "files"):
            kind = each.get("content_type")
            saved = await targets.files.save(
                await _read_part(archive, each.get("path")),
                owner_id=self._owner_id,
                file_name=each.get("file_name"),
                attached_to=Attachment(project_id=project_id),
                allowed_types=[kind] if isinstance(kind, str) else None,
            )
            if (old := each.get("id")) and isinstance(old, str):
                renamed[old] = str(saved.id)
            await self._name_image(saved, each)
        if finished:
            stored = await targets.generations.import_many(
                SYSTEM, project_id, [_with_files(each, renamed) for each in finished]
            )
            for generation, each in zip(stored, described_list(content, "generations"), strict=True):
                for code_id, variant in zip(generation.variant_ids, described_list(each, "variants"), strict=True):
                    await self._mark(code_id, variant)
        for image in described_list(content, "images"):
            values = {name: image[name] for name in NewImage.model_fields if image.get(name) is not None}
            source = await _read_part(archive, image.get("path"))
            await targets.images.record(SYSTEM, project_id, NewImage(**values), source)

    async def _name_image(self, saved: FileView, described: Mapping[str, Any]) -> None:
        """Have pages of the project show an image that they name by an address, or by one that it had where it was."""
        hashed, names = described.get("address_hash"), described.get("names")
        is_hash = isinstance(hashed, str) and _SHA256.fullmatch(hashed) is not None
        if not is_hash or saved.content_type not in IMAGE_TYPES:
            return
        given = names if isinstance(names, list) else []
        earlier = [name for name in given if isinstance(name, str) and is_public_name(name)]
        with suppress(DuplicateError):  # An archive that names one twice is not ours.
            async with self._targets.transactions() as tx:
                await tx.files.name_asset(
                    saved.id,
                    address_hash=str(hashed),
                    asset_name=public_name(saved.content_type),
                    earlier_names=earlier[:_MOST_NAMES],
                )

    async def _mark(self, code_id: UUID, described: Mapping[str, Any]) -> None:
        """Mark and rate a variant as its owner did."""
        generations, stars, given = self._targets.generations, described.get("rating"), described.get("feedback")
        feedback = given if isinstance(given, Mapping) else {}
        thumb, words = feedback.get("thumb"), feedback.get("words")
        if described.get("is_favorite") is True:
            await generations.mark_favorite(SYSTEM, code_id)
        if any(value is not None for value in (stars, thumb, words)):
            is_good = None if thumb is None else thumb == "up"
            await generations.rate(SYSTEM, code_id, stars=stars, is_good=is_good, words=words)

    def _key(self, kind: str, name: str) -> str:
        """A key that is the same at the next import of this person, and of nobody else."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{kind}:{self._owner_id}:{digest}"


def _files_in(path: Path) -> list[Path]:
    """The files below a path, in a fixed order; links that lead elsewhere are not followed."""
    if not path.is_dir():
        return [path]
    return [found for found in sorted(path.rglob("*")) if _is_brought(found, path)]


def _is_brought(file: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    is_input = file.parent.name == "inputs" and (file.parent.parent / "outputs").is_dir()
    return file.is_file() and not file.is_symlink() and not is_hidden and not is_input


async def _read_part(archive: ZipFile, name: Any) -> bytes:
    return await asyncio.to_thread(read_part, archive, name)


def _finished(
    archive: ZipFile, generations: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> list[FinishedGeneration]:
    """The versions of an exported project. Parents are named by their places in it."""
    places: dict[str, tuple[int, int]] = {}
    finished: list[FinishedGeneration] = []
    left = MOST_CODE
    for place, (each, key) in enumerate(zip(generations, keys, strict=True)):
        variants = described_list(each, "variants")
        parent = next((places[str(one["parent_id"])] for one in variants if str(one.get("parent_id")) in places), None)
        read: list[FinishedVariant] = []
        for index, variant in enumerate(variants):
            places[str(variant.get("id"))] = (place, index)
            read.append(_variant(archive, variant))
            left -= len(read[-1].code)
            if left < 0:
                raise InvalidFileError(f"its codes have more than {MOST_CODE} characters")
        finished.append(
            FinishedGeneration(
                request=_request(each, variants, key),
                variants=tuple(read),
                selected=_index_of(variants, each.get("selected_variant")),
                at=_at(each.get("ended_at") or each.get("started_at")),
                parent=parent,
            )
        )
    return finished


def _request(each: Mapping[str, Any], variants: Sequence[Mapping[str, Any]], key: str) -> GenerationRequest:
    names = ("generation_type", "input_mode", "prompt", "full_prompt", "design_system", "inputs")
    values = {name: each[name] for name in names if each.get(name) is not None}
    stack = {"code_stack": variants[0]["code_stack"]} if variants and variants[0].get("code_stack") else {}
    return GenerationRequest(**values, **stack, external_source="import", external_key=key)


def _variant(archive: ZipFile, variant: Mapping[str, Any]) -> FinishedVariant:
    try:
        status = GenerationStatus(variant.get("status", "completed"))
    except ValueError:
        raise InvalidFileError("a variant has a status that is not known here") from None
    if status.is_running:
        status = GenerationStatus.CANCELLED  # What ran at the export runs no more.
    return FinishedVariant(
        code=read_part(archive, variant.get("code")).decode("utf-8", "replace"),
        model=VariantModel(provider=variant.get("provider", "other"), name=variant.get("model", "unknown")),
        status=status,
        # Not what it has cost: that is in the ledger where it was made.
        result=VariantResult(generation_time_seconds=variant.get("generation_time_seconds")),
        error_message=variant.get("error_message"),
        name=variant.get("name"),
    )


def _index_of(variants: Sequence[Mapping[str, Any]], index: Any) -> int:
    """The place of a variant; their indexes may have gaps, and places have none."""
    return next((place for place, variant in enumerate(variants) if variant.get("variant_index") == index), 0)


def _with_files(finished: FinishedGeneration, renamed: Mapping[str, str]) -> FinishedGeneration:
    """The same, with the ids that its files have here."""
    try:
        inputs = _renamed(finished.request.inputs, renamed)
    except RecursionError:
        raise InvalidFileError("the inputs of a version are nested too deeply") from None
    return finished.model_copy(update={"request": finished.request.model_copy(update={"inputs": inputs})})


def _renamed(value: Any, renamed: Mapping[str, str]) -> Any:
    """A copy of a value of JSON, with other texts in place of some."""
    if isinstance(value, dict):
        return {name: _renamed(each, renamed) for name, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, renamed) for each in value]
    return renamed.get(value, value) if isinstance(value, str) else value


def _at(text: Any) -> datetime | None:
    """When a version ended."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidFileError(f"{text[:50]!r} is not a time") from None


def _draft(described: Mapping[str, Any]) -> ProjectDraft:
    """What a project says of itself. It is private here, whatever it was there."""
    names = ("name", "description", "type", "instructions", "settings", "tags", "is_favorite", "metadata")
    values = {name: described[name] for name in names if described.get(name) is not None}
    return ProjectDraft(**{"name": "Imported"} | values)


def _read(file: Path) -> bytes:
    if file.stat().st_size > LARGEST_FILE:
        raise InvalidFileError(f"has more than {LARGEST_FILE} bytes")
    return file.read_bytes()


def _read_json(file: Path) -> Any:
    try:
        return orjson.loads(_read(file))
    except ValueError:
        raise InvalidFileError("is not JSON") from None


def _time_of(file: Path) -> datetime:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except (ValueError, OverflowError):
        return datetime.now(UTC)


def _shown(path: Path | str) -> str:
    """A path, or a text that holds one, as it can be shown and stored: names on a disk may be any bytes."""
    return str(path).encode(errors="replace").decode()
