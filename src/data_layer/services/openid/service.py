"""What can be done with issuers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from data_layer.cache import Cache
from data_layer.errors import InvalidLoginError, InvalidTokenError, NotFoundError, PermissionDeniedError
from data_layer.extras import require_extra
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.factors import FactorProof
from data_layer.services.accounts import AccountService, ExternalLogin
from data_layer.services.arguments import checks_arguments
from data_layer.services.openid.bearer import BearerTokens
from data_layer.services.openid.calls import IssuerCalls
from data_layer.services.openid.providers import (
    Callback,
    OpenIdProvider,
    Provider,
    ProviderConfiguration,
    make_provider,
)
from data_layer.services.openid.states import LIFETIME, LinkRequest, LoginStates, cookie_name
from data_layer.services.openid.tokens import algorithm_of
from data_layer.services.sessions import SessionCopies, SessionService
from data_layer.settings.openid import OpenIdSettings
from data_layer.settings.security import SecuritySettings

OWN_ALGORITHM = "HS256"
"""That of our own access tokens, which no issuer may use."""


@dataclass(frozen=True, slots=True)
class LoginProvider:
    """Whom people can log in by: its name in paths, what its button says, and the redirect URI that it must know."""

    name: str
    label: str
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class LoginStart:
    """Where a browser is sent to, and the cookie that it must bring back within ``lifetime`` seconds."""

    url: str
    cookie_name: str
    cookie: str
    lifetime: int


@dataclass(frozen=True, slots=True)
class LoginOrigin:
    """The page to which somebody wanted to go on, and whether an identity was to be linked."""

    path: str
    is_link: bool


@dataclass(frozen=True, slots=True)
class FinishedLogin:
    """The person who logged in, the session that has begun, and where to go on.

    ``login`` is None where an identity was linked: the session goes on.
    """

    login: ExternalLogin | None
    next_path: str


@checks_arguments
class OpenIdService:
    """People who prove by an issuer who they are, ``data.openid``.

    Args:
        configurations: the providers.
        settings: what is believed of the issuer's tokens.
        security: the secrets.
        accounts: of people.
        sessions: reports which accounts have changed.
        copies: what is known of that.
        transactions: where identities are kept.
        cache: remembers accounts for when the database is away.
        without_address: people of whom the issuer vouches for no address get an account, too.
    """

    def __init__(
        self,
        configurations: Sequence[ProviderConfiguration],
        settings: OpenIdSettings,
        security: SecuritySettings,
        *,
        accounts: AccountService,
        sessions: SessionService,
        copies: SessionCopies,
        transactions: Transactions,
        cache: Cache,
        without_address: bool = False,
    ) -> None:
        if configurations:
            require_extra("openid", "logging in by an issuer", "httpx", "joserfc")
        self._accounts = accounts
        self._states = LoginStates(security)
        self._calls = IssuerCalls(settings.oidc_timeout)
        providers = [make_provider(configuration, settings, self._calls) for configuration in configurations]
        self._all: dict[str, Provider] = {provider.configuration.kind: provider for provider in providers}
        self._bearer: BearerTokens | None = None
        issuer = self._all.get("oidc")
        if settings.oidc_accept_bearer and isinstance(issuer, OpenIdProvider):
            self._bearer = BearerTokens(
                transactions,
                accounts,
                issuer,
                self._calls,
                settings,
                cache=cache,
                without_address=without_address,
                watermark=copies.watermark,
                follow=sessions.follow_changes,
            )

    @property
    def providers(self) -> Sequence[LoginProvider]:
        """Whom people can log in by."""
        return [
            LoginProvider(name, provider.configuration.label, provider.configuration.redirect_uri)
            for name, provider in self._all.items()
            if provider.configuration.client_id is not None
        ]

    async def begin_login(self, provider: str, *, next_path: str = "/") -> LoginStart:
        """Return where a browser logs in.

        Args:
            provider: the name of one of ``providers``.
            next_path: where to go on afterwards, a path of this host.

        Raises:
            NotFoundError: the provider does not exist.
            InvalidValueError: the path leads elsewhere.
            IssuerError: the issuer does not answer, or with something that cannot be used.
        """
        chosen = self._provider(provider)
        login, cookie = self._states.begin(provider, next_path)
        url = await chosen.authorization_url(login)
        return LoginStart(url, cookie_name(login.state) or "", cookie, LIFETIME)

    async def begin_link(
        self,
        actor: Actor,
        session_id: UUID,
        provider: str,
        *,
        next_path: str = "/",
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> LoginStart:
        """Return where the actor proves an identity by which they can log in from then on.

        ``finish_login`` links it, in this browser, as long as the session lasts.

        Args:
            actor: whose account.
            session_id: the session in which it is asked for.
            provider: the name of one of ``providers``.
            next_path: where to go on afterwards, a path of this host.
            password: that of the account, if it has one.
            proof: or else a second factor.
            challenge: of ``accounts.begin_confirmation``, where a passkey has answered it.

        Raises:
            NotFoundError: the provider does not exist.
            AuthenticationError: what was shown is not right; see ``accounts.confirm_link``.
            InvalidValueError: the path leads elsewhere; or neither password nor proof was shown.
            IssuerError: the issuer does not answer, or with something that cannot be used.
        """
        chosen = self._provider(provider)
        if actor.user_id is None:
            raise PermissionDeniedError("an identity belongs to a person: log in")
        login, cookie = self._states.begin(provider, next_path, LinkRequest(actor.user_id, session_id))
        url = await chosen.authorization_url(login)
        await self._accounts.confirm_link(actor, actor.user_id, password=password, proof=proof, challenge=challenge)
        return LoginStart(url, cookie_name(login.state) or "", cookie, LIFETIME)

    async def finish_login(
        self,
        provider: str,
        *,
        state: str,
        cookie: str | None,
        code: str | None = None,
        error: str | None = None,
        issuer: str | None = None,
    ) -> FinishedLogin:
        """Take what came back from the issuer, and begin a session, or link the identity: see ``begin_link``.

        Args:
            provider: the name of one of ``providers``.
            state: as it came back.
            cookie: of this state, from the browser; remove it there, whatever the outcome.
            code: what is exchanged for who it is.
            error: what went wrong instead.
            issuer: who says so (RFC 9207).

        Raises:
            NotFoundError: the provider does not exist.
            InvalidLoginError: the login was not begun in this browser, took too long, or was used before.
            LoginDeniedError: the person or the issuer has refused.
            InvalidTokenError: the ID token is not to be believed.
            AuthenticationError: the account cannot be used; see ``accounts.log_in_external`` and ``accounts.link``.
            ConflictError: the identity cannot be linked; see ``accounts.link``.
            IssuerError: the issuer does not answer, or with something that cannot be used.
        """
        chosen = self._provider(provider)
        login = self._states.resume(provider, state, cookie)
        callback = Callback(code, error, issuer)
        identity = await chosen.identify(callback, login)
        if (link := login.link) is not None:
            owner = Actor.user(link.user_id)
            await self._accounts.link(owner, link.user_id, identity, session_id=link.session_id)
            return FinishedLogin(None, login.next_path)
        return FinishedLogin(await self._accounts.log_in_external(identity), login.next_path)

    def origin(self, provider: str, *, state: str, cookie: str | None) -> LoginOrigin | None:
        """Where this browser has begun to log in or to link; None if it has not, or longer ago than ten minutes."""
        try:
            login = self._states.resume(provider, state, cookie)
        except InvalidLoginError:
            return None
        return LoginOrigin(login.next_path.partition("?")[0], is_link=login.link is not None)

    def accepts(self, token: str) -> bool:
        """Whether a bearer token is one of the issuer rather than one of our own, if it is any; nothing is verified."""
        return self._bearer is not None and algorithm_of(token) != OWN_ALGORITHM

    async def authenticate(self, token: str) -> Actor:
        """Return who holds a bearer token of the issuer; an unknown person with a verified address gets an account.

        Raises:
            AuthenticationError: the token is not accepted, or its account cannot be used.
            IssuerError: the issuer is needed to know, and does not answer.
            DatabaseError: that cannot be known at the moment.
        """
        if self._bearer is None:
            raise InvalidTokenError("tokens of an issuer are not accepted here; see OIDC_ACCEPT_BEARER")
        return await self._bearer.authenticate(token)

    async def check(self, provider: str) -> str:
        """Ask a provider for what is needed to log in, and return what answered.

        Raises:
            NotFoundError: the provider does not exist.
            IssuerError: it does not answer, or with something that cannot be used.
        """
        found = self._all.get(provider)
        if found is None:
            raise NotFoundError(f"there is no provider {provider!r}")
        return await found.check()

    async def close(self) -> None:
        """Close connections, and stop what runs behind."""
        if self._bearer is not None:
            await self._bearer.close()
        for provider in self._all.values():
            await provider.close()
        await self._calls.close()

    def _provider(self, name: str) -> Provider:
        provider = self._all.get(name)
        if provider is None or provider.configuration.client_id is None:
            raise NotFoundError("nobody can log in by a provider of this name")
        return provider
