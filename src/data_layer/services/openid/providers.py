"""Whom people can log in by: an OpenID Connect issuer, with Google and Microsoft Entra among them, or GitHub.

What an issuer says about itself follows OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from pydantic import SecretStr

from data_layer.entities.enums import AuthProvider
from data_layer.errors import InvalidLoginError, IssuerError, IssuerUnavailableError, LoginDeniedError
from data_layer.schemas.users import ExternalIdentity
from data_layer.services.openid.calls import IssuerCalls
from data_layer.services.openid.keys import IssuerKeys, read_keys
from data_layer.services.openid.persons import Person, read_person
from data_layer.services.openid.renewal import Renewed
from data_layer.services.openid.states import PendingLogin
from data_layer.services.openid.tokens import TokenVerifier, VerifiedToken, refused, require_audience, require_hash
from data_layer.settings.openid import OpenIdSettings, ProviderKind

DISCOVERY_PATH = "/.well-known/openid-configuration"
_LONGEST_URL = 2048


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where an issuer is asked for what.

    ``names_itself``: it says in its answers who it is (RFC 9207), so an answer without that is not its own.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    takes_basic: bool
    names_itself: bool


def read_metadata(document: dict[str, Any], configured: str, is_issuer: Callable[[str], bool]) -> Metadata:
    """Read a discovery document.

    Args:
        document: as it was sent.
        configured: the issuer of the settings, for messages and for the scheme that addresses must have.
        is_issuer: whether the document may be that of this issuer; otherwise another one could speak for it.

    Raises:
        IssuerError: it is of another issuer, or lacks an address that can be used.
    """
    issuer = document.get("issuer")
    if not isinstance(issuer, str) or not is_issuer(issuer):
        raise IssuerError(f"the discovery document of {configured} is of another issuer; write OIDC_ISSUER as it does")
    is_secure = configured.startswith("https://")

    def address(name: str) -> str:
        value = document.get(name)
        if not isinstance(value, str) or not _is_address(value, is_secure=is_secure):
            raise IssuerError(f"the discovery document of {configured} has no {name} that can be used")
        return value

    # RFC 8414: without a list it is client_secret_basic.
    methods = document.get("token_endpoint_auth_methods_supported")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=address("authorization_endpoint"),
        token_endpoint=address("token_endpoint"),
        jwks_uri=address("jwks_uri"),
        userinfo_endpoint=address("userinfo_endpoint") if document.get("userinfo_endpoint") is not None else None,
        takes_basic=not isinstance(methods, list) or "client_secret_basic" in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _is_address(value: str, *, is_secure: bool) -> bool:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    schemes = {"https"} if is_secure else {"http", "https"}
    is_plain = value.isascii() and value.isprintable() and " " not in value and len(value) <= _LONGEST_URL
    return (
        is_plain and parts.scheme in schemes and bool(parts.hostname) and "@" not in parts.netloc and not parts.fragment
    )


GOOGLE = "https://accounts.google.com"
GITHUB = "https://github.com"
GITHUB_API = "https://api.github.com"
ENTRA = "https://login.microsoftonline.com"

_OK = 200
_METADATA_LIFETIME = 3600.0
_KEYS_LIFETIME = 600.0
_PAUSE = 3.0
"""Seconds between two questions for the same thing, so that made-up names of keys cost an issuer nothing."""

_SHARED_TENANTS = frozenset({"common", "organizations", "consumers"})
_TENANT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_CODE = 4096
_ERROR = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class ProviderConfiguration:
    """How one provider is asked.

    Attributes:
        kind: Which; also its name in paths.
        label: What its button says.
        base: Its address: the issuer; of Entra and GitHub the host that their addresses begin with.
        redirect_uri: Where people come back to.
        client_id: What it calls us; None: nobody logs in by it, and only its tokens are accepted.
        client_secret: The secret of this client.
        scopes: What is asked for.
        tenant: Of Entra.
        api: Of GitHub, where users are described.
    """

    kind: ProviderKind
    label: str
    base: str
    redirect_uri: str
    client_id: str | None
    client_secret: SecretStr | None = None
    scopes: str = "openid email profile"
    tenant: str = ""
    api: str = ""

    @property
    def issuer(self) -> str:
        """Whose discovery document describes it."""
        return f"{self.base}/{self.tenant}/v2.0" if self.kind == "entra" else self.base


def configured_providers(settings: OpenIdSettings, public_url: str) -> list[ProviderConfiguration]:
    """Return the providers of the settings.

    Args:
        settings: the ``oidc_`` ones.
        public_url: where clients reach the service; people come back to it, whatever a request calls the host.
    """
    bases = {"google": ("Google", GOOGLE), "github": ("GitHub", GITHUB), "entra": ("Microsoft", ENTRA)}
    kinds: list[ProviderKind] = list(settings.login_kinds)
    if settings.oidc_issuer is not None:
        bases["oidc"] = (settings.oidc_name, settings.oidc_issuer)
        kinds = ["oidc", *(kind for kind in kinds if kind != "oidc")]
    own = {
        "oidc": {"scopes": settings.oidc_scopes},
        "github": {"scopes": "read:user user:email", "api": GITHUB_API},
        "entra": {"tenant": settings.oidc_entra_tenant},
    }
    return [
        ProviderConfiguration(
            kind,
            *bases[kind],
            redirect_uri=f"{public_url}/v1/oidc/{kind}/callback",
            client_id=settings.client_id(kind),
            client_secret=settings.client_secret(kind),
            **own.get(kind, {}),
        )
        for kind in kinds
    ]


@dataclass(frozen=True, slots=True)
class Callback:
    """What came back to the redirect URI: a code, or an error; ``issuer`` is who says so (RFC 9207)."""

    code: str | None = None
    error: str | None = None
    issuer: str | None = None


class Provider(Protocol):
    """Somebody whom people can log in by."""

    @property
    def configuration(self) -> ProviderConfiguration:
        """How it is asked."""

    async def authorization_url(self, login: PendingLogin) -> str:
        """Where a login begins."""

    async def identify(self, callback: Callback, login: PendingLogin) -> ExternalIdentity:
        """Return whose login this is."""

    async def check(self) -> str:
        """Ask what is needed for a login, and return what answered."""

    async def close(self) -> None:
        """Stop what runs behind."""


class OpenIdProvider:
    """An issuer of OpenID Connect: the authorization code flow with PKCE.

    Args:
        configuration: how it is asked.
        settings: what is believed of its tokens.
        calls: asks it.
    """

    def __init__(self, configuration: ProviderConfiguration, settings: OpenIdSettings, calls: IssuerCalls) -> None:
        self.configuration = configuration
        self._calls = calls
        self._exchange = CodeExchange(calls, configuration)
        self._is_generic = configuration.kind == "oidc"
        self._allowed_azp: Collection[str] = settings.oidc_allowed_azp if self._is_generic else ()
        self._email_claim = settings.oidc_email_claim if self._is_generic else "email"
        self._trust_email = settings.oidc_trust_email and self._is_generic
        name = configuration.issuer
        self._metadata = Renewed(f"discovery of {name}", self._discover, lifetime=_METADATA_LIFETIME, pause=_PAUSE)
        self._keys = Renewed(f"keys of {name}", self._load_keys, lifetime=_KEYS_LIFETIME, pause=_PAUSE)
        self.keys = IssuerKeys(self._keys)
        self.verifier = TokenVerifier(self.keys, self._is_issuer_of, leeway=settings.oidc_clock_leeway)

    async def metadata(self) -> Metadata:
        """What the issuer says about itself.

        Raises:
            IssuerError: it does not, or something that cannot be used.
        """
        return await self._metadata.get()

    async def authorization_url(self, login: PendingLogin) -> str:
        """Where a login begins.

        Raises:
            IssuerError: see ``metadata``.
        """
        metadata = await self._metadata.get()
        query = _query_of(self.configuration, login) | {"nonce": login.nonce}
        return _with_query(metadata.authorization_endpoint, query)

    async def identify(self, callback: Callback, login: PendingLogin) -> ExternalIdentity:
        """Return whose login this is.

        Raises:
            LoginDeniedError: the person, or the provider, has refused it.
            InvalidLoginError: the code was used before, is old, or is of somebody else.
            InvalidTokenError: the ID token is not to be believed.
            IssuerError: the issuer does not answer, or with something that cannot be used.
        """
        metadata = await self._metadata.get()
        # An error may come from elsewhere too, so this is first ("mix-up", RFC 9207).
        is_foreign = metadata.names_itself if callback.issuer is None else not self._may_describe(callback.issuer)
        if is_foreign:
            raise InvalidLoginError("the answer is of another issuer than the one that was asked; begin again")
        code = _code_of(callback)
        answer = await self._exchange.tokens(metadata.token_endpoint, code, login, basic=metadata.takes_basic)
        id_token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(id_token, str):
            raise IssuerError(f"{self.configuration.issuer} sent no ID token; the scopes must include openid")
        verified = await self.verifier.verify(id_token)
        require_audience(verified.claims, self.configuration.client_id or "", self._allowed_azp, is_optional=False)
        nonce = verified.claims.get("nonce")
        if not isinstance(nonce, str) or not compare_digest(nonce.encode("utf-8", "replace"), login.nonce.encode()):
            raise refused("it is not of this login (nonce)")
        claims = verified.claims
        if isinstance(access_token, str):
            require_hash(claims, "at_hash", verified.alg, access_token)
            if self._email_claim not in claims and metadata.userinfo_endpoint is not None:
                claims = claims | await self.userinfo(verified, access_token)
        return self.identity(verified, self.person(claims))

    async def userinfo(self, token: VerifiedToken, access_token: str) -> dict[str, Any]:
        """What the issuer says of the subject of a token.

        Raises:
            InvalidTokenError: it speaks of somebody else (Core 5.3.2).
            IssuerError: it does not answer, or with something that cannot be used.
        """
        metadata = await self._metadata.get()
        if metadata.userinfo_endpoint is None:
            return {}
        answer = await self._calls.get(metadata.userinfo_endpoint, bearer=access_token)
        if answer.get("sub") != token.subject:
            raise refused("its userinfo is of somebody else")
        return answer

    def person(self, claims: dict[str, Any]) -> Person:
        """What claims say of a person."""
        return read_person(claims, email_claim=self._email_claim, trust_email=self._trust_email)

    def identity(self, token: VerifiedToken, person: Person) -> ExternalIdentity:
        """What is known of the subject of a token, as accounts take it."""
        subject, values = token.subject, _values_of(person)
        match self.configuration.kind:
            case "google":
                return ExternalIdentity(provider=AuthProvider.GOOGLE, subject=subject, **values)
            case "entra":
                return _entra_identity(token, values, self.configuration.tenant)
            case _:
                issuer = self.configuration.issuer
                return ExternalIdentity(provider=AuthProvider.OIDC, issuer=issuer, subject=subject, **values)

    async def check(self) -> str:
        """Ask for discovery and keys, and return what answered.

        Raises:
            IssuerError: see ``metadata``.
        """
        metadata = await self._metadata.renew()
        keys = await self._keys.renew()
        return f"{metadata.issuer}, with {len(keys)} keys"

    async def close(self) -> None:
        """Stop what runs behind."""
        await self._metadata.close()
        await self._keys.close()

    async def _discover(self) -> Metadata:
        url = self.configuration.issuer.rstrip("/") + DISCOVERY_PATH
        return read_metadata(await self._calls.get(url), self.configuration.issuer, self._may_describe)

    async def _load_keys(self) -> Any:
        metadata = await self._metadata.get()
        return read_keys(await self._calls.get(metadata.jwks_uri), urlsplit(metadata.jwks_uri).netloc)

    def _may_describe(self, issuer: str) -> bool:
        """Whether a discovery document is of this issuer; that of a shared tenant of Entra has a template."""
        if self.configuration.kind == "entra" and self.configuration.tenant in _SHARED_TENANTS:
            prefix, suffix = f"{self.configuration.base}/", "/v2.0"
            tenant = issuer.removeprefix(prefix).removesuffix(suffix)
            is_tenant = tenant == "{tenantid}" or _TENANT.fullmatch(tenant) is not None
            return is_tenant and issuer == f"{prefix}{tenant}{suffix}"
        return issuer == self.configuration.issuer

    def _is_issuer_of(self, claims: dict[str, Any]) -> bool:
        """Whether a token is of this issuer; one of a shared tenant of Entra is of the tenant that it names."""
        issuer = claims.get("iss")
        if self.configuration.kind != "entra" or self.configuration.tenant not in _SHARED_TENANTS:
            return bool(issuer == self.configuration.issuer)
        tenant = claims.get("tid")
        is_tenant = isinstance(tenant, str) and _TENANT.fullmatch(tenant) is not None
        return is_tenant and issuer == f"{self.configuration.base}/{tenant}/v2.0"


class GitHubProvider:
    """GitHub: OAuth 2 with PKCE, and its API for who that is. The id of a user counts, never the login name.

    Args:
        configuration: how it is asked.
        calls: asks it.
    """

    def __init__(self, configuration: ProviderConfiguration, calls: IssuerCalls) -> None:
        self.configuration = configuration
        self._calls = calls
        self._exchange = CodeExchange(calls, configuration)

    async def authorization_url(self, login: PendingLogin) -> str:
        """Where a login begins."""
        query = _query_of(self.configuration, login)
        return _with_query(f"{self.configuration.base}/login/oauth/authorize", query)

    async def identify(self, callback: Callback, login: PendingLogin) -> ExternalIdentity:
        """Return whose login this is, with the primary address if GitHub has verified it.

        Raises:
            LoginDeniedError: the person, or the provider, has refused it.
            InvalidLoginError: the code was used before, is old, or is of somebody else.
            IssuerError: GitHub does not answer, or with something that cannot be used.
        """
        url = f"{self.configuration.base}/login/oauth/access_token"
        code = _code_of(callback)
        answer = await self._exchange.tokens(url, code, login, basic=False)
        token = answer.get("access_token")
        if not isinstance(token, str):
            raise IssuerError("GitHub sent no access token")
        user = await self._calls.get(f"{self.configuration.api}/user", bearer=token)
        addresses = await self._calls.get_list(f"{self.configuration.api}/user/emails", bearer=token)
        user_id = user.get("id")
        if not isinstance(user_id, int) or isinstance(user_id, bool):
            raise IssuerError("GitHub described a user without an id")
        primary = next((one for one in addresses if isinstance(one, dict) and one.get("primary") is True), {})
        known = {"name": user.get("name") or user.get("login"), "picture": user.get("avatar_url")}
        known |= {"email": primary.get("email"), "email_verified": primary.get("verified") is True}
        return ExternalIdentity(provider=AuthProvider.GITHUB, subject=str(user_id), **_values_of(read_person(known)))

    async def check(self) -> str:
        """Ask whether the API answers; more cannot be asked without a code of somebody.

        Raises:
            IssuerError: it does not.
        """
        await self._calls.get(f"{self.configuration.api}/rate_limit")
        return self.configuration.base

    async def close(self) -> None:
        """Nothing runs behind."""


def make_provider(configuration: ProviderConfiguration, settings: OpenIdSettings, calls: IssuerCalls) -> Provider:
    """Return the provider that a configuration describes."""
    if configuration.kind == "github":
        return GitHubProvider(configuration, calls)
    return OpenIdProvider(configuration, settings, calls)


def _query_of(configuration: ProviderConfiguration, login: PendingLogin) -> dict[str, str]:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(login.verifier.encode()).digest()).rstrip(b"=").decode()
    return {
        "response_type": "code",
        "client_id": configuration.client_id or "",
        "redirect_uri": configuration.redirect_uri,
        "scope": configuration.scopes,
        "state": login.state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


def _code_of(callback: Callback) -> str:
    if callback.error == "access_denied":
        raise LoginDeniedError("the login was refused, by you or by the issuer")
    if callback.error in {"temporarily_unavailable", "server_error"}:
        raise IssuerUnavailableError(f"the issuer cannot answer at the moment ({callback.error})")
    if callback.error is not None or not callback.code or len(callback.code) > _LONGEST_CODE:
        # The text of an unknown error can have been written by anybody.
        raise LoginDeniedError("the issuer has not let you in; see whether you may use this application")
    return callback.code


class CodeExchange:
    """Exchanges codes for tokens, in the way in which the issuer wants to know us."""

    def __init__(self, calls: IssuerCalls, configuration: ProviderConfiguration) -> None:
        self._calls = calls
        self._client_id = configuration.client_id or ""
        self._secret = configuration.client_secret.get_secret_value() if configuration.client_secret else None
        self._redirect_uri = configuration.redirect_uri

    async def tokens(self, url: str, code: str, login: PendingLogin, *, basic: bool) -> dict[str, Any]:
        """Return the answer of the token endpoint.

        Args:
            url: its address.
            code: what came back.
            login: which the code is of.
            basic: whether it takes the secret in a header (client_secret_basic).

        Raises:
            InvalidLoginError: the code was used before, is old, or is of another login.
            IssuerError: none of the answers can be used.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": login.verifier,
        }
        if basic and self._secret is not None:
            status, answer = await self._calls.post(url, form, basic=(self._client_id, self._secret))
        else:
            secret = {} if self._secret is None else {"client_secret": self._secret}
            status, answer = await self._calls.post(url, form | {"client_id": self._client_id} | secret)
        error = answer.get("error")
        if error in {"invalid_grant", "bad_verification_code"}:
            raise InvalidLoginError("the code of this login was used before, or has expired; begin again")
        if status != _OK or error is not None:
            known = error if isinstance(error, str) and _ERROR.fullmatch(error) else "no known error"
            raise IssuerError(
                f"{urlsplit(url).netloc} gave no token ({known}); see whether client and secret are right"
            )
        return answer


def _values_of(person: Person) -> dict[str, Any]:
    return {name: getattr(person, name) for name in Person.__slots__}


def _entra_identity(token: VerifiedToken, values: dict[str, Any], tenant: str) -> ExternalIdentity:
    """Of Entra the object in its tenant; ``sub`` is another one for each application.

    Any administrator of a tenant can write any address into ``email`` ("nOAuth"), so it counts only where the tenant is
    our own, or where Microsoft says that its domain's owner was verified.
    """
    own, oid = token.claims.get("tid"), token.claims.get("oid")
    if not isinstance(own, str) or not isinstance(oid, str) or not _TENANT.fullmatch(own) or not _TENANT.fullmatch(oid):
        raise refused("it does not name the object in its tenant (oid, tid)")
    is_verified = own == tenant or token.claims.get("xms_edov") in (True, "true", "1", 1)
    values = values | {"email_verified": values["email"] is not None and is_verified}
    return ExternalIdentity(provider=AuthProvider.AZURE_AD, subject=f"{own}.{oid}", **values)
