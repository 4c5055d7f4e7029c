"""Tokens of an issuer that come with a request: verified once, and worth what the account is worth now."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote
from uuid import UUID

from data_layer.cache import Cache
from data_layer.concurrency import SingleFlight, cancel_and_ignore
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import (
    AccountInactiveError,
    AccountSuspendedError,
    CacheError,
    DatabaseError,
    DataLayerError,
    EmailNotVerifiedError,
    IssuerError,
    UnverifiedIdentityError,
)
from data_layer.repositories.unit_of_work import Transactions
from data_layer.repositories.users import IdentifiedAccount, standing_key, subject_key
from data_layer.schemas.actors import Actor
from data_layer.schemas.base import Value
from data_layer.services.accounts import AccountService
from data_layer.services.openid.calls import IssuerCalls
from data_layer.services.openid.providers import OpenIdProvider
from data_layer.services.openid.tokens import LONGEST_TOKEN, VerifiedToken, refused, require_audience
from data_layer.services.sessions.watermark import Watermark
from data_layer.settings.openid import OpenIdSettings

_MOST_TOKENS = 10_000
_MOST_ACCOUNTS = 50_000
_SHARED_SECONDS = 0.25
_AWAY_SECONDS = 1.0
_SILENT_SECONDS = 2.0
"""After which time without an answer of the database the cache is asked."""
_REFUSED_SECONDS = 10.0
_REMEMBERED_SECONDS = 600
"""For how long the cache knows whose an identity is, and the role and status of the account: see ``_cached``."""
_REMINDED_SECONDS = 240.0
"""After which time that is stored again, so that most of it is left whenever the database goes away."""
_SUBJECT = "{sub}"


@dataclass(frozen=True, slots=True)
class _KnownAccount:
    """Whose identity it is, as the database had it: see ``services.sessions.watermark``."""

    actor: Actor
    user_id: UUID
    as_of: int
    server: str
    remembered_at: float


class _Standing(Value):
    """What the cache knows of an account."""

    role: UserRole
    status: UserStatus


class BearerTokens:
    """Says who holds a token of the issuer, without a session.

    A token is verified when it is first seen, and again only when the issuer no longer publishes its key. What the
    account may do is believed for as long as the journal of changed sessions vouches for it, in which an account stands
    by its own id: so one that is suspended, or whose identity is unlinked, is refused everywhere within two seconds,
    also if that was done by hand in SQL. While the database is away or silent, the account comes from the cache, also
    in a process that has not seen its owner before.

    Args:
        transactions: where identities are kept.
        accounts: makes and links accounts at the first visit.
        provider: the issuer.
        calls: asks OIDC_USER_URL.
        settings: what is believed.
        cache: remembers accounts for when the database is away.
        without_address: also people of whom the issuer vouches for no address get an account.
        watermark: the changes of accounts that this process knows.
        follow: begins to follow them.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        transactions: Transactions,
        accounts: AccountService,
        provider: OpenIdProvider,
        calls: IssuerCalls,
        settings: OpenIdSettings,
        *,
        cache: Cache,
        without_address: bool,
        watermark: Watermark,
        follow: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transactions = transactions
        self._accounts = accounts
        self._cache = cache
        self._without_address = without_address
        self._provider = provider
        self._calls = calls
        self._issuer = provider.configuration.issuer
        self._audience = settings.oidc_audience or settings.oidc_client_id or ""
        self._allowed_azp = settings.oidc_allowed_azp
        self._email_claim = settings.oidc_email_claim
        self._user_url = settings.oidc_user_url
        self._user_token = settings.oidc_user_token
        self._watermark = watermark
        self._follow = follow
        self._clock = clock
        self._tokens: dict[bytes, VerifiedToken] = {}
        self._known: dict[str, _KnownAccount] = {}
        self._refused: dict[str, tuple[float, DataLayerError]] = {}
        self._loads: SingleFlight[str, _KnownAccount] = SingleFlight(
            "identity", join_seconds=_SHARED_SECONDS, clock=clock
        )
        self._away_until = float("-inf")

    async def authenticate(self, token: str) -> Actor:
        """Return who holds a token.

        Raises:
            ExpiredTokenError: it was right until it expired.
            InvalidTokenError: it is not to be believed.
            UnverifiedIdentityError: nobody has come with this identity before, and it has no verified address.
            AccountSuspendedError: the account is suspended.
            AccountInactiveError: its owner has deactivated it.
            IssuerError: the issuer is needed to know, and does not answer.
            DatabaseError: that cannot be known at the moment.
        """
        if len(token) > LONGEST_TOKEN:
            raise refused("it is not a signed JWT")
        key = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        verified = self._tokens.get(key)
        if verified is None or not await self._provider.keys.has(verified.thumbprint):
            self._tokens.pop(key, None)
            verified = await self._verify(token)
            _keep(self._tokens, key, verified, _MOST_TOKENS)
        else:
            self._provider.verifier.require_current(verified)
        known = self._known.get(verified.subject)
        if known is not None and self._watermark.believes(self._clock(), known.as_of, known.server, known.user_id):
            if self._clock() > known.remembered_at + _REMINDED_SECONDS:
                known = await self._remind(verified.subject, known)
            return known.actor
        return (await self._look_up(verified, token)).actor

    async def close(self) -> None:
        """Wait for what is being looked up."""
        await self._loads.finish()

    async def _verify(self, token: str) -> VerifiedToken:
        verified = await self._provider.verifier.verify(token)
        require_audience(verified.claims, self._audience, self._allowed_azp, is_optional=True)
        if "cnf" in verified.claims:  # RFC 7800: worth something only with a proof, which nobody asks for here.
            raise refused("it is bound to a key, and the request does not prove that it has it")
        return verified

    async def _look_up(self, verified: VerifiedToken, token: str) -> _KnownAccount:
        self._follow()
        if self._clock() < self._away_until:
            try:
                return await self._cached(verified.subject)
            except DatabaseError:
                pass  # It may be back.
        try:
            return await self._load_unless_silent(verified, token)
        except DatabaseError:
            self._away_until = self._clock() + _AWAY_SECONDS
            return await self._cached(verified.subject)

    async def _load_unless_silent(self, verified: VerifiedToken, token: str) -> _KnownAccount:
        """The account from the database; from the cache if that has it and the database takes long to answer.

        A first visit may take long too, because the issuer is asked; the cache does not know its account.
        """
        loading = asyncio.create_task(self._loads.run(verified.subject, lambda: self._load(verified, token)))
        try:
            await asyncio.wait([loading], timeout=_SILENT_SECONDS)
            if not loading.done() and (known := await self._remembered(verified.subject)) is not None:
                self._away_until = self._clock() + _AWAY_SECONDS
                return known
            return await loading
        finally:
            cancel_and_ignore(loading)

    async def _remembered(self, subject: str) -> _KnownAccount | None:
        """What the cache has of an account, without asking the database.

        Raises:
            AuthenticationError: the account is not active.
        """
        with suppress(CacheError):
            user_id = await self._cache.get(subject_key(self._issuer, subject), as_type=str)
            if user_id is not None:
                found = await self._cache.get(standing_key(UUID(user_id)), as_type=_Standing)
                return None if found is None else self._known_account(UUID(user_id), found)
        return None

    async def _cached(self, subject: str, *, fresh: bool = False) -> _KnownAccount:
        """The account as the cache has it, from which a suspension and an unlinked identity remove it.

        Args:
            subject: whose it is.
            fresh: store what the database has, whatever the cache has.

        Raises:
            DatabaseError: the cache does not have it.
            AuthenticationError: it is not active.
        """

        async def whose() -> str:
            found = await self._find(subject)
            if found is None:
                raise UnverifiedIdentityError("the identity was unlinked; log in another way")
            return str(found.user_id)

        async def standing() -> _Standing:
            async with self._transactions() as tx:
                role, status = await tx.users.standing(user_id) or (UserRole.USER, UserStatus.INACTIVE)
            return _Standing(role=role, status=status)

        key = subject_key(self._issuer, subject)
        user_id = UUID(await self._cache.get_or_load(key, whose, _REMEMBERED_SECONDS, as_type=str, fresh=fresh))
        found = await self._cache.get_or_load(
            standing_key(user_id), standing, _REMEMBERED_SECONDS, as_type=_Standing, fresh=fresh
        )
        return self._known_account(user_id, found)

    def _known_account(self, user_id: UUID, standing: _Standing) -> _KnownAccount:
        _require_active(standing.status)
        return _KnownAccount(Actor.user(user_id, standing.role), user_id, 0, "", self._clock())

    async def _remind(self, subject: str, known: _KnownAccount) -> _KnownAccount:
        """Store again what is known of an account, for when the database is away."""
        known = replace(known, remembered_at=self._clock())
        _keep(self._known, subject, known, _MOST_ACCOUNTS)
        with suppress(DatabaseError, TimeoutError):
            async with asyncio.timeout(_SILENT_SECONDS):
                await self._cached(subject, fresh=True)
        return known

    async def _load(self, verified: VerifiedToken, token: str) -> _KnownAccount:
        found = await self._find(verified.subject)
        if found is None:
            await self._visit_first(verified, token)
            found = await self._find(verified.subject)
        if found is None:
            raise UnverifiedIdentityError("the identity was unlinked at this moment; log in another way")
        _require_active(found.status)
        actor = Actor.user(found.user_id, found.role)
        known = _KnownAccount(actor, found.user_id, found.as_of, found.server, self._clock())
        _keep(self._known, verified.subject, known, _MOST_ACCOUNTS)
        await self._cached(verified.subject, fresh=True)
        return known

    async def _find(self, subject: str) -> IdentifiedAccount | None:
        async with self._transactions() as tx:
            return await tx.identities.find_account(self._issuer, subject)

    async def _visit_first(self, verified: VerifiedToken, token: str) -> None:
        """Find or make the account of an identity that nobody knows yet; a refusal holds for some seconds."""
        until, error = self._refused.get(verified.subject, (0.0, None))
        if error is not None and self._clock() < until:
            raise error.with_traceback(None)
        try:
            person = self._provider.person(await self._claims(verified, token))
            identity = self._provider.identity(verified, person)
            await self._accounts.authenticate_external(identity, without_address=self._without_address)
        except (UnverifiedIdentityError, IssuerError) as refusal:
            _keep(self._refused, verified.subject, (self._clock() + _REFUSED_SECONDS, refusal), _MOST_TOKENS)
            raise

    async def _claims(self, verified: VerifiedToken, token: str) -> dict[str, Any]:
        """What the token says, or else the configured address, or else the issuer's userinfo."""
        claims = verified.claims
        if self._email_claim in claims:
            return claims
        if self._user_url is not None:
            url = self._user_url.replace(_SUBJECT, quote(verified.subject, safe=""))
            secret = None if self._user_token is None else self._user_token.get_secret_value()
            return claims | await self._calls.get(url, bearer=secret)
        try:
            return claims | await self._provider.userinfo(verified, token)
        except IssuerError as error:
            if error.status is not None and 400 <= error.status < 500:
                return claims  # The token is none for userinfo, such as a session token of a front end.
            raise


def _require_active(status: UserStatus) -> None:
    match status:
        case UserStatus.SUSPENDED:
            raise AccountSuspendedError("this account is suspended; ask the support for the reason")
        case UserStatus.INACTIVE:
            raise AccountInactiveError("this account is deactivated; log in to have it back")
        case UserStatus.PENDING:
            raise EmailNotVerifiedError("open the link in the mail first, or ask for another mail")


def _keep(values: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Keep a value, in place of those that came first where there are too many."""
    values.pop(key, None)
    while len(values) >= most:
        del values[next(iter(values))]
    values[key] = value
