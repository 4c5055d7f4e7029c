"""Accounts, the audit trail, mails and maintenance over HTTP, for moderators and administrators.

What a role may do is decided by the services (``services/permissions.py``); to everybody else these routes answer 403.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Path, Query, Response
from pydantic import Field, StrictBool, StringConstraints

from data_layer.api.request_models import Body, Moment
from data_layer.api.response_headers import described_headers, next_after
from data_layer.api.routes import Call, KeyScopes, Routes
from data_layer.entities.enums import (
    ApiScope,
    AuditAction,
    AuditCategory,
    AuditLevel,
    MailStatus,
    UserRole,
    UserStatus,
)
from data_layer.errors import DataLayerError
from data_layer.schemas.audit import AuditCompliance, AuditFilter, AuditFull, AuditSecure, AuditView, ExportFormat
from data_layer.schemas.base import Value
from data_layer.schemas.factors import FactorsView
from data_layer.schemas.mails import MailView
from data_layer.schemas.operations import MaintenanceReport
from data_layer.schemas.sessions import SessionAdmin
from data_layer.schemas.users import UserAdmin
from data_layer.services.permissions import LONGEST_REASON
from data_layer.services.statistics import Statistics
from data_layer.web.conditions import moment_tag, require_moment
from data_layer.web.downloads import HEADERS, GeneratedResponse, Running, download
from data_layer.web.errors import problem_of

Work = Callable[[Callable[[int], None]], Awaitable[Value]]


async def progress_of(call: Call, work: Work) -> GeneratedResponse:
    """Answer with how far the work is, and its report. A client that leaves ends it.

    What fails at once, such as work that the caller may not do, is an answer of its own.

    Args:
        call: the request.
        work: given what it calls with how many things it has seen.
    """
    lines = _lines(call, work)
    first = await anext(lines)
    return GeneratedResponse(lines, first=first, media_type="application/x-ndjson", headers=HEADERS)


async def _lines(call: Call, work: Work) -> AsyncGenerator[bytes]:
    seen = 0

    def note(number: int) -> None:
        nonlocal seen
        seen = number

    has_begun = False
    running = Running(lambda: work(note), "administration")
    async with aclosing(running.seconds()) as seconds:
        async for _ in seconds:
            has_begun = True
            yield _line(seen=seen)
    try:
        report = running.result()
    except DataLayerError as error:
        if not has_begun:
            raise
        yield _line(problem=problem_of(call.scope, error).model_dump(mode="json", exclude_none=True))
    else:
        yield _line(report=report.model_dump(mode="json"))


def _line(**content: object) -> bytes:
    return orjson.dumps(content) + b"\n"


_Limit = Annotated[int, Field(ge=1, le=1000)]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_WhoseAddress = Annotated[str, Path(max_length=320, description="The id or the address of mail.")]
_FILES = {
    ExportFormat.JSON_LINES: ("application/x-ndjson", "audit.ndjson"),
    ExportFormat.CSV: ("text/csv; charset=utf-8", "audit.csv"),
}
_PROGRESS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines of JSON: `seen` every second, with how many there were so far, and at the end `report`, "
        "or `problem` where it failed.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}
_EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": described_headers("Content-Disposition"),
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}


class UsersQuery(Body):
    """A page of accounts, oldest first; ``after`` is ``next`` of the page before."""

    status: UserStatus | None = None
    role: UserRole | None = None
    limit: _Limit = 100
    after: UUID | None = None


class UserPage(Value):
    """A page of accounts; ``next`` is null on the last one."""

    users: tuple[UserAdmin, ...]
    next: UUID | None


class NewRole(Body):
    """The role that an account gets."""

    role: UserRole


class Suspension(Body):
    """Why somebody is kept out, for the audit trail; the person does not see it."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_REASON)]


class SessionsQuery(Body):
    """A page of sessions; ``after`` is ``next`` of the page before."""

    limit: _Limit = 100
    after: UUID | None = None


class SessionPage(Value):
    """A page of where somebody is logged in, the session that began last first; ``next`` is null on the last one."""

    sessions: tuple[SessionAdmin, ...]
    next: UUID | None


class Reset(Value):
    """How many second factors were removed."""

    removed: int


class Ended(Value):
    """How many sessions were ended."""

    ended: int


class EntriesWanted(Body):
    """Which entries of the audit trail: all conditions must hold, and of several values any will do.

    ``text`` needs ``since``, ``user_id``, ``resource_id`` or ``correlation_id`` beside it. ``view``: ``secure``, for
    administrators also ``compliance`` and ``full``.
    """

    user_id: UUID | None = None
    action: Annotated[list[AuditAction], Field(max_length=len(AuditAction))] = Field(default_factory=list)
    level: Annotated[list[AuditLevel], Field(max_length=len(AuditLevel))] = Field(default_factory=list)
    category: Annotated[list[AuditCategory], Field(max_length=len(AuditCategory))] = Field(default_factory=list)
    resource_type: _Text | None = None
    resource_id: _Text | None = None
    correlation_id: _Text | None = None
    is_success: bool | None = None
    since: Moment | None = None
    until: Moment | None = None
    text: _Text | None = None

    def as_filter(self) -> AuditFilter:
        """As the service takes it."""
        return AuditFilter(
            user_id=self.user_id,
            actions=tuple(self.action),
            levels=tuple(self.level),
            categories=tuple(self.category),
            resource_type=self.resource_type,
            resource_id=self.resource_id,
            correlation_id=self.correlation_id,
            is_success=self.is_success,
            since=self.since,
            until=self.until,
            text=self.text,
        )


class TrailQuery(EntriesWanted):
    """A page of them; ``after`` is ``next`` of the page before."""

    view: AuditView = AuditView.SECURE
    limit: _Limit = 50
    after: Annotated[str, StringConstraints(max_length=100)] | None = None
    oldest_first: bool = False


class ExportQuery(EntriesWanted):
    """All of them, as a file."""

    view: AuditView = AuditView.COMPLIANCE
    format: ExportFormat = ExportFormat.JSON_LINES


class TrailPage(Value):
    """A page of the audit trail; ``next`` is null on the last one."""

    entries: tuple[AuditFull | AuditCompliance | AuditSecure, ...]
    next: str | None


class MailsQuery(Body):
    """A page of mails, newest first; ``after`` is ``next`` of the page before."""

    status: MailStatus | None = None
    user_id: UUID | None = None
    limit: _Limit = 100
    after: UUID | None = None


class MailPage(Value):
    """A page of mails; ``next`` is null on the last one."""

    mails: tuple[MailView, ...]
    next: UUID | None


class StorageCheck(Body):
    """``deep`` reads every file and compares its hash, too."""

    deep: StrictBool = False
    repair: StrictBool = False


class StorageCleanup(Body):
    """What was useless for so many hours."""

    apply: StrictBool = False
    older_than_hours: Annotated[int, Field(ge=1, le=8760)] = 24


class Round(Body):
    """With ``dry_run`` nothing is changed."""

    dry_run: StrictBool = False


routes = Routes("/v1/admin", "administration", keys=KeyScopes(ApiScope.ADMIN, ApiScope.ADMIN))


@routes.get("/users", summary="List accounts", errors=[422], next_by="after")
async def list_users(call: Call, query: Annotated[UsersQuery, Query()]) -> UserPage:
    """For moderators."""
    users = await call.data.accounts.list(call.actor, **query.model_dump())
    return UserPage(users=users, next=next_after(users, query.limit))


@routes.get("/users/{user}", summary="Find an account", errors=[404, 422], etag=moment_tag)
async def find_user(call: Call, user: _WhoseAddress) -> UserAdmin:
    """By its id or its address, for moderators. ``ETag`` is what a change of the role needs."""
    return await call.data.accounts.find(call.actor, user)


@routes.delete("/users/{user}", summary="Erase an account", status_code=204, errors=[404, 409])
async def delete_user(call: Call, user_id: Annotated[UUID, Path(alias="user")]) -> None:
    """With its projects and files, for administrators. Only its id stays, for the audit trail."""
    await call.data.accounts.delete(call.actor, user_id)


@routes.put(
    "/users/{user_id}/role", summary="Give an account another role", errors=[404, 409, 412, 428], etag=moment_tag
)
async def set_role(call: Call, user_id: UUID, body: NewRole) -> UserAdmin:
    """For administrators. The sessions of the account end. 409 for the last active administrator.

    ``If-Match`` must name the account that was read; 412 shows what is stored now.
    """
    expected = require_moment(call.headers)
    return await call.data.accounts.set_role(call.actor, user_id, body.role, expected=expected)


@routes.post("/users/{user_id}/suspend", summary="Keep somebody out", errors=[404, 409])
async def suspend(call: Call, user_id: UUID, body: Suspension) -> UserAdmin:
    """For moderators, against users; for administrators, against everybody. All sessions end within two seconds."""
    return await call.data.accounts.suspend(call.actor, user_id, reason=body.reason)


@routes.post("/users/{user_id}/unsuspend", summary="Let somebody in again", errors=[404, 409])
async def unsuspend(call: Call, user_id: UUID) -> UserAdmin:
    """An address that was never verified still has to be."""
    return await call.data.accounts.unsuspend(call.actor, user_id)


@routes.post("/users/{user_id}/unlock", summary="End the waiting after failed logins", status_code=204, errors=[404])
async def unlock(call: Call, user_id: UUID) -> None:
    """For moderators."""
    await call.data.accounts.unlock(call.actor, user_id)


@routes.post("/users/{user_id}/verify", summary="Vouch for an address", errors=[404])
async def verify(call: Call, user_id: UUID) -> UserAdmin:
    """For administrators: the person who registered reads mail there. A new account is open then."""
    return await call.data.accounts.verify(call.actor, user_id)


@routes.post("/users/{user_id}/password-reset", summary="Mail a link for a new password", status_code=202, errors=[404])
async def mail_reset(call: Call, user_id: UUID) -> UserAdmin:
    """For moderators; at most one mail in five minutes, and none to an account that is suspended."""
    return await call.data.accounts.mail_password_reset(call.actor, user_id)


@routes.get("/users/{user_id}/second-factors", summary="List somebody's second factors", errors=[404, 422])
async def list_factors(call: Call, user_id: UUID) -> FactorsView:
    """For moderators."""
    return await call.data.accounts.list_factors(call.actor, user_id)


@routes.delete("/users/{user_id}/second-factors", summary="Reset somebody's second factors", errors=[404])
async def reset_factors(call: Call, user_id: UUID) -> Reset:
    """For administrators, after they were lost: check the person's identity first. All their sessions end."""
    return Reset(removed=await call.data.accounts.reset_factors(call.actor, user_id))


@routes.get("/users/{user_id}/sessions", summary="List somebody's sessions", errors=[404, 422], next_by="after")
async def list_sessions(call: Call, user_id: UUID, query: Annotated[SessionsQuery, Query()]) -> SessionPage:
    """For moderators; with devices and places."""
    found = await call.data.sessions.list_all(call.actor, user_id=user_id, limit=query.limit, after=query.after)
    return SessionPage(sessions=found, next=next_after(found, query.limit))


@routes.delete("/users/{user_id}/sessions", summary="Log somebody out everywhere", errors=[404])
async def end_sessions(call: Call, user_id: UUID) -> Ended:
    """For moderators, against users; for administrators, against everybody."""
    return Ended(ended=await call.data.sessions.revoke_all(call.actor, user_id, reason="ended_by_administration"))


@routes.get("/audit", summary="Read the audit trail", errors=[422], next_by="after")
async def read_trail(call: Call, query: Annotated[TrailQuery, Query()]) -> TrailPage:
    """Newest first. Users see what they did themselves (``user_id``), moderators what everybody did."""
    page = await call.data.audit.list(
        call.actor,
        query.as_filter(),
        view=query.view,
        limit=query.limit,
        cursor=query.after,
        newest_first=not query.oldest_first,
    )
    return TrailPage(entries=page.entries, next=page.next_cursor)


@routes.get(
    "/audit/export",
    summary="Export the audit trail",
    takes_long=True,
    errors=[422],
    response_class=Response,
    responses=_EXPORTED,
    response_model=None,
)
async def export_trail(call: Call, query: Annotated[ExportQuery, Query()]) -> Response:
    """JSON Lines or CSV, oldest first, while it is read; for administrators. The export itself is recorded."""
    pieces = call.data.audit.export(call.actor, query.as_filter(), format=query.format, view=query.view)
    media_type, name = _FILES[query.format]
    return await download(pieces, name=name, media_type=media_type)


@routes.get("/mails", summary="List mails", errors=[422], next_by="after")
async def list_mails(call: Call, query: Annotated[MailsQuery, Query()]) -> MailPage:
    """For administrators: which wait, and what became of the others. Neither text nor link is shown."""
    mails = await call.data.mails.list(call.actor, **query.model_dump())
    return MailPage(mails=mails, next=next_after(mails, query.limit))


@routes.post("/mails/{mail_id}/retry", summary="Send a mail again", errors=[404, 409])
async def retry_mail(call: Call, mail_id: UUID) -> MailView:
    """For administrators: one that waits or has failed, as soon as possible."""
    return await call.data.mails.retry(call.actor, mail_id)


@routes.post("/maintenance", summary="Run maintenance", takes_long=True, errors=[])
async def run_maintenance(call: Call, body: Round) -> MaintenanceReport:
    """For administrators. One round at a time: ``is_complete`` is false where another process is at it."""
    return await call.data.maintenance.run(call.actor, dry_run=body.dry_run)


@routes.get("/statistics", summary="Read the figures of database, cache and storage", errors=[])
async def read_statistics(call: Call) -> Statistics:
    """For administrators, after about ten seconds at most. Of a part that is null ``errors`` says why."""
    return await call.data.statistics(call.actor)


@routes.post(
    "/storage/check",
    summary="Compare the table of files with the storage",
    response_class=Response,
    responses=_PROGRESS,
    response_model=None,
)
async def check_storage(call: Call, body: StorageCheck) -> Response:
    """For administrators. Nothing is changed without ``repair``, which stores again what has wrong headers or sizes."""

    def check(note: Callable[[int], None]) -> Awaitable[Value]:
        return call.data.file_maintenance.check(call.actor, deep=body.deep, repair=body.repair, on_progress=note)

    return await progress_of(call, check)


@routes.post(
    "/storage/cleanup",
    summary="Remove files that are useless",
    response_class=Response,
    responses=_PROGRESS,
    response_model=None,
)
async def clean_storage(call: Call, body: StorageCleanup) -> Response:
    """For administrators: what is expired, abandoned, unreferenced or unknown. Without ``apply`` it is only counted."""

    def clean(note: Callable[[int], None]) -> Awaitable[Value]:
        return call.data.file_maintenance.cleanup(
            call.actor,
            apply=body.apply,
            older_than=timedelta(hours=body.older_than_hours),
            on_progress=lambda _, number: note(number),
        )

    return await progress_of(call, clean)
