"""Administration: people, the audit trail, everybody's usage, the health of everything. The services decide who may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, groupby
from typing import Annotated
from uuid import UUID

from fastapi import HTTPException, Query, Response
from pydantic import BaseModel, StringConstraints

from data_layer.console import words
from data_layer.console.charts import costs_of_days, each_minute, lines_of, shares_of
from data_layer.console.pages import Note, PageCall, Pages, choice
from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel, UserRole, UserStatus
from data_layer.errors import ConflictError, InvalidValueError, NotFoundError
from data_layer.schemas.actors import Actor
from data_layer.schemas.audit import AuditFilter, AuditView, ExportFormat
from data_layer.schemas.doctor import Finding, Outcome
from data_layer.schemas.operations import LogLevel, MaintenanceReport
from data_layer.schemas.statistics import FileUsage
from data_layer.schemas.usage import UsageGroup
from data_layer.schemas.users import UserAdmin
from data_layer.services.figure_history import HISTORY
from data_layer.services.files.check import CheckReport
from data_layer.services.files.cleanup import CleanupReport
from data_layer.web.downloads import download

ADMIN = "/console/admin"
_PAGE_SIZE = 50
_DAYS = {"7": 7, "30": 30, "90": 90}

pages = Pages(ADMIN)
_Text = Annotated[str, StringConstraints(max_length=320)]


class PeopleQuery(BaseModel):
    """Which accounts to show; what means nothing is passed over."""

    q: _Text = ""
    status: _Text = ""
    role: _Text = ""
    after: UUID | None = None


@pages.get("/people")
async def list_people(call: PageCall, query: Annotated[PeopleQuery, Query()]) -> Response:
    """Accounts, or the one with an address or an id."""
    wanted = query.q.strip()
    users: list[UserAdmin] = []
    if wanted:
        try:
            users = [await call.data.accounts.find(call.actor, wanted)]
        except (NotFoundError, InvalidValueError):
            users = []
    else:
        users = list(
            await call.data.accounts.list(
                call.actor,
                limit=_PAGE_SIZE,
                after=query.after,
                status=choice(UserStatus, query.status),
                role=choice(UserRole, query.role),
            )
        )
    following = users[-1].id if len(users) == _PAGE_SIZE else None
    return call.page(
        "people.html",
        users=users,
        chosen={"q": wanted, "status": query.status, "role": query.role},
        next=following,
        statuses=list(UserStatus),
        roles=list(UserRole),
    )


@pages.get("/people/{user_id}")
async def show_person(call: PageCall, user_id: UUID) -> Response:
    """An account, where it is logged in, and what it did last."""
    return await _person(call, user_id)


async def _person(call: PageCall, user_id: UUID, code: int = 200, problem: str | None = None) -> Response:
    user = await call.data.accounts.find(call.actor, str(user_id))
    sessions = await call.data.sessions.list_all(call.actor, user_id=user_id, limit=50)
    trail = await call.data.audit.list(call.actor, AuditFilter(user_id=user_id), view=AuditView.SECURE, limit=20)
    return call.page(
        "person.html",
        code,
        user=user,
        sessions=sessions,
        entries=trail.entries,
        roles=list(UserRole),
        is_self=user_id == call.user_id,
        problem=problem,
    )


_ASKING = {
    "delete": (words.N_("Erase this account with everything in it, for good?"), words.N_("Erase the account")),
    "end-sessions": (words.N_("End all sessions of this person?"), words.N_("Log out everywhere")),
}
"""Steps that cannot be undone, or that interrupt somebody: the question, and the answer that takes them."""


@pages.post("/people/{user_id}/{action}")
async def act(call: PageCall, user_id: UUID, action: str) -> Response:
    """Suspend somebody, let them in again, change the role, and what else is done with an account of others."""
    fields = await call.fields()
    person = f"{ADMIN}/people/{user_id}"
    if action in _ASKING:
        question, answer = _ASKING[action]
        if asking := await call.ask(call.text(question), call.text(answer), person):
            return asking
    try:
        match action:
            case "suspend":
                await call.data.accounts.suspend(call.actor, user_id, reason=fields.get("reason", ""))
            case "role":
                role = choice(UserRole, fields.get("role"))
                if role is not None:
                    await call.data.accounts.set_role(call.actor, user_id, role)
            case "end-sessions":
                await call.data.sessions.revoke_all(call.actor, user_id, reason="ended_by_administration")
            case _:
                await _simple(call, action)(call.actor, user_id)
    except (ConflictError, InvalidValueError) as error:
        return await _person(call, user_id, 422, call.reason_of(error))
    if action == "delete":
        return call.go(f"{ADMIN}/people", "person_deleted")
    return call.go(person, "reset_mailed" if action == "reset" else "saved")


def _simple(call: PageCall, action: str) -> Callable[[Actor, UUID], Awaitable[object]]:
    """What needs nothing but the account."""
    accounts = call.data.accounts
    actions: dict[str, Callable[[Actor, UUID], Awaitable[object]]] = {
        "unsuspend": accounts.unsuspend,
        "unlock": accounts.unlock,
        "verify": accounts.verify,
        "reset": accounts.mail_password_reset,
        "delete": accounts.delete,
    }
    if action not in actions:
        raise NotFoundError(f"there is no action {action}")
    return actions[action]


async def _names(call: PageCall, ids: Collection[UUID | None]) -> dict[UUID, str]:
    """The addresses of those of some accounts that are there; of as many as a page shows."""
    wanted = {user_id for user_id in ids if user_id is not None}
    found = await call.data.accounts.list(call.actor, ids=wanted, limit=_PAGE_SIZE) if wanted else ()
    return {user.id: user.email for user in found}


class TrailQuery(BaseModel):
    """Which entries of the audit trail; what means nothing is passed over."""

    action: _Text = ""
    level: _Text = ""
    category: _Text = ""
    user: _Text = ""
    text: _Text = ""
    days: _Text = ""
    after: Annotated[str, StringConstraints(max_length=100)] = ""
    follow: bool = False

    def as_filter(self) -> AuditFilter:
        """As the service takes it."""
        action, level = choice(AuditAction, self.action), choice(AuditLevel, self.level)
        category = choice(AuditCategory, self.category)
        text = self.text.strip() or None
        days = _DAYS.get(self.days, 30 if text else 0)
        try:
            user_id = UUID(self.user) if self.user else None
        except ValueError:
            raise InvalidValueError("a person is named by the id of the account", field="user") from None
        return AuditFilter(
            user_id=user_id,
            actions=() if action is None else (action,),
            levels=() if level is None else (level,),
            categories=() if category is None else (category,),
            since=datetime.now(UTC) - timedelta(days=days) if days else None,
            text=text,
        )


@pages.get("/audit")
async def read_trail(call: PageCall, query: Annotated[TrailQuery, Query()]) -> Response:
    """Who did what, newest first; followed, the page asks again every few seconds."""
    problem, entries, following, names = None, [], None, dict[UUID, str]()
    view = AuditView.COMPLIANCE if call.actor.role is UserRole.ADMIN else AuditView.SECURE
    try:
        page = await call.data.audit.list(
            call.actor, query.as_filter(), view=view, limit=_PAGE_SIZE, cursor=query.after or None
        )
        entries, following = list(page.entries), page.next_cursor
        names = await _names(call, {entry.user_id for entry in entries})
    except InvalidValueError as error:
        problem = call.reason_of(error)
    return call.page(
        "audit.html",
        422 if problem else 200,
        entries=entries,
        names={entry.user_id: names.get(entry.user_id) for entry in entries if entry.user_id},
        next=following,
        chosen=query.model_dump(exclude={"after", "follow"}),
        follow=query.follow,
        problem=problem,
        actions=sorted(AuditAction),
        levels=list(AuditLevel),
        categories=sorted(AuditCategory),
        is_full=view is AuditView.COMPLIANCE,
    )


@pages.get("/audit/export", takes_long=True)
async def export_trail(call: PageCall, query: Annotated[TrailQuery, Query()]) -> Response:
    """The same entries as a CSV file, while they are read; the export itself is recorded."""
    pieces = call.data.audit.export(call.actor, query.as_filter(), format=ExportFormat.CSV, view=AuditView.COMPLIANCE)
    return await download(pieces, name="audit.csv", media_type="text/csv; charset=utf-8")


@pages.get("/usage")
async def usage(call: PageCall, days: str = "30") -> Response:
    """What everybody has spent: by day, person and model."""
    number = _DAYS.get(days, 30)
    today = datetime.now(UTC).date()
    first = today - timedelta(days=number - 1)
    sums = call.data.usage.sums
    by_day = await sums(call.actor, [UsageGroup.DAY], everyone=True, first_day=first)
    by_person = await sums(call.actor, [UsageGroup.PERSON], everyone=True, first_day=first, top=_PAGE_SIZE)
    by_model = await sums(call.actor, [UsageGroup.MODEL], everyone=True, first_day=first, top=_PAGE_SIZE)
    people = [(each.user_id, each) for each in by_person if each.user_id is not None]
    names = await _names(call, {user_id for user_id, _ in people})
    return call.page(
        "usage_of_all.html",
        costs=costs_of_days(by_day, today, number),
        people=[(each, names.get(user_id, str(user_id))) for user_id, each in people],
        by_model=by_model,
        days=str(number),
        choices=list(_DAYS),
    )


@dataclass(frozen=True, slots=True)
class FilesReport:
    """What came of comparing or cleaning up."""

    report: CheckReport | CleanupReport

    @property
    def is_cleanup(self) -> bool:
        """Which of the two it is."""
        return isinstance(self.report, CleanupReport)


@pages.get("/files")
async def show_files(call: PageCall) -> Response:
    """How many files there are, of which type and owner."""
    return call.page("files.html", progress=None, **await _files(call))


@pages.post("/files/check", takes_long=True)
async def check_files(call: PageCall) -> Response:
    """Compare the table of files with the storage."""
    fields = await call.fields()
    is_deep, is_repair = fields.get("deep") == "yes", fields.get("repair") == "yes"
    files = call.data.file_maintenance
    compared = call.text("Compared:")

    async def check(note: Note) -> FilesReport:
        report = await files.check(
            call.actor, deep=is_deep, repair=is_repair, on_progress=lambda number: note(compared, number)
        )
        return FilesReport(report)

    working = call.text("The files are compared")
    return await call.working_page("files.html", "files_report.html", check, working=working, **await _files(call))


@pages.post("/files/cleanup", takes_long=True)
async def clean_files(call: PageCall) -> Response:
    """Remove useless files, or look at what that would be."""
    fields = await call.fields()
    is_dry = fields.get("dry_run") == "yes"
    question = call.text("Remove these files for good?")
    if not is_dry and (asking := await call.ask(question, call.text("Remove"), f"{ADMIN}/files")):
        return asking
    files = call.data.file_maintenance

    async def clean(note: Note) -> FilesReport:
        report = await files.cleanup(
            call.actor,
            apply=not is_dry,
            on_progress=lambda step, number: note(call.language.word(step, words.CLEANUP), number),
        )
        return FilesReport(report)

    working = call.text("What cleaning up would remove") if is_dry else call.text("Cleaning up")
    return await call.working_page("files.html", "files_report.html", clean, working=working, **await _files(call))


async def _files(call: PageCall) -> dict[str, object]:
    usage = await call.data.file_maintenance.usage(call.actor)
    names = await _owners(call, usage.by_owner)
    return {
        "usage": usage,
        "types": shares_of([(each.name, each.stored_size) for each in usage.by_type]),
        "owners": shares_of([(names[each.name], each.stored_size) for each in usage.by_owner]),
    }


async def _owners(call: PageCall, usage: Collection[FileUsage]) -> dict[str, str]:
    """What to call the owners of files, by what the figures call them."""
    found = await _names(call, {UUID(each.name) for each in usage if each.name != "system"})
    addresses = {str(user_id): email for user_id, email in found.items()}
    return {each.name: addresses.get(each.name, each.name) for each in usage} | {
        "system": call.text("the service itself")
    }


@pages.get("/system")
async def system(call: PageCall) -> Response:
    """The figures of database, cache and storage, now and in the last half hour; the page asks again and again."""
    figures = await call.data.statistics(call.actor)
    samples = await call.data.figure_history.recent(call.actor)
    storage, database = figures.storage, figures.database
    names = {} if storage is None else await _owners(call, storage.by_owner)
    return call.page(
        "system.html",
        figures=figures,
        lines=lines_of(samples, figures.taken_at - HISTORY, figures.taken_at),
        minutes=() if call.is_partial else each_minute(samples),  # The table is not asked for again and again.
        recorder=samples[-1].process if samples else None,
        tables=[] if database is None else shares_of([(each.name, each.size) for each in database.tables or ()]),
        types=[] if storage is None else shares_of([(each.name, each.size) for each in storage.by_type]),
        owners=[] if storage is None else shares_of([(names[each.name], each.size) for each in storage.by_owner]),
    )


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What the doctor has found in each part, and how many findings there are of each outcome."""

    parts: Sequence[tuple[str, Sequence[Finding]]]
    counts: Mapping[Outcome, int]


@pages.get("/doctor", takes_long=True)
async def examine(call: PageCall) -> Response:
    """What the doctor finds; the page shows what is being checked until all is done."""
    language = call.language

    async def look(note: Note) -> DoctorReport:
        numbers = count(1)

        def show(finding: Finding) -> None:
            part = language.word(finding.part, words.DOCTOR_PARTS)
            note(f"{part}: {language.word(finding.check, words.DOCTOR_CHECKS)}", next(numbers))

        findings = await call.data.operations.examine(call.actor, on_finding=show)
        counts = Counter(finding.outcome for finding in findings)
        parts = [(part, list(found)) for part, found in groupby(findings, key=lambda finding: finding.part)]
        return DoctorReport(parts, {each: counts[each] for each in Outcome if counts[each]})

    return await call.working_page("doctor.html", "doctor_report.html", look)


@pages.get("/maintenance")
async def show_maintenance(call: PageCall) -> Response:
    """Maintenance, migrations and levels of the log."""
    state = await call.data.operations.state(call.actor)
    return call.page("maintenance.html", state=state, progress=None)


@pages.post("/maintenance", takes_long=True)
async def run_maintenance(call: PageCall) -> Response:
    """Run a round of maintenance, or look at what it would do."""
    fields = await call.fields()
    state = await call.data.operations.state(call.actor)  # It also refuses whom maintenance would refuse.
    is_dry = fields.get("dry_run") == "yes"
    question = call.text("Remove for good what has expired?")
    if not is_dry and (asking := await call.ask(question, call.text("Run it"), f"{ADMIN}/maintenance")):
        return asking

    moving = {"move": words.MAINTENANCE["audit_partitions_moved"]}  # The month follows it.
    steps = words.CLEANUP | words.MAINTENANCE | moving

    async def run(note: Note) -> MaintenanceReport:
        return await call.data.maintenance.run(
            call.actor,
            dry_run=is_dry,
            on_progress=lambda step, number: note(call.language.word(step.partition(" ")[0], steps), number),
        )

    return await call.working_page("maintenance.html", "maintenance_report.html", run, state=state)


@pages.post("/log-level")
async def change_level(call: PageCall) -> Response:
    """Change for a while what the service logs."""
    fields = await call.fields()
    minutes = fields.get("minutes", "")
    length = timedelta(minutes=int(minutes)) if minutes in {"10", "60", "1440"} else timedelta(minutes=60)
    level = choice(LogLevel, fields.get("level"))
    if level is None:
        raise HTTPException(422)
    await call.data.operations.change_log_level(call.actor, level, length)
    return call.go(f"{ADMIN}/maintenance", "saved")


@pages.post("/log-level/reset")
async def reset_level(call: PageCall) -> Response:
    """Have LOG_LEVEL count again."""
    await call.data.operations.reset_log_levels(call.actor)
    return call.go(f"{ADMIN}/maintenance", "saved")
