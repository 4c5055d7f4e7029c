"""``data.generations``: one request after the other, its variants streamed, and every version of a project's code."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from math import inf
from typing import Any, overload
from uuid import UUID

from data_layer.entities import AuditLog, GeneratedCode, Generation, Project
from data_layer.entities.enums import AuditAction, GenerationStatus
from data_layer.errors import (
    ChangedMeanwhileError,
    ConcurrentChangeError,
    DatabaseError,
    GenerationEndedError,
    InvalidValueError,
    NotFoundError,
    WriterReplacedError,
)
from data_layer.repositories.generations import VariantEnd, VariantState
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeFull, VariantChanges
from data_layer.schemas.generation_stream import FollowedEvent
from data_layer.schemas.generations import (
    GenerationRequest,
    GenerationView,
    Piece,
    StartedGeneration,
    VariantModel,
    VariantResult,
    WriterState,
)
from data_layer.schemas.lineage import ReceivedGeneration
from data_layer.schemas.projects import ProjectFull
from data_layer.services.arguments import checks_arguments
from data_layer.services.cached_projects import CachedProjects
from data_layer.services.generations.access import open_code, open_generation, open_project, view_of
from data_layer.services.generations.accounting import (
    charge,
    charge_late,
    check_result,
    is_known,
    merged,
    reserve_for,
)
from data_layer.services.generations.copies import copy_version
from data_layer.services.generations.followed import Position
from data_layer.services.generations.lineage import Lineage, conversation_of
from data_layer.services.generations.live import MAXIMUM_VARIANTS
from data_layer.services.generations.recovery import published_but_not_stored
from data_layer.services.generations.requests import generation_values, variant_values
from data_layer.services.generations.streams import (
    GenerationStream,
    GenerationStreams,
    VariantStream,
    ended_error,
    refusal_of,
)
from data_layer.services.generations.versions import code_at, require_complete
from data_layer.services.page_images import hold_images
from data_layer.services.permissions import Permission
from data_layer.services.project_keys import keys_of_project, project_key
from data_layer.services.ratings import rating_values
from data_layer.services.usage import check_amount, check_currency
from data_layer.services.view_counts import ViewCounts

_MOST_READINGS = 5
"""How often a process reads again what others have stored of a variant before it gives up."""
_TOKEN = re.compile(r"[0-9a-f]{32}\.[A-Za-z0-9_-]{43}")


@checks_arguments
class GenerationService(Lineage):
    """Generations of a person's projects. To everybody else they are like missing ones.

    Moderators and administrators may read code if they say why, which is recorded; they change nothing.
    """

    def __init__(
        self, transactions: Transactions, cached: CachedProjects, streams: GenerationStreams, views: ViewCounts
    ) -> None:
        super().__init__(transactions, cached, views)
        self._streams = streams

    async def start(
        self,
        actor: Actor,
        project_id: UUID,
        request: GenerationRequest,
        models: Sequence[VariantModel],
        *,
        reserve: Decimal | None = None,
        currency: str = "USD",
        conversation: ReceivedGeneration | None = None,
    ) -> StartedGeneration:
        """Begin a generation, with one variant for each model.

        Args:
            actor: the owner of the project.
            project_id: where.
            request: what is asked for.
            models: who makes the variants, 1 to 16; ``VariantModel()`` where that is not known yet.
            reserve: what each variant may cost; it is set aside in the owner's budget until the variant ends.
            currency: of that amount.
            conversation: the request as ``receive`` takes it, for an application without ids: it helps to find this
                generation again as a parent. Its variants are not looked at.

        Raises:
            BudgetExceededError: the budget of this month has less left than all variants may cost; nothing was begun.
            NotFoundError: the actor has no such project.
            MissingReferenceError: ``parent_id`` names no variant of this project.
            DuplicateError: the source has sent this ``external_key`` before.
            InvalidValueError: a value cannot be stored; ``field`` says which.
        """
        if not 1 <= len(models) <= MAXIMUM_VARIANTS:
            raise InvalidValueError(f"a generation has 1 to {MAXIMUM_VARIANTS} variants", field="models")
        if reserve is not None:
            check_currency(currency)
            reserve = check_amount(reserve, "reserve")
        generation = _generation(actor, project_id, request)
        if conversation is not None:
            generation.lineage = conversation_of(conversation)
        token, writer = _new_token(generation.id)
        codes = [_variant(generation, request, index, model) for index, model in enumerate(models)]
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.CHANGE_CODE)
            tx.add(generation)
            tx.invalidate(*keys_of_project(project_id, project.user_id))
            await tx.flush()  # The database gives the number that all variants share.
            for code in codes:
                code.writer = writer
                tx.add(code)
            tx.add(
                _entry(
                    *(AuditAction.CODE_GENERATE, project.user_id, generation.id, "Started a generation"),
                    new_values={"project_id": str(project_id), "number": generation.number, "variants": len(codes)},
                )
            )
            await tx.flush()
            # Everybody's leases are measured by the database's clock.
            await tx.generations.take_over(generation.id, project_id, writer, self._streams.lease_seconds)
            reservations = await reserve_for(tx, project.user_id, codes, reserve, currency)
        states = [
            VariantState(
                *(code.id, code.variant_index, GenerationStatus.PENDING, 0, "", project.user_id, project_id),
                started_at=datetime.now(UTC),
            )
            for code in codes
        ]
        self._streams.enter(GenerationStream(generation.id, writer, states))
        return StartedGeneration(
            id=generation.id,
            project_id=project_id,
            number=generation.number,
            variant_ids=tuple(code.id for code in codes),
            writer_token=token,
            reservations=tuple(reservations),
        )

    async def append(self, actor: Actor, writer_token: str, variant: int, sequence: int, *pieces: Piece) -> int:
        """Add what was streamed to a variant, and renew the lease. It does not wait for the database.

        Args:
            actor: the owner of the project.
            writer_token: as ``start`` or ``take_over`` returned it.
            variant: which one.
            sequence: the number of the first piece, from 1; the others follow. Numbers grow within a variant; what was
                received before changes nothing, and gaps are allowed, so that one count may serve all variants.
            pieces: text that continues the code, whole codes, and events.

        Returns:
            The last number that was received.

        Raises:
            GenerationEndedError: the variant has ended.
            WriterReplacedError: another writer has it now.
            ValueTooLongError: the code would have more than 5 MiB.
            LimitReachedError: too many events wait because the database cannot be reached.
            NotFoundError: the generation is gone, or is not the actor's.
        """
        stream = await self._stream(actor, writer_token)
        target = stream.variant(variant)
        target.append(sequence, pieces)
        return target.last_sequence

    async def write(self, actor: Actor, writer_token: str, variant: int, sequence: int, *pieces: Piece) -> int:
        """Add what was streamed to a variant and store it, for a writer whose calls reach several processes.

        What one process has received and not stored no other one knows, so ``append`` is for a writer that stays in its
        process.

        Args:
            actor: the owner of the project.
            writer_token: as ``start`` or ``take_over`` returned it.
            variant: which one.
            sequence: as for ``append``.
            pieces: as for ``append``.

        Returns:
            The last number that is stored.

        Raises:
            GenerationEndedError, WriterReplacedError, ValueTooLongError, NotFoundError: as ``append``.
            DatabaseError: it could not be stored; send it again.
        """
        for _ in range(_MOST_READINGS):
            stream = await self._stream(actor, writer_token)
            target = stream.variant(variant)
            before, had_unstored = target.last_sequence, target.has_unstored
            target.append(sequence, pieces)
            await self._streams.store(stream, target)
            if target.is_behind and not had_unstored:
                await self._read_again(stream, except_for=target)
                continue
            if target.refusal is not None and target.last_sequence != before:
                raise target.refusal
            return target.last_sequence
        raise _too_many_processes()

    async def renew(self, actor: Actor, writer_token: str) -> None:
        """Keep the lease of a writer that has nothing to send, such as while a model thinks."""
        for _ in range(_MOST_READINGS):
            stream = await self._stream(actor, writer_token)
            for variant in stream.variants:
                variant.is_dirty = variant.is_dirty or variant.refusal is None
                stream.variant(variant.index)
            with suppress(DatabaseError):  # It will be tried again.
                await self._store_dirty(stream)
            if not stream.is_behind:
                return
            await self._read_again(stream)
        raise _too_many_processes()

    async def report_usage(self, actor: Actor, writer_token: str, variant: int, usage: VariantResult) -> None:
        """Note what a variant has used so far; if it ends without a result of its writer, this is recorded.

        Each report replaces the figures of the ones before that it names.

        Raises:
            GenerationEndedError: the variant has ended; give the result to ``complete`` or ``fail`` nevertheless.
            WriterReplacedError: another writer has it now.
            InvalidValueError: a figure is out of range; ``field`` says which.
        """
        stream = await self._stream(actor, writer_token)
        stream.variant(variant).report(check_result(usage))

    async def store(self, actor: Actor, writer_token: str) -> None:
        """Store what was streamed now, instead of within two seconds.

        Raises:
            DatabaseError: it could not be stored.
        """
        await self._store_dirty(await self._stream(actor, writer_token))

    async def complete(
        self,
        actor: Actor,
        writer_token: str,
        variant: int,
        result: VariantResult | None = None,
        *,
        code: str | None = None,
    ) -> GeneratedCodeFull:
        """End a variant with success, and record what it has cost. Repeating it changes nothing.

        What it has cost is recorded also where it has ended in another way, such as by a cancellation.

        Args:
            actor: the owner of the project.
            writer_token: as ``start`` or ``take_over`` returned it.
            variant: which one.
            result: what is known of it.
            code: the whole code, in place of what was streamed.

        Raises:
            InvalidValueError: the variant has no code; fail it instead.
            GenerationEndedError: it has ended in another way.
            WriterReplacedError: another writer has it now.
        """
        end = VariantEnd(GenerationStatus.COMPLETED, check_result(result or VariantResult()))
        return await self._end_as_writer(actor, writer_token, variant, end, code)

    async def fail(
        self,
        actor: Actor,
        writer_token: str,
        variant: int,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        result: VariantResult | None = None,
    ) -> GeneratedCodeFull:
        """End a variant without success; what was streamed is kept, and what it has cost is recorded.

        Repeating it changes nothing.

        Raises:
            GenerationEndedError: it has ended in another way.
            WriterReplacedError: another writer has it now.
        """
        stream = await self._stream(actor, writer_token)
        checked = GeneratedCode(
            **_PLACEHOLDER, project_id=stream.project_id, error_message=message, error_details=dict(details or {})
        )
        end = VariantEnd(
            GenerationStatus.FAILED,
            check_result(result or VariantResult()),
            checked.error_message,
            checked.error_details,
        )
        return await self._end_as_writer(actor, writer_token, variant, end)

    async def cancel(self, actor: Actor, generation_id: UUID, variant: int | None = None) -> GenerationView:
        """End what still runs of a generation, or one variant of it; what was streamed is kept.

        It needs no token: people cancel in another process than the one that writes. What has ended stays as it ended.

        Returns:
            The generation as it is now.

        Raises:
            NotFoundError: the actor has no such generation.
            InvalidValueError: it has no such variant.
        """
        async with self._transactions() as tx:
            project, generation = await open_generation(
                tx, actor, generation_id, Permission.CHANGE_CODE, even_deleted=True
            )
            codes = await tx.codes.list(generation_id=generation_id, order_by="variant_index")
            codes = [code for code in codes if variant is None or code.variant_index == variant]
        if not codes:
            raise InvalidValueError("the generation has no such variant", field="variant")
        stream = self._streams.find(generation_id)
        for code in codes:
            if code.status.is_running:
                local = stream.variant(code.variant_index) if stream else None
                await self._cancel_variant(project, generation_id, code.id, stream, local)
        async with self._transactions() as tx:
            return await view_of(tx, await tx.generations.get(generation.id))

    async def take_over(self, actor: Actor, generation_id: UUID) -> WriterState:
        """Become the writer of what still runs; the former writer is refused from here on.

        Raises:
            NotFoundError: the actor has no such generation.
            GenerationEndedError: nothing of it runs any more.
        """
        former = self._streams.find(generation_id)
        if former is not None:
            for variant in former.variants:
                await self._streams.store(former, variant)
        async with self._transactions() as tx:
            await open_generation(tx, actor, generation_id, Permission.CHANGE_CODE)
        live = self._streams.live
        published = await published_but_not_stored(self._transactions, live, generation_id, only_abandoned=False)
        token, writer = _new_token(generation_id)
        async with self._transactions() as tx:
            project, _ = await open_generation(tx, actor, generation_id, Permission.CHANGE_CODE)
            await tx.generations.lock(generation_id, project.id)
            lease = self._streams.lease_seconds
            for each in published:
                await tx.generations.checkpoint(each.code_id, project.id, each.writer, each.unsaved, lease)
            await tx.generations.take_over(generation_id, project.id, writer, lease)
            tx.invalidate(project_key(project.id))
            states = await tx.generations.variants_of(generation_id, writer)
            if not any(state.status.is_running for state in states):
                raise GenerationEndedError("nothing of the generation runs any more", status="ended")
            tx.add(_entry(AuditAction.CODE_UPDATE, project.user_id, generation_id, "Took over a generation"))
        self._streams.leave(generation_id)
        self._streams.enter(GenerationStream(generation_id, writer, states))
        return WriterState(
            generation_id=generation_id,
            writer_token=token,
            last_sequences=tuple(state.last_sequence for state in states),
        )

    async def fork(
        self, actor: Actor, project_id: UUID, version: int, variant: int | None = None, *, name: str | None = None
    ) -> ProjectFull:
        """Begin a new project with one version of another; see ``data.projects.clone``, without history.

        Args:
            actor: the owner.
            project_id: the project that has the version.
            version: its number.
            variant: which of its variants, by default the selected one.
            name: of the new project; by default that of the original and "(copy)".

        Raises:
            NotFoundError: the project, version or variant does not exist.
            InvalidValueError: it is not complete, or the name cannot be one.
        """
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.COPY_PROJECT)
            code = require_complete(await code_at(tx, project_id, version, variant))
            return await copy_version(tx, actor, project, code, name=name)

    @overload
    def follow(
        self, actor: Actor, generation_id: UUID, *, after: str | None = None, reason: str | None = None
    ) -> AsyncGenerator[FollowedEvent]: ...

    @overload
    def follow(
        self,
        actor: Actor,
        generation_id: UUID,
        *,
        after: str | None = None,
        reason: str | None = None,
        idle_seconds: float,
    ) -> AsyncGenerator[FollowedEvent | None]: ...

    def follow(
        self,
        actor: Actor,
        generation_id: UUID,
        *,
        after: str | None = None,
        reason: str | None = None,
        idle_seconds: float | None = None,
    ) -> AsyncGenerator[FollowedEvent | None] | AsyncGenerator[FollowedEvent]:
        """Everything that happens in a generation, from any process, also while it runs: ``async for event in …``.

        First comes the code of each variant, then what changes it, and its events; nothing is taken back. A reader may
        be slow: it gets one patch for all that it missed. The end of the generation ends the iteration; a reader that
        stops earlier closes the generator (``contextlib.aclosing``).

        Args:
            actor: the owner of the project; the permission to read is checked again while this runs.
            generation_id: which generation.
            after: the ``position`` of the last event that was received, to go on from there.
            reason: why, where a moderator looks at somebody else's; it is recorded.
            idle_seconds: how long nothing may come; then comes None, so that a caller can show its own client that the
                connection still works.

        Raises:
            NotFoundError: the actor has no such generation, or has it no more.
            InvalidValueError: ``after`` is not a position, or ``idle_seconds`` is not a positive number.
        """
        if idle_seconds is not None and not idle_seconds > 0:
            raise InvalidValueError("idle_seconds must be positive", field="idle_seconds")
        is_first = True

        async def check() -> None:
            nonlocal is_first
            async with self._transactions() as tx:
                await open_generation(
                    *(tx, actor, generation_id, Permission.READ_CODE), reason=reason, is_recorded=is_first
                )
            is_first = False

        position = Position() if after is None else Position.parsed(after)
        return self._streams.followers.follow(
            generation_id, position, check, who=actor, idle_seconds=inf if idle_seconds is None else idle_seconds
        )

    async def select(self, actor: Actor, generation_id: UUID, variant: int) -> GenerationView:
        """Choose the variant that goes on.

        Raises:
            NotFoundError: the actor has no such generation.
            InvalidValueError: it has no such variant.
        """
        async with self._transactions() as tx:
            project, generation = await open_generation(tx, actor, generation_id, Permission.CHANGE_CODE)
            view = await view_of(tx, generation)
            if variant not in {code.variant_index for code in view.variants}:
                raise InvalidValueError("the generation has no such variant", field="variant")
            if variant != generation.selected_variant:
                before, generation.selected_variant = generation.selected_variant, variant
                tx.invalidate(project_key(project.id))
                tx.add(
                    _entry(
                        *(AuditAction.CODE_UPDATE, project.user_id, generation_id, "Selected a variant"),
                        old_values={"selected_variant": before},
                        new_values={"selected_variant": variant},
                    )
                )
        return view.model_copy(update={"selected_variant": variant})

    async def rename(self, actor: Actor, code_id: UUID, name: str | None) -> GeneratedCodeFull:
        """Give a variant a name, or none."""
        return await self._change(actor, code_id, AuditAction.CODE_UPDATE, {"name": _clean_name(name)})

    async def mark_favorite(self, actor: Actor, code_id: UUID, *, is_favorite: bool = True) -> GeneratedCodeFull:
        """Mark a variant as a favourite, or take the mark away."""
        return await self._change(actor, code_id, AuditAction.CODE_UPDATE, {"is_favorite": is_favorite})

    async def edit(
        self, actor: Actor, code_id: UUID, changes: VariantChanges, *, expected: str | None = None
    ) -> GeneratedCodeFull:
        """Change what people call a variant and how they mark it.

        Args:
            actor: the owner of the project.
            code_id: which variant.
            changes: what to change.
            expected: the ``revision`` that was read; by default any.

        Raises:
            NotFoundError: the actor has no such variant.
            ChangedMeanwhileError: it has another revision now.
            InvalidValueError: the name is empty or too long.
        """
        values = {name: getattr(changes, name) for name in changes.model_fields_set}
        if "name" in values:
            values["name"] = _clean_name(values["name"])
        return await self._change(actor, code_id, AuditAction.CODE_UPDATE, values, expected=expected)

    async def rate(
        self,
        actor: Actor,
        code_id: UUID,
        *,
        stars: int | None = None,
        is_good: bool | None = None,
        words: str | None = None,
    ) -> GeneratedCodeFull:
        """Say what a variant is worth: 1 to 5 stars or thumb up or down, and why.

        What is not given is taken back, as a rating is one whole.

        Raises:
            InvalidValueError: stars out of range, or words too long.
        """
        values = rating_values(stars=stars, is_good=is_good, words=words)
        return await self._change(actor, code_id, AuditAction.CODE_RATE, values)

    async def count_copy(self, actor: Actor, code_id: UUID) -> None:
        """Count that somebody copied the code."""
        await self._count(actor, code_id, AuditAction.CODE_COPY, "copy_count", "Copied the code")

    async def count_download(self, actor: Actor, code_id: UUID) -> None:
        """Count that somebody downloaded the code."""
        await self._count(actor, code_id, AuditAction.CODE_DOWNLOAD, "download_count", "Downloaded the code")

    async def _count(self, actor: Actor, code_id: UUID, action: AuditAction, counter: str, description: str) -> None:
        async with self._transactions() as tx:
            project, _ = await open_code(tx, actor, code_id, Permission.READ_CODE)
            await tx.codes.increment(code_id, counter)
            tx.add(AuditLog.data_action(action, project.user_id, "generated_code", code_id, description))

    async def _change(
        self,
        actor: Actor,
        code_id: UUID,
        action: AuditAction,
        values: dict[str, Any],
        *,
        expected: str | None = None,
    ) -> GeneratedCodeFull:
        async with self._transactions() as tx:
            project, code = await open_code(tx, actor, code_id, Permission.CHANGE_CODE, lock=True)
            if expected is not None:
                _require_revision(code, expected, values)
            before = {name: getattr(code, name) for name in values}
            changed = {name: value for name, value in values.items() if before[name] != value}
            for name, value in changed.items():
                setattr(code, name, value)
            if changed:
                tx.invalidate(project_key(project.id))
                # What people wrote stays out of the audit trail, which outlives their account.
                shown = {name for name in changed if name != "feedback"}
                tx.add(
                    AuditLog.data_action(
                        *(action, project.user_id, "generated_code", code_id, "Changed a variant"),
                        old_values={name: before[name] for name in shown},
                        new_values={name: changed[name] for name in shown},
                    )
                )
            await tx.flush()
            return GeneratedCodeFull.model_validate(code)

    async def _stream(self, actor: Actor, writer_token: str) -> GenerationStream:
        """The stream of a token, from memory, or from the database where another process has begun it."""
        generation_id, writer = generation_of(writer_token), _hash(writer_token)
        stream = self._streams.find(generation_id)
        if stream is not None and stream.is_behind and not any(variant.has_unstored for variant in stream.variants):
            self._streams.leave(generation_id)
            stream = None
        if stream is None or not stream.is_written_by(writer):
            stream = await self._resume(actor, generation_id, writer)
        if not actor.is_system and (actor.user_id is None or actor.user_id != stream.owner_id):
            raise NotFoundError(f"no generation has the id {generation_id}")
        return stream

    async def _resume(self, actor: Actor, generation_id: UUID, writer: str) -> GenerationStream:
        async with self._transactions() as tx:
            await open_generation(tx, actor, generation_id, Permission.CHANGE_CODE, even_deleted=True)
            states = await tx.generations.variants_of(generation_id, writer)
        if not states:
            raise WriterReplacedError("another writer has this generation now; begin with take_over")
        known = self._streams.find(generation_id)
        if known is not None and known.is_written_by(writer) and not known.is_behind:
            return known  # Another call has loaded it meanwhile.
        return self._streams.enter(GenerationStream(generation_id, writer, states))

    async def _store_dirty(self, stream: GenerationStream) -> None:
        for variant in stream.variants:
            if variant.is_dirty:
                await self._streams.store(stream, variant)

    async def _read_again(self, stream: GenerationStream, *, except_for: VariantStream | None = None) -> None:
        """Let go of a stream that another process has continued, so that it is read from the database.

        Args:
            stream: which one.
            except_for: a variant whose pieces the caller adds again.

        Raises:
            WriterReplacedError: pieces would be lost that were received here and never stored.
        """
        await self._store_dirty(stream)
        for variant in stream.variants:
            if variant is not except_for and variant.has_unstored and variant.refusal is not None:
                raise variant.refusal
        if self._streams.find(stream.id) is stream:
            self._streams.leave(stream.id)

    async def _end_as_writer(
        self, actor: Actor, writer_token: str, index: int, end: VariantEnd, code: str | None = None
    ) -> GeneratedCodeFull:
        """End a variant as its writer; ending it again in the same way returns it as it is."""
        for _ in range(_MOST_READINGS):
            stream = await self._stream(actor, writer_token)
            variant = stream.variant(index)
            if variant.refusal is None and end.status is GenerationStatus.COMPLETED:
                if code is not None:
                    variant.replace(code)
                if not variant.has_code:
                    # Another process may have stored some.
                    await self._streams.store(stream, variant)
                    if variant.is_behind:
                        await self._read_again(stream)
                        continue
                    raise InvalidValueError("the variant has no code, so it did not complete; fail it", field="code")
            async with variant.lock:
                is_ended_here = variant.refusal is None and await self._try_to_end(stream, variant, end)
            self._streams.leave_if_ended(stream)
            if not variant.is_behind:
                return await self._ended(stream, variant, end, is_ended_here=is_ended_here)
            await self._read_again(stream)
        raise _too_many_processes()

    async def _ended(
        self, stream: GenerationStream, variant: VariantStream, end: VariantEnd, *, is_ended_here: bool
    ) -> GeneratedCodeFull:
        """The variant as it has ended.

        Raises:
            GenerationEndedError, WriterReplacedError, NotFoundError: it has ended in another way, or not.
        """
        refusal = variant.refusal
        if not is_ended_here and isinstance(refusal, GenerationEndedError) and is_known(end.result):
            async with self._transactions() as tx:
                await charge_late(tx, stream.project_id, variant.id, GenerationStatus(refusal.status), end.result)
        if not isinstance(refusal, GenerationEndedError) or refusal.status != end.status:
            raise refusal or AssertionError("ended without a refusal")
        async with self._transactions() as tx:
            return GeneratedCodeFull.model_validate(await tx.codes.get(variant.id))

    async def _try_to_end(self, stream: GenerationStream, variant: VariantStream, end: VariantEnd) -> bool:
        """Whether it has ended in this way."""
        end = replace(end, result=merged(variant.reported, end.result))
        stream.publish(at_once=True)
        unsaved = variant.unsaved()
        variant.refusal = ended_error(variant.index, end.status)  # What is appended from here on would be lost.
        refusal: Exception | None = variant.refusal
        try:
            async with self._transactions() as tx:
                await tx.generations.lock(stream.id, stream.project_id)
                tx.invalidate(project_key(stream.project_id))
                is_ended = await tx.generations.end_variant(variant.id, stream.project_id, end, stream.writer, unsaved)
                if is_ended:
                    tx.add(_end_entry(stream.owner_id, variant.id, end))
                else:
                    refusal = await refusal_of(tx, variant, stream.writer)
                tx.generations.close(stream.id, stream.project_id)
                if is_ended:
                    hold_images(tx, stream.project_id, [variant.text])
                    await charge(tx, stream.project_id, [variant.id], end.status, end.result)
        except BaseException:
            variant.refusal = None
            raise
        variant.refusal = refusal  # type: ignore[assignment]  # One of the three.
        self._streams.live.announce(stream.id, [variant.index])
        return is_ended

    async def _cancel_variant(
        self,
        project: Project,
        generation_id: UUID,
        code_id: UUID,
        stream: GenerationStream | None,
        local: VariantStream | None,
    ) -> None:
        end = VariantEnd(GenerationStatus.CANCELLED)
        if stream is not None and local is not None:
            async with local.lock:
                if local.refusal is None:
                    await self._try_to_end(stream, local, end)
            self._streams.leave_if_ended(stream)
            if isinstance(local.refusal, GenerationEndedError):
                return
        async with self._transactions() as tx:
            await tx.generations.lock(generation_id, project.id)
            tx.invalidate(project_key(project.id))
            is_ended = await tx.generations.end_variant(code_id, project.id, end, None, None)
            if is_ended:
                tx.add(_end_entry(project.user_id, code_id, end))
            tx.generations.close(generation_id, project.id)
            if is_ended:
                hold_images(tx, project.id, [(await tx.codes.get(code_id)).code])
                await charge(tx, project.id, [code_id], end.status)
        self._streams.live.announce(generation_id, range(MAXIMUM_VARIANTS))


_PLACEHOLDER: dict[str, Any] = {"code": "", "provider": VariantModel().provider, "model": VariantModel().name}


def _clean_name(name: str | None) -> str | None:
    clean = name.strip() if isinstance(name, str) else name
    if clean == "":
        raise InvalidValueError("name is empty; None takes it away", field="name")
    return clean


def _require_revision(code: GeneratedCode, expected: str, wanted: dict[str, Any]) -> None:
    current = GeneratedCodeFull.model_validate(code)
    if current.revision != expected:
        raise ChangedMeanwhileError(
            "somebody has changed the variant since it was read; read it again, then decide which values to keep",
            wanted=wanted,
            current=current.model_dump(mode="json", include={*wanted, "updated_at"}),
        )


def _generation(actor: Actor, project_id: UUID, request: GenerationRequest) -> Generation:
    return Generation(project_id=project_id, created_by=actor.user_id, **generation_values(request))


def _variant(generation: Generation, request: GenerationRequest, index: int, model: VariantModel) -> GeneratedCode:
    return GeneratedCode(
        project_id=generation.project_id,
        generation_id=generation.id,
        variant_index=index,
        code="",
        **variant_values(request, model),
    )


def _new_token(generation_id: UUID) -> tuple[str, str]:
    """A token for a writer, and its hash, which is what is stored."""
    token = f"{generation_id.hex}.{secrets.token_urlsafe(32)}"
    return token, _hash(token)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def generation_of(writer_token: object) -> UUID:
    """The generation that a writer token is for.

    Raises:
        InvalidValueError: it is not a writer token.
    """
    if not isinstance(writer_token, str) or _TOKEN.fullmatch(writer_token) is None:
        raise InvalidValueError("writer_token is not valid; use that of start or take_over", field="writer_token")
    return UUID(writer_token[:32])


def _entry(action: AuditAction, owner_id: UUID, generation_id: UUID, description: str, **fields: Any) -> AuditLog:
    return AuditLog.data_action(action, owner_id, "generation", generation_id, description, **fields)


def _end_entry(owner_id: UUID, code_id: UUID, end: VariantEnd) -> AuditLog:
    return AuditLog.data_action(
        *(AuditAction.CODE_UPDATE, owner_id, "generated_code", code_id, "Ended a variant"),
        new_values={"status": str(end.status)},
    )


def _too_many_processes() -> ConcurrentChangeError:
    return ConcurrentChangeError("several processes write this variant at the same time; send it again")
