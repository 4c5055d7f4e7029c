"""What can be done with sessions, and which device each began on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from uuid import UUID

from pydantic import SecretStr
from uuid_utils.compat import uuid7

from data_layer.context import current_context
from data_layer.database.listener import Listener
from data_layer.entities import AuditLog, Session, User
from data_layer.entities.columns import check_text, json_object_of
from data_layer.entities.enums import AuditAction, AuditLevel, SessionType
from data_layer.errors import AccountInactiveError, ChangedMeanwhileError, InvalidValueError, NotFoundError
from data_layer.repositories.sessions import Lifetime
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.sessions import ActiveSession, GeoLocation, NewSession, SessionAdmin, SessionData, SessionSecure
from data_layer.services.arguments import checks_arguments
from data_layer.services.permissions import Permission, as_of_now, is_allowed, require
from data_layer.services.sessions.activity import Activity
from data_layer.services.sessions.change_stream import ChangeStream
from data_layer.services.sessions.copies import SessionCopies
from data_layer.services.sessions.hashing import TokenHasher, make_token
from data_layer.services.sessions.validation import SessionValidator, ValidationCounts, refused
from data_layer.settings.security import SecuritySettings

if TYPE_CHECKING:
    from ua_parser import Parser

_LONGEST = 1024
_DESKTOPS = frozenset({"Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS"})


class Device(NamedTuple):
    """What is known of a client; ``None`` where it does not say."""

    device_type: str | None = None
    browser: str | None = None
    browser_version: str | None = None
    operating_system: str | None = None
    os_version: str | None = None


async def describe_device(user_agent: str | None) -> Device:
    """The device, as far as it is named; it may be a lie, so that nothing but what people read depends on it."""
    if not user_agent:
        return Device()
    if not has_patterns():
        await asyncio.to_thread(load_patterns)
    return _parse(user_agent[:_LONGEST])


@cache
def load_patterns() -> Parser:
    """Load the patterns that user agents are compared with: they take a tenth of a second of processor time, once.

    A process that serves does this before it serves, because half of that time holds up every other thread, too.

    They are those for browsers and systems, and of those for devices the few that say more than the system does. The
    other 600 name the makers of phones, and take 14 MiB of memory.
    """
    from ua_parser import BestAvailableResolver, Parser
    from ua_parser.lazy import DeviceMatcher
    from ua_parser.loaders import load_lazy_builtins

    browsers, systems, all_devices = load_lazy_builtins()
    devices = cast("list[DeviceMatcher]", all_devices)
    tablets = [each for each in devices if each.family == "iPad" or (each.family == "$1" and "iPad" in each.regex)]
    *spiders, any_spider = [each for each in devices if each.family == "Spider"]
    # The last one looks for "bot" and such anywhere, which is also in the names of phones, so phones come before it.
    phones = DeviceMatcher("iPhone|iPod|Android", family="Phone")
    return Parser(BestAvailableResolver((browsers, systems, [*spiders, *tablets, phones, any_spider])))


def has_patterns() -> bool:
    """Whether the patterns are loaded."""
    return load_patterns.cache_info().currsize > 0


@lru_cache(maxsize=256)
def _parse(user_agent: str) -> Device:
    result = load_patterns().parse(user_agent)
    browser, system = result.user_agent, result.os
    return Device(
        device_type=_type(user_agent, system.family if system else "", result.device.family if result.device else ""),
        browser=browser.family if browser else None,
        browser_version=_version(browser.major, browser.minor) if browser else None,
        operating_system=system.family if system else None,
        os_version=_version(system.major, system.minor) if system else None,
    )


def _type(user_agent: str, system: str, device: str) -> str | None:
    if device == "Spider":
        return "bot"
    if device == "iPad" or "Tablet" in user_agent or (system == "Android" and "Mobile" not in user_agent):
        return "tablet"
    if system in {"iOS", "Android"} or "Mobile" in user_agent:
        return "mobile"
    return "desktop" if system in _DESKTOPS else None


def _version(major: str | None, minor: str | None) -> str | None:
    return ".".join(part for part in (major, minor) if part) or None


Value = TypeVar("Value")

LIMIT_REACHED = "limit_reached"
LOGGED_OUT = "logged_out"
_BATCH = 1000


@checks_arguments
class SessionService:
    """The sessions of people: how long each lasts, and on which device.

    A session lives for SESSION_TTL after its last use, and for SESSION_MAX_AGE at most. However it ends, in whatever
    process or by SQL, it is refused everywhere within two seconds (``watermark`` says why). Without Redis everything
    works, and nobody is logged out. Without the database a session is accepted for up to 1.5 seconds more, and then
    nobody knows: ``validate`` raises DatabaseError, which must not log anybody out.

    Args:
        transactions: where sessions are kept; those that end any are forgotten in the copies after the commit.
        copies: what is believed without asking the database.
        connect: opens a connection to listen for ended sessions.
        settings: the lengths of life, the limit and the secrets.
        clock: seconds that never go back.
        background: follow the journal and write activity by itself, from the first validation on.
    """

    def __init__(
        self,
        transactions: Transactions,
        copies: SessionCopies,
        connect: Callable[[], Awaitable[Listener]],
        settings: SecuritySettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        background: bool = True,
    ) -> None:
        self._transactions = transactions
        self._limit = settings.session_limit
        self._lifetime = Lifetime(settings.session_ttl, settings.session_max_age)
        self._hasher = TokenHasher(settings.session_secret, settings.session_secret_previous, "session")
        self._copies = copies
        self.activity = Activity(transactions, self._lifetime, clock)
        self.changes = ChangeStream(connect, copies.watermark, copies.near, clock)
        self._validator = SessionValidator(
            transactions,
            self._hasher,
            copies.watermark,
            near=copies.near,
            shared=copies.shared,
            activity=self.activity,
            lifetime=self._lifetime,
            on_look_up=self._start if background else None,
            clock=clock,
        )
        self._is_closed = False

    @property
    def validations(self) -> ValidationCounts:
        """Where answers came from since the start."""
        return self._validator.counts

    @property
    def copy_count(self) -> int:
        """How many copies of sessions this process keeps, at most one by token and one by id of each."""
        return len(self._copies.near.by_key)

    async def close(self) -> None:
        """Write the activity that was collected, and stop what runs in the background."""
        self._is_closed = True
        await self._validator.close()
        await self.changes.close()
        await self.activity.close()

    async def create(
        self,
        user_id: UUID,
        *,
        kind: SessionType = SessionType.WEB,
        device_id: str | None = None,
        place: GeoLocation | None = None,
    ) -> NewSession:
        """Begin a session for an authenticated user. The token is in the answer and nowhere else.

        Address and user agent are those of ``request_context``. Over SESSION_LIMIT the session of the user that was
        longest without use ends.

        Raises:
            AccountInactiveError: no active account has this id.
        """
        async with self._transactions() as tx:
            return await self.begin(tx, user_id, kind=kind, device_id=device_id, place=place)

    async def begin(
        self,
        tx: UnitOfWork,
        user_id: UUID,
        *,
        kind: SessionType = SessionType.WEB,
        device_id: str | None = None,
        place: GeoLocation | None = None,
    ) -> NewSession:
        """The same within a transaction, such as the one that proves who the user is.

        Raises:
            AccountInactiveError: see ``create``; the transaction must be rolled back.
        """
        token, context, place = make_token(), current_context(), place or GeoLocation()
        device = await describe_device(context.user_agent)
        session = Session(
            id=uuid7(),
            session_id=self._hasher.hash(token),
            user_id=user_id,
            type=kind,
            expires_at=None,  # type: ignore[arg-type]  # By the clock of the database.
            ip_address=context.ip_address,
            user_agent=context.user_agent,
            device_id=device_id,
            **device._asdict(),
            **place.model_dump(),
        )
        begun, ended = await tx.sessions.begin(session, self._lifetime, limit=self._limit, reason=LIMIT_REACHED)
        if begun is None:
            raise AccountInactiveError("there is no active account with this id, so no session can begin")
        tx.add(_entry(AuditAction.SESSION_CREATE, user_id, [begun.id], "Session began"))
        if ended.ids:
            tx.add(_entry(AuditAction.SESSION_REVOKE, user_id, ended.ids, "Session ended", reason=LIMIT_REACHED))
        return NewSession(token=SecretStr(token), session=begun)

    def follow_changes(self) -> None:
        """Begin to follow which sessions and accounts change, for those who believe copies of them."""
        self._start()

    def validate(self, token: str) -> Coroutine[Any, Any, ActiveSession]:
        """The session of a token; its use is counted, and lets its life begin again.

        Raises:
            InvalidSessionError: when the token is unknown, or its session has expired or was ended.
            DatabaseError: when that cannot be known at the moment.
        """
        # Handed through and not awaited here: this is on the way of every request.
        return self._validator.by_token(token)

    def validate_id(self, session_id: UUID) -> Coroutine[Any, Any, ActiveSession]:
        """The same by the id; the client has authenticated otherwise, such as with an access token.

        Raises:
            InvalidSessionError: when the session is unknown, has expired or was ended.
            DatabaseError: when that cannot be known at the moment.
        """
        return self._validator.by_id(session_id)

    async def touch(self, session_id: UUID) -> datetime:
        """Let the life of a session begin again now, such as for a client that is connected but silent; its expiry.

        Raises:
            InvalidSessionError: when it has ended.
        """
        return _required(await self.activity.write_now(session_id))

    async def extend(self, session_id: UUID, by: timedelta) -> datetime:
        """Let a session live for so long from now, used or not, but not over SESSION_MAX_AGE; its expiry.

        Raises:
            InvalidSessionError: when it has ended.
            InvalidValueError: when the time is not positive.
        """
        if by.total_seconds() <= 0:
            raise InvalidValueError("a session is extended by a positive time", field="by")
        async with self._transactions() as tx:
            expires_at = _required(await tx.sessions.extend(session_id, by.total_seconds(), self._lifetime.maximum))
            session = await tx.sessions.get(session_id)
            tx.add(_entry(AuditAction.SESSION_EXTEND, session.user_id, [session_id], "Session extended"))
        return expires_at

    async def list(self, actor: Actor, user_id: UUID) -> Sequence[SessionSecure]:
        """The sessions of a user that are accepted, the one that was active last first.

        ``last_active_at`` may be some seconds old.

        Raises:
            PermissionDeniedError: when the actor may not see them.
        """
        require(actor, Permission.LIST_SESSIONS, owner=user_id)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.LIST_SESSIONS, owner=user_id)
            sessions = sorted(await tx.sessions.live(user_id), key=_last_active_at, reverse=True)
            return [SessionSecure.model_validate(session) for session in sessions]

    async def list_all(
        self, actor: Actor, *, user_id: UUID | None = None, limit: int = 100, after: UUID | None = None
    ) -> Sequence[SessionAdmin]:
        """The same with what administrators see, of one user or of everybody, the one that began last first.

        Args:
            actor: a moderator.
            user_id: whose; by default everybody's.
            limit: the length of the page, 1000 at most.
            after: the id of the last session of the page before.

        Raises:
            PermissionDeniedError: when the actor may not see them.
            NotFoundError: the user does not exist.
        """
        require(actor, Permission.LIST_SESSIONS)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.LIST_SESSIONS)
            if user_id is not None:
                await tx.users.get(user_id)
            sessions = await tx.sessions.live(user_id, limit=limit, after=after)
            return [SessionAdmin.model_validate(session) for session in sessions]

    async def revoke(self, actor: Actor, session_id: UUID, *, reason: str = LOGGED_OUT) -> int:
        """End a session; how many that were: none when it had ended before.

        Raises:
            NotFoundError: when there is none, or the actor may not end it.
        """
        check_text("reason", reason)
        async with self._transactions() as tx:
            session = await tx.sessions.find_one(id=session_id)
            owner = await tx.users.get(session.user_id) if session else None
            if owner is None or not _may_revoke(await as_of_now(tx, actor), owner):
                raise NotFoundError(f"there is no session with the id {session_id}")
            ended = await tx.sessions.end(session_id, reason)
            for user_id in ended.user_ids:
                tx.add(_entry(AuditAction.SESSION_REVOKE, user_id, [session_id], "Session ended", reason=reason))
        return len(ended.ids)

    async def revoke_all(
        self, actor: Actor, user_id: UUID, *, keep: UUID | None = None, reason: str = LOGGED_OUT
    ) -> int:
        """End all sessions of a user, but for the one to keep; how many.

        Raises:
            PermissionDeniedError: when the actor may not do it.
            NotFoundError: the user does not exist.
        """
        check_text("reason", reason)
        require(actor, Permission.REVOKE_SESSIONS, owner=user_id)
        async with self._transactions() as tx:
            owner = await tx.users.get(user_id)
            actor = await as_of_now(tx, actor)
            require(actor, Permission.REVOKE_SESSIONS, owner=user_id, owner_role=owner.role)
            ended = await tx.sessions.end_all(user_id, reason, keep=keep)
            if ended.ids:
                tx.add(_entry(AuditAction.SESSION_REVOKE, user_id, ended.ids, "Sessions ended", reason=reason))
        return len(ended.ids)

    async def revoke_everything(self, actor: Actor, *, reason: str) -> int:
        """End the sessions of everybody, such as after a secret has leaked; how many. Safe to interrupt and repeat.

        Raises:
            PermissionDeniedError: when the actor may not do it.
        """
        check_text("reason", reason)
        require(actor, Permission.REVOKE_ALL_SESSIONS)
        count, ended = 0, _BATCH
        while ended == _BATCH:
            async with self._transactions() as tx:
                require(await as_of_now(tx, actor), Permission.REVOKE_ALL_SESSIONS)
                ended = len((await tx.sessions.end_some(reason, limit=_BATCH)).ids)
            count += ended
        async with self._transactions() as tx:
            tx.add(
                AuditLog.system_event(
                    AuditAction.SESSION_REVOKE,
                    "Sessions of everybody ended",
                    level=AuditLevel.WARNING,
                    resource_type="session",
                    new_values={"reason": reason, "count": count},
                )
            )
        return count

    async def read_data(self, session_id: UUID) -> SessionData:
        """What the application keeps for a session, as it is stored now.

        Raises:
            InvalidSessionError: when the session has ended.
        """
        async with self._transactions() as tx:
            return _required(await tx.sessions.read_data(session_id))

    async def write_data(self, session_id: UUID, values: dict[str, Any], *, version: int) -> SessionData:
        """Replace what is kept, if nobody has replaced it since ``version`` was read.

        Raises:
            ChangedMeanwhileError: when somebody has.
            InvalidSessionError: when the session has ended.
            InvalidValueError: when JSON cannot carry the values, or they are too large.
        """
        values = json_object_of("values", values)
        async with self._transactions() as tx:
            written = await tx.sessions.write_data(session_id, values, version)
            if written is None:
                _required(await tx.sessions.read_data(session_id))
                raise ChangedMeanwhileError("the data of the session were replaced by someone else; read them again")
        return SessionData(values=values, version=written)

    def _start(self) -> None:
        if not self._is_closed:
            self.changes.start()
            self.activity.start()


def _last_active_at(session: Session) -> datetime:
    return session.last_active_at


def _may_revoke(actor: Actor, owner: User) -> bool:
    return is_allowed(actor, Permission.REVOKE_SESSIONS, owner=owner.id, owner_role=owner.role)


def _required(value: Value | None) -> Value:
    if value is None:
        raise refused()
    return value


def _entry(action: AuditAction, user_id: UUID, sessions: Sequence[UUID], what: str, **values: Any) -> AuditLog:
    ids = [str(session_id) for session_id in sessions]
    return AuditLog.user_action(
        action,
        user_id,
        what,
        resource_type="session",
        resource_id=ids[0] if len(ids) == 1 else None,
        new_values=values if len(ids) == 1 else values | {"sessions": ids},
    )
