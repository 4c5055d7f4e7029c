"""Logging in by an external provider: Azure AD, Google, GitHub, or any OpenID Connect issuer.

``ExternalIdentity`` says what must be verified before. An identity is known by the provider's ``subject`` alone. The
address that comes with it only matters the first time, and only if the provider has verified it; an unverified one
neither opens nor takes over an account.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from data_layer.entities import AuditLog, User, UserIdentity
from data_layer.entities.enums import AuditAction, AuthProvider, SessionType, UserStatus
from data_layer.errors import (
    AuthenticationError,
    ConflictError,
    DuplicateError,
    InvalidSessionError,
    LastLoginMethodError,
    UnverifiedIdentityError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import ANONYMOUS, Actor
from data_layer.schemas.factors import FactorProof
from data_layer.schemas.sessions import NewSession
from data_layer.schemas.users import ExternalIdentity, IdentityView, LoginMethods, UserFull, check_avatar
from data_layer.services.accounts.addresses import deliverable_email, placeholder_email
from data_layer.services.accounts.confirmations import Confirmations
from data_layer.services.accounts.dependencies import (
    IDENTITY_COLUMNS,
    AccountDependencies,
    changed,
    load_authorized,
    mark_verified,
    own_entry,
    require_usable,
    take_from_strangers,
)
from data_layer.services.accounts.login import check_texts, record_login
from data_layer.services.accounts.throttle import record_failed_login
from data_layer.services.permissions import Permission

Begin = Callable[[UnitOfWork, UUID], Awaitable[NewSession]]

log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class ExternalLogin:
    """The person who logged in, whether the account was made for it, and the session that has begun, if one has."""

    user: UserFull
    is_new: bool
    session: NewSession | None = None


class ExternalIdentities:
    """Identities that others vouch for."""

    def __init__(self, dependencies: AccountDependencies, confirmations: Confirmations) -> None:
        self._dependencies = dependencies
        self._confirmations = confirmations

    async def authenticate_external(
        self, identity: ExternalIdentity, *, reactivate: bool = False, without_address: bool = False
    ) -> ExternalLogin:
        """The account of an external identity; a new one, or the one with the same verified address, the first time.

        A registration that still waits for its address to be verified may be somebody else's ("pre-hijacking"): its
        password, identities and names are replaced by what the identity says. An account that is open although nobody
        has verified its address is not linked: what is in it may be somebody else's too.

        Args:
            identity: what the provider says, verified by the caller.
            reactivate: whether a deactivated account is to be active again.
            without_address: make an account for a new identity without a verified address, too; it gets an address that
                no mail reaches. Only identities of issuers can have one.

        Raises:
            UnverifiedIdentityError: a new identity without a verified address; or the address of its account is not
                verified, or the account has another identity of the provider already. Log in another way, verify the
                address, or use ``link``.
            AccountSuspendedError: a moderator has suspended the account.
            AccountInactiveError: its owner has deactivated it, and does not want it back.
        """
        return await self._log_in(identity, reactivate=reactivate, without_address=without_address, begin=None)

    async def log_in_external(
        self,
        identity: ExternalIdentity,
        *,
        kind: SessionType = SessionType.WEB,
        device_id: str | None = None,
        reactivate: bool = False,
    ) -> ExternalLogin:
        """Authenticate, and begin a session in the same transaction: see ``log_in``.

        Raises:
            AuthenticationError: see ``authenticate_external``.
        """
        check_texts(device_id, None)
        begin = partial(self._dependencies.sessions.begin, kind=kind, device_id=device_id)
        return await self._log_in(identity, reactivate=reactivate, without_address=False, begin=begin)

    async def list_identities(self, actor: Actor, user_id: UUID) -> LoginMethods:
        """The external identities by which somebody logs in, and whether there is a password.

        Raises:
            PermissionDeniedError: for anybody but the owner and administrators.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.UNLINK_IDENTITY, user_id, lock=False)
            return await _methods_of(tx, user)

    async def confirm_link(
        self,
        actor: Actor,
        user_id: UUID,
        *,
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> None:
        """Make sure that the owner wants an identity linked, before the browser goes to the issuer; see ``link``.

        Args:
            actor: the owner.
            user_id: the owner.
            password: that of the account, if it has one.
            proof: or else a second factor.
            challenge: of ``begin_confirmation``, where a passkey has answered it.

        Raises:
            PermissionDeniedError: for anybody but the owner.
            AuthenticationError: what was shown is not right; see ``remove_factor``.
            InvalidValueError: neither password nor proof was shown, and the account has one of them.
        """
        shown: dict[str, Any] = {"password": password, "proof": proof, "challenge": challenge}
        async with self._confirmations.confirmed(actor, Permission.LINK_IDENTITY, user_id, **shown):
            log.info("link_confirmed", user_id=user_id)

    async def link(
        self, actor: Actor, user_id: UUID, identity: ExternalIdentity, *, session_id: UUID | None = None
    ) -> UserFull:
        """Let the owner of an account also log in by an external identity; its address does not matter.

        Args:
            actor: the owner.
            user_id: the owner.
            identity: what the provider says, verified by the caller.
            session_id: the session in which it was begun, which must not have ended meanwhile.

        Raises:
            PermissionDeniedError: for anybody but the owner.
            InvalidSessionError: the session has ended.
            DuplicateError: the identity belongs to another account.
            ConflictError: the account has another identity of the provider; unlink that first.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.LINK_IDENTITY, user_id)
            if session_id is not None and not await tx.sessions.find_active_by_id(session_id):
                raise InvalidSessionError("the session in which this was begun has ended; log in and begin again")
            known = await _subject_of(tx, user, identity)
            if known not in {None, identity.subject}:
                raise ConflictError(f"the account has another {identity.provider} identity: unlink it first")
            if known is None:
                _attach_to(tx, user, identity)
                tx.add(_linked(actor, user, identity.provider))
                await tx.flush()
            return UserFull.model_validate(user)

    async def unlink(
        self,
        actor: Actor,
        user_id: UUID,
        provider: AuthProvider,
        *,
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> UserFull:
        """Forget an external identity; for ``oidc`` those of all issuers. Their tokens are refused within two seconds.

        A passkey does not count as another way to log in here: the device may have lost it.

        Args:
            actor: the owner, who confirms it, or an administrator.
            user_id: whose.
            provider: of which identity.
            password: that of the account, if it has one.
            proof: or else a second factor.
            challenge: of ``begin_confirmation``, where a passkey has answered it.

        Raises:
            AuthenticationError: what the owner has shown is not right; see ``remove_factor``.
            InvalidValueError: neither password nor proof was shown, and the account has one of them.
            ConflictError: the account has none of this provider.
            LastLoginMethodError: it is the only way to log in: set a password by resetting it, or link another one.
        """
        shown = {"password": password, "proof": proof, "challenge": challenge}
        async with self._about_to_unlink(actor, user_id, **shown) as (tx, user):
            methods = await _methods_of(tx, user)
            ways = dict.fromkeys(each.provider for each in methods.identities)
            if provider not in ways:
                raise ConflictError(f"the account has no {provider} identity")
            others = [way for way in ways if way != provider]
            if not others and not methods.has_password:
                raise LastLoginMethodError("this is the only way to log in: set a password or link another one first")
            if provider is AuthProvider.OIDC:
                await tx.identities.remove(user_id)
            else:
                setattr(user, IDENTITY_COLUMNS[provider], None)
            if user.auth_provider == provider:
                user.auth_provider = AuthProvider.LOCAL if methods.has_password else others[0]
            entry = changed(actor, AuditAction.USER_UPDATE_PROFILE, user, "Unlinked an external identity")
            entry.old_values |= _of(provider)
            tx.add(entry)
            await tx.flush()
            return UserFull.model_validate(user)

    @asynccontextmanager
    async def _about_to_unlink(
        self, actor: Actor, user_id: UUID, **shown: Any
    ) -> AsyncIterator[tuple[UnitOfWork, User]]:
        """Yield a transaction for the owner, who confirms it, or for somebody who may do it for others."""
        if actor.user_id == user_id:
            async with self._confirmations.confirmed(actor, Permission.UNLINK_IDENTITY, user_id, **shown) as confirmed:
                yield confirmed
        else:
            async with self._dependencies.transactions() as tx:
                yield tx, await load_authorized(tx, actor, Permission.UNLINK_IDENTITY, user_id)

    async def _log_in(self, identity: ExternalIdentity, **options: Any) -> ExternalLogin:
        try:
            try:
                return await self._complete_login(identity, **options)
            except DuplicateError:
                # The same person at the same moment, in another tab: now the account is there.
                return await self._complete_login(identity, **options)
        except AuthenticationError as error:
            record_failed_login(self._dependencies.audit, None, error)
            raise

    async def _complete_login(
        self, identity: ExternalIdentity, *, reactivate: bool, without_address: bool, begin: Begin | None
    ) -> ExternalLogin:
        is_new = False
        async with self._dependencies.transactions() as tx:
            user = await _owner_of(tx, identity)
            if user is None:
                user, is_new = await self._first_time(tx, identity, without_address=without_address)
            user = await tx.users.get(user.id, lock=True)
            if await _subject_of(tx, user, identity) != identity.subject:
                raise UnverifiedIdentityError("the identity was unlinked at this moment; log in another way")
            if require_usable(user, reactivate=reactivate):
                tx.add(changed(ANONYMOUS, AuditAction.USER_UPDATE_PROFILE, user, "Reactivated by logging in"))
            await record_login(tx, user, "Logged in with another service", new_values=_of(identity.provider))
            session = None if begin is None else await begin(tx, user.id)
            return ExternalLogin(UserFull.model_validate(user), is_new, session)

    async def _first_time(
        self, tx: UnitOfWork, identity: ExternalIdentity, *, without_address: bool
    ) -> tuple[User, bool]:
        if not identity.email_verified or identity.email is None:
            if without_address and identity.issuer is not None:
                return await self._register(tx, _new_user_without_address(identity.issuer, identity), identity), True
            raise UnverifiedIdentityError(
                f"{identity.provider} vouches for no address: log in another way, and link the identity then"
            )
        email = deliverable_email(identity.email)
        found = await tx.users.find_one(email=email)
        if found is not None:
            return await self._attach(tx, found.id, email, identity), False
        user = _new_user(email, identity)
        mark_verified(user)
        return await self._register(tx, user, identity), True

    async def _register(self, tx: UnitOfWork, user: User, identity: ExternalIdentity) -> User:
        tx.add(user)
        _attach_to(tx, user, identity)
        description = "Registered with another service"
        values = _of(identity.provider)
        tx.add(own_entry(ANONYMOUS, AuditAction.USER_REGISTER, user.id, description, new_values=values))
        await tx.flush()
        return user

    async def _attach(self, tx: UnitOfWork, user_id: UUID, email: str, identity: ExternalIdentity) -> User:
        """Link an identity to the account with its verified address."""
        user = await tx.users.get(user_id, lock=True)
        if user.email != email:
            raise DuplicateError("the account was deleted at this moment; log in again", field="email")
        if user.status is UserStatus.PENDING:
            await self._take_from_strangers(tx, user, identity)
        elif not user.email_verified:
            raise UnverifiedIdentityError(
                "there is an account with this address, which nobody has verified: log in to it another way, verify "
                "the address, and try again"
            )
        if await _subject_of(tx, user, identity) not in {None, identity.subject}:
            raise UnverifiedIdentityError(
                f"the account with this address has another {identity.provider} identity: log in, and unlink it first"
            )
        _attach_to(tx, user, identity)
        tx.add(_linked(ANONYMOUS, user, identity.provider))
        await tx.flush()
        return user

    async def _take_from_strangers(self, tx: UnitOfWork, user: User, identity: ExternalIdentity) -> None:
        fresh = _new_user(user.email, identity)
        user.first_name, user.last_name, user.display_name = fresh.first_name, fresh.last_name, fresh.display_name
        mark_verified(user)
        tx.add(changed(ANONYMOUS, AuditAction.USER_VERIFY_EMAIL, user, "Verified by an external identity"))
        await take_from_strangers(tx, user, reason="identity_verified")


def _new_user(email: str, identity: ExternalIdentity) -> User:
    """An account made of what the provider says; texts that do not fit are shortened."""
    names = (identity.display_name or email.partition("@")[0]).split(maxsplit=1)
    return User(
        email=email,
        first_name=(identity.first_name or names[0])[:100],
        last_name=(identity.last_name or "".join(names[1:]))[:100],
        display_name=identity.display_name[:255] if identity.display_name else None,
        avatar=_usable_avatar(identity.avatar),
        auth_provider=identity.provider,
    )


def _new_user_without_address(issuer: str, identity: ExternalIdentity) -> User:
    """An account that is known by its identity alone; an address that nobody has verified is not taken over."""
    named = identity.model_copy(update={"display_name": identity.display_name or "User"})
    return _new_user(placeholder_email(issuer, identity.subject), named)


async def _methods_of(tx: UnitOfWork, user: User) -> LoginMethods:
    columns = [
        IdentityView(provider=provider, issuer=None, subject=getattr(user, name))
        for provider, name in IDENTITY_COLUMNS.items()
        if getattr(user, name)
    ]
    rows = [
        IdentityView(provider=AuthProvider.OIDC, issuer=each.issuer, subject=each.subject)
        for each in await tx.identities.list(user_id=user.id)
    ]
    has_password = await tx.users.secret(user.id, "password_hash") is not None
    return LoginMethods(has_password=has_password, identities=(*columns, *rows))


async def _owner_of(tx: UnitOfWork, identity: ExternalIdentity) -> User | None:
    """The account that an identity belongs to."""
    if identity.issuer is None:
        return await tx.users.find_one(**{IDENTITY_COLUMNS[identity.provider]: identity.subject})
    known = await tx.identities.find_one(issuer=identity.issuer, subject=identity.subject)
    return None if known is None else await tx.users.find_one(id=known.user_id)


async def _subject_of(tx: UnitOfWork, user: User, identity: ExternalIdentity) -> str | None:
    """The subject of an account at the provider of an identity; None if it has no identity there."""
    if identity.issuer is None:
        subject: str | None = getattr(user, IDENTITY_COLUMNS[identity.provider])
        return subject
    known = await tx.identities.find_one(issuer=identity.issuer, user_id=user.id)
    return None if known is None else known.subject


def _attach_to(tx: UnitOfWork, user: User, identity: ExternalIdentity) -> None:
    if identity.issuer is None:
        setattr(user, IDENTITY_COLUMNS[identity.provider], identity.subject)
    else:
        tx.add(UserIdentity(user_id=user.id, issuer=identity.issuer, subject=identity.subject))


def _usable_avatar(avatar: str | None) -> str | None:
    try:
        return check_avatar(avatar) if avatar and avatar.startswith("https://") else None
    except ValueError:
        return None


def _linked(actor: Actor, user: User, provider: AuthProvider) -> AuditLog:
    entry = changed(actor, AuditAction.USER_UPDATE_PROFILE, user, "Linked an external identity")
    entry.new_values |= _of(provider)
    return entry


def _of(provider: AuthProvider) -> dict[str, Any]:
    return {"provider": str(provider)}
