"""Example data: three people, a dozen projects with real pages and screenshots, and what happened around them.

It is made by the services that an application uses, so it is what an application would have stored: everything happened
when it was loaded, and is recorded in the audit trail.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from time import time_ns
from typing import Any
from uuid import UUID

from data_layer.concurrency import cancel_and_wait
from data_layer.context import request_context
from data_layer.entities import AuditLog, GeneratedCode
from data_layer.entities.enums import (
    AuditAction,
    AuthProvider,
    CodeStack,
    GenerationProvider,
    GenerationStatus,
    ImageProvider,
    ImageQuality,
    ImageStyle,
    ProjectStatus,
    ProjectType,
    RequestType,
    SessionType,
    UsageOutcome,
    UserRole,
)
from data_layer.errors import ConfigurationError
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.base import Value
from data_layer.schemas.generations import (
    FinishedVariant,
    GenerationRequest,
    VariantEvent,
    VariantModel,
    VariantResult,
    WholeCode,
)
from data_layer.schemas.images import NewImage
from data_layer.schemas.projects import ProjectChanges, ProjectDraft
from data_layer.schemas.sessions import GeoLocation
from data_layer.schemas.usage import NewUsage
from data_layer.schemas.users import ExternalIdentity
from data_layer.services.accounts import AccountService
from data_layer.services.arguments import checks_arguments
from data_layer.services.designs import DesignSystemService
from data_layer.services.generations import GenerationService
from data_layer.services.generations.growth import Growth
from data_layer.services.images import ImageService
from data_layer.services.projects import ProjectService
from data_layer.services.seed_catalog import catalog, code_of, cost_of, file_of, generations_of, story_of
from data_layer.services.sessions import SessionService
from data_layer.services.shares import ShareService
from data_layer.services.usage import UsageService

EXAMPLE = "example"
"""Key in the metadata of a project or image, and in the context of the audit entry, that belong to the example data."""

_SOURCE = "example"
_LOADED = "loaded"
_PASSWORD_BYTES = 12
_AT_ONCE = 6


class SeedReport(Value):
    """How much was added; all numbers are zero when everything was there."""

    users: int = 0
    projects: int = 0
    codes: int = 0
    images: int = 0
    designs: int = 0
    shares: int = 0
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class SeedServices:
    """The services that make the example data."""

    accounts: AccountService
    sessions: SessionService
    projects: ProjectService
    generations: GenerationService
    images: ImageService
    designs: DesignSystemService
    shares: ShareService
    usage: UsageService


@dataclass(frozen=True, slots=True)
class _Project:
    """A project of the story, and what it became."""

    entry: dict[str, Any]
    owner: Actor
    id: UUID


OnProgress = Callable[[str], None]
OnLogin = Callable[[str, str], None]


def _ignore(*_: str) -> None:
    """Ignore it."""


@checks_arguments
class SeedService:
    """Loads the example data. Loading again adds only what is missing."""

    def __init__(self, transactions: Transactions, services: SeedServices, *, is_production: bool) -> None:
        self._transactions = transactions
        self._services = services
        self._is_production = is_production

    async def load_once(self, on_progress: OnProgress = _ignore, on_login: OnLogin = _ignore) -> SeedReport:
        """Load it unless that was done before: what was removed since then does not come back."""
        async with self._transactions() as tx:
            loaded = await tx.audit.find_one(context={EXAMPLE: _LOADED})
        return SeedReport() if loaded else await self.load(on_progress, on_login)

    async def load(self, on_progress: OnProgress = _ignore, on_login: OnLogin = _ignore) -> SeedReport:
        """Add what is missing.

        Args:
            on_progress: gets the name of each project that was added.
            on_login: gets the address and the password of the person who can log in, once, when the account is made.

        Raises:
            ConfigurationError: in production.
        """
        if self._is_production:
            raise ConfigurationError("example data does not belong into production; set ENVIRONMENT to another one")
        async with self._transactions() as tx:
            is_unfinished = await tx.audit.find_one(context={EXAMPLE: _LOADED}) is None
        people: dict[str, Actor] = {}
        counts = dict.fromkeys(SeedReport.model_fields, 0)
        for entry in catalog()["users"]:
            people[entry["key"]] = await self._load_user(entry, counts, on_login)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def load_project(entry: dict[str, Any]) -> None:
            async with limit:
                owner = people[entry["owner"]]
                if await self._load_project(entry, owner, counts, is_unfinished=is_unfinished):
                    on_progress(entry["name"])
                    counts["projects"] += 1

        tasks = [asyncio.create_task(load_project(entry)) for entry in catalog()["projects"]]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(*tasks)
        async with self._transactions() as tx:
            if is_unfinished:
                description = "Loaded the example data"
                tx.add(AuditLog.system_event(AuditAction.SYSTEM_MAINTENANCE, description, context={EXAMPLE: _LOADED}))
        return SeedReport(**counts)

    async def _load_user(self, entry: dict[str, Any], counts: dict[str, int], on_login: OnLogin) -> Actor:
        async with self._transactions() as tx:
            user = await tx.users.find_one(email=entry["email"])
        return Actor.user(user.id, user.role) if user else await self._make_user(entry, counts, on_login)

    async def _make_user(self, entry: dict[str, Any], counts: dict[str, int], on_login: OnLogin) -> Actor:
        services = self._services
        password = secrets.token_urlsafe(_PASSWORD_BYTES) if entry.get("can_log_in") else None
        made = await services.accounts.create(
            SYSTEM,
            **_only(entry, "email", "first_name", "last_name", "display_name"),
            password=password,
            role=UserRole(entry["role"]),
            email_verified=True,
        )
        if password is not None:
            on_login(made.email, password)
        counts["users"] += 1
        actor = Actor.user(made.id, made.role)
        await services.accounts.update_preferences(actor, made.id, entry["preferences"])
        if provider := entry.get("identity"):
            identity = ExternalIdentity(provider=AuthProvider(provider), subject=f"{EXAMPLE}-{entry['key']}")
            await services.accounts.link(actor, made.id, identity)
        if limit := entry.get("monthly_budget"):
            await services.usage.set_budget(SYSTEM, made.id, Decimal(limit))
        for design in entry.get("designs", ()):
            await services.designs.create(actor, **design)
            counts["designs"] += 1
        for session in catalog()["sessions"]:
            if session["user"] == entry["key"]:
                await self._begin_session(session, made.id)
                counts["sessions"] += 1
        return actor

    async def _begin_session(self, entry: dict[str, Any], user_id: UUID) -> None:
        """Nobody gets the token, so nobody can use the session."""
        place = GeoLocation(**_only(entry, "country", "city", "timezone"))
        with request_context(ip_address=entry["ip_address"], user_agent=entry["user_agent"]):
            begun = await self._services.sessions.create(user_id, kind=SessionType(entry["type"]), place=place)
        if reason := entry.get("revoked_reason"):
            await self._services.sessions.revoke(SYSTEM, begun.session.id, reason=reason)

    async def _load_project(
        self, entry: dict[str, Any], owner: Actor, counts: dict[str, int], *, is_unfinished: bool
    ) -> bool:
        """Make a project, or what is missing of it because the process died."""
        async with self._transactions() as tx:
            known = await tx.projects.find_one(
                user_id=owner.user_id, metadata_={EXAMPLE: entry["key"]}, status=list(ProjectStatus)
            )
        if known is not None and known.status is ProjectStatus.DELETED:
            return False
        project = _Project(entry, owner, known.id if known is not None else await self._make_project(entry, owner))
        made = [await self._load_generation(project, *generation) for generation in generations_of(entry)]
        counts["codes"] += sum(made)
        images = [await self._load_image(project, image) for image in entry.get("images", ())]
        counts["images"] += sum(images)
        if known is None or any(made):
            for share in entry.get("shares", ()):
                await self._share(project, share)
                counts["shares"] += 1
        if known is None or any(made) or (is_unfinished and known.status is not ProjectStatus(entry["status"])):
            await self._move(project)
        return known is None

    async def _make_project(self, entry: dict[str, Any], owner: Actor) -> UUID:
        copied = _only(entry, "name", "description", "tags", "instructions", "is_public", "is_favorite", "settings")
        draft = ProjectDraft(**copied, type=ProjectType(entry["type"]), metadata={EXAMPLE: entry["key"]})
        screenshot = file_of(entry["screenshot"]).read_bytes()
        file_name = entry["screenshot_filename"]
        return (await self._services.projects.create(owner, draft, screenshot=screenshot, file_name=file_name)).id

    async def _load_generation(self, project: _Project, number: int, variants: Sequence[dict[str, Any]]) -> int:
        """Make a generation with its variants; one that a process left running goes on. How many were made."""
        key = f"{project.entry['key']}/{number}/{project.id}"
        async with self._transactions() as tx:
            known = await tx.generations.find_one(external_source=_SOURCE, external_key=key)
            codes = [] if known is None else await tx.codes.list(generation_id=known.id, order_by="variant_index")
            parent = await _parent(tx, project, variants[0]["parent"])
        if known is not None:
            running = [code.variant_index for code in codes if code.status.is_running]
            if running:
                state = await self._services.generations.take_over(project.owner, known.id)
                for index in running:
                    await self._write(project, known.id, state.writer_token, variants[index])
            return 0
        if parent is not None and parent.variant_index:
            await self._services.generations.select(project.owner, parent.generation_id, parent.variant_index)
        request = _request(project, key, variants[0], parent)
        if _is_streamed(project, variants):
            models = [_model(each) for each in variants]
            started = await self._services.generations.start(project.owner, project.id, request, models)
            for variant in variants:
                await self._write(project, started.id, started.writer_token, variant)
            ids: Sequence[UUID] = started.variant_ids
        else:
            ids = await self._record(project, request, variants[0])
        await self._judge(project, ids, variants)
        return len(variants)

    async def _record(self, project: _Project, request: GenerationRequest, variant: dict[str, Any]) -> Sequence[UUID]:
        """Store a generation that has ended, as an application does that streams nothing; the ids of its variants."""
        generations, owner = self._services.generations, project.owner
        finished = FinishedVariant(
            code=code_of(variant),
            model=_model(variant),
            status=GenerationStatus(variant["status"]),
            result=_result(variant),
            error_message=variant.get("error_message"),
            error_details=variant.get("error_details") or {},
            name=variant.get("name"),
        )
        return (await generations.record(owner, project.id, request, [finished])).variant_ids

    async def _write(self, project: _Project, generation_id: UUID, token: str, variant: dict[str, Any]) -> None:
        """Stream a variant, and end it as the story says."""
        generations, owner = self._services.generations, project.owner
        index, result = variant["variant_index"], _result(variant)
        sequence = 1
        for pieces in _said_of(project, variant):
            await generations.append(owner, token, index, sequence, *pieces)
            sequence += len(pieces)
        match variant["status"]:
            case "completed":
                done = await generations.complete(owner, token, index, result)
                if name := variant.get("name"):
                    await generations.rename(owner, done.id, name)
            case "cancelled":
                await generations.store(owner, token)
                await generations.cancel(owner, generation_id, index)
                await self._services.usage.record(owner, _usage(project, variant))
            case _:
                message, details = variant["error_message"], variant["error_details"]
                await generations.fail(owner, token, index, message, details=details, result=result)

    async def _judge(self, project: _Project, ids: Sequence[UUID], variants: Sequence[dict[str, Any]]) -> None:
        for code_id, variant in zip(ids, variants, strict=True):
            if stars := variant.get("rating"):
                await self._services.generations.rate(project.owner, code_id, stars=stars)
            if variant.get("is_favorite"):
                await self._services.generations.mark_favorite(project.owner, code_id)

    async def _load_image(self, project: _Project, entry: dict[str, Any]) -> int:
        mark = {EXAMPLE: entry["file"]}
        async with self._transactions() as tx:
            if await tx.images.find_one(project_id=project.id, metadata_=mark) is not None:
                return 0
        copied = _only(entry, "name", "prompt", "revised_prompt", "model", "size", "seed", "generation_time_seconds")
        chosen = {name: kind(entry[name]) for name, kind in _IMAGE_CHOICES.items() if entry.get(name)}
        image = NewImage(**copied, **chosen, metadata=mark)
        file = file_of(entry["file"])
        await self._services.images.record(project.owner, project.id, image, file.read_bytes(), file_name=file.name)
        return 1

    async def _share(self, project: _Project, entry: dict[str, Any]) -> None:
        expires_in = timedelta(days=entry["days"]) if "days" in entry else None
        made = await self._services.shares.create(
            project.owner, project.id, version=entry.get("version"), expires_in=expires_in
        )
        if entry.get("is_revoked"):
            await self._services.shares.revoke(project.owner, made.share.id)

    async def _move(self, project: _Project) -> None:
        """Give a new project its status."""
        status = ProjectStatus(project.entry["status"])
        if status is ProjectStatus.ARCHIVED:
            await self._services.projects.archive(project.owner, project.id)
        elif status is not ProjectStatus.DRAFT:
            current = await self._services.projects.open(project.owner, project.id)
            changes = ProjectChanges(status=status)
            await self._services.projects.update(project.owner, project.id, changes, expected=current.revision)


_IMAGE_CHOICES = {"provider": ImageProvider, "quality": ImageQuality, "style": ImageStyle}


async def _parent(tx: UnitOfWork, project: _Project, place: int | None) -> GeneratedCode | None:
    if place is None:
        return None
    parent = project.entry["codes"][place]
    return await tx.codes.find_one(
        project_id=project.id, version=parent["generation"], variant_index=parent["variant_index"]
    )


def _is_streamed(project: _Project, variants: Sequence[dict[str, Any]]) -> bool:
    """Whether a generation can be replayed: the newest of each project, and those that only a stream can make."""
    is_newest = variants[0]["generation"] == project.entry["codes"][-1]["generation"]
    return is_newest or len(variants) > 1 or variants[0]["status"] == "cancelled"


def _request(project: _Project, key: str, variant: dict[str, Any], parent: GeneratedCode | None) -> GenerationRequest:
    return GenerationRequest(
        generation_type=RequestType(variant["generation_type"]),
        code_stack=CodeStack(project.entry["code_stack"]),
        parent_id=parent.id if parent else None,
        prompt=variant["original_prompt"],
        full_prompt=variant.get("revised_prompt"),
        inputs=_only(variant, "generation_params", "temperature", "max_tokens", "additional_instructions"),
        external_source=_SOURCE,
        external_key=key,
    )


def _said_of(project: _Project, variant: dict[str, Any]) -> Iterator[tuple[WholeCode, VariantEvent]]:
    """What a model sent while it made a variant: each event after the code so far, from as long ago as that took."""
    duration = round(variant["generation_time_seconds"] * 1000)
    begun_at = time_ns() // 1_000_000 - duration
    growth, code = Growth(begun_at), ""
    parent = variant["parent"]
    base = "" if parent is None else code_of(project.entry["codes"][parent])
    for share, said in story_of(variant, base):
        if isinstance(said, VariantEvent):
            yield WholeCode(code, growth.packed(code.encode(), is_plain=True)), said
        else:
            growth.note_whole(code.encode(), said.encode(), at=begun_at + round(duration * share))
            code = said


def _usage(project: _Project, variant: dict[str, Any]) -> NewUsage:
    """What a variant has cost that was cancelled: the provider says so later."""
    return NewUsage(
        key=f"{EXAMPLE}/{project.id}/{variant['generation']}/{variant['variant_index']}",
        provider=variant["provider"],
        model=variant["model"],
        outcome=UsageOutcome.CANCELLED,
        project_id=project.id,
        code_stack=CodeStack(project.entry["code_stack"]),
        input_tokens=variant["prompt_tokens"],
        output_tokens=variant["completion_tokens"],
        cost=cost_of(variant),
    )


def _model(variant: dict[str, Any]) -> VariantModel:
    return VariantModel(provider=GenerationProvider(variant["provider"]), name=variant["model"])


def _result(variant: dict[str, Any]) -> VariantResult:
    counted = _only(variant, "prompt_tokens", "completion_tokens", "generation_time_seconds")
    return VariantResult(**counted, cost=cost_of(variant))


def _only(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: entry[name] for name in names if entry.get(name) is not None}
