"""The settings of logging in by an OpenID Connect issuer: a part of ``Settings``."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from data_layer.environment import split_host
from data_layer.settings.part import COMMA_SEPARATED, PlainText, Seconds, SettingsPart, split_list

ProviderKind = Literal["oidc", "google", "github", "entra"]

_SUBJECT = "{sub}"
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749, 3.3.
_TENANT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|common|organizations|consumers")
_LONGEST_ISSUER = 255


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
        split_host(f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "")
    except ValueError:
        raise ValueError("is not an address; write it as https://host/path") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ValueError("must be of the form https://host/path, without login and query")
    return value


def _check_user_url(value: str) -> str:
    if value.count(_SUBJECT) != 1:
        raise ValueError("must have {sub} once, where the subject belongs: https://api.example.com/users/{sub}")
    if _SUBJECT in urlsplit(value).netloc:
        raise ValueError("may have {sub} in its path only")
    _check_url(value.replace(_SUBJECT, "subject"))
    return value


def _check_scopes(value: str) -> str:
    if _SCOPES.fullmatch(value) is None or "openid" not in value.split():
        raise ValueError("must be words with a blank between them, one of which is openid")
    return value


def _check_tenant(value: str) -> str:
    value = value.lower()
    if _TENANT.fullmatch(value) is None:
        raise ValueError("must be the id of a tenant (a UUID), or common, organizations or consumers")
    return value


IssuerUrl = Annotated[str, Field(max_length=_LONGEST_ISSUER), AfterValidator(_check_url)]
"""Taken as it is, because it is compared with tokens character by character: a slash at the end belongs to it."""
ClientId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
Names = Annotated[tuple[PlainText, ...], BeforeValidator(split_list), COMMA_SEPARATED]


class OpenIdSettings(SettingsPart):
    """Which issuers may identify people, and how far each is trusted."""

    # OpenID Connect
    oidc_issuer: IssuerUrl | None = Field(
        None,
        description="Issuer that people log in by, exactly as its tokens name it (`iss`). Needs PUBLIC_URL in "
        "production; the redirect URI to register there is PUBLIC_URL/v1/oidc/oidc/callback.",
    )
    oidc_client_id: ClientId | None = Field(None, description="What the issuer calls this service.")
    oidc_client_secret: SecretStr | None = Field(
        None, description="The secret of this client; without one it is a public client, which PKCE protects."
    )
    oidc_scopes: Annotated[str, AfterValidator(_check_scopes)] = Field(
        "openid email profile", description="What is asked for, with a blank between two scopes."
    )
    oidc_name: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        "Single sign-on", description="What the button to log in by this issuer says."
    )
    oidc_allowed_azp: Names = Field(
        (),
        description="Parties to which tokens may have been issued (`azp`), other than the client itself, separated by "
        "commas: the origins of a front end, for example.",
    )
    oidc_clock_leeway: float = Field(
        5, ge=0, le=120, description="Seconds by which the issuer's clock may differ from ours."
    )
    oidc_timeout: Seconds = Field(5, description="Seconds for each call of an issuer.")
    oidc_accept_bearer: bool = Field(
        False, description="Accept tokens of OIDC_ISSUER as `Authorization: Bearer`, without a session of ours."
    )
    oidc_audience: PlainText | None = Field(
        None, max_length=255, description="Audience of such tokens (`aud`). Default: OIDC_CLIENT_ID."
    )
    oidc_email_claim: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        "email", description="The claim that holds the address of a person."
    )
    oidc_trust_email: bool = Field(
        False, description="OIDC_ISSUER has verified every address that it states, also without `email_verified`."
    )
    oidc_user_url: Annotated[str, AfterValidator(_check_user_url)] | None = Field(
        None,
        description="Where the address of a person is asked for when a bearer token does not hold it; {sub} stands "
        "for the subject: https://api.clerk.com/v1/users/{sub}. Default: the issuer's userinfo endpoint.",
    )
    oidc_user_token: SecretStr | None = Field(None, description="Bearer token for OIDC_USER_URL.")

    # Logging in with Google, GitHub and Microsoft
    oidc_google_client_id: ClientId | None = Field(None, description="Client of Google; with it, people can log in.")
    oidc_google_client_secret: SecretStr | None = Field(None, description="Its secret.")
    oidc_github_client_id: ClientId | None = Field(None, description="OAuth application of GitHub.")
    oidc_github_client_secret: SecretStr | None = Field(None, description="Its secret.")
    oidc_entra_client_id: ClientId | None = Field(None, description="Application of Microsoft Entra.")
    oidc_entra_client_secret: SecretStr | None = Field(None, description="Its secret.")
    oidc_entra_tenant: Annotated[str, AfterValidator(_check_tenant)] = Field(
        "organizations",
        description="Id of the tenant whose people may log in; or organizations (all tenants), consumers (private "
        "accounts of Microsoft) or common (both).",
    )

    @property
    def login_kinds(self) -> tuple[ProviderKind, ...]:
        """The providers that people can log in by."""
        kinds: tuple[ProviderKind, ...] = ("oidc", "google", "github", "entra")
        return tuple(kind for kind in kinds if self.client_id(kind) is not None)

    def client_id(self, kind: ProviderKind) -> str | None:
        """What a provider calls us; None if nobody logs in by it."""
        name = "oidc_client_id" if kind == "oidc" else f"oidc_{kind}_client_id"
        client_id: str | None = getattr(self, name)
        return client_id

    def client_secret(self, kind: ProviderKind) -> SecretStr | None:
        """The secret of this client."""
        secret: SecretStr | None = getattr(
            self, "oidc_client_secret" if kind == "oidc" else f"oidc_{kind}_client_secret"
        )
        return secret

    def contradictions(self) -> list[str]:
        """Return what makes the settings unusable anywhere."""
        problems = []
        if self.oidc_issuer is None:
            problems += [
                f"{name} is set, but OIDC_ISSUER is not"
                for name, value in (
                    ("OIDC_CLIENT_ID", self.oidc_client_id),
                    ("OIDC_ACCEPT_BEARER", self.oidc_accept_bearer or None),
                )
                if value is not None
            ]
        elif self.oidc_client_id is None and not self.oidc_accept_bearer:
            problems.append("OIDC_CLIENT_ID must be set: OIDC_ISSUER is")
        for kind in ("google", "github", "entra"):
            names = (f"OIDC_{kind.upper()}_CLIENT_ID", f"OIDC_{kind.upper()}_CLIENT_SECRET")
            if (self.client_id(kind) is None) != (self.client_secret(kind) is None):
                problems.append(f"{names[0]} and {names[1]} belong together; set both or neither")
        if self.oidc_client_secret is not None and self.oidc_client_id is None:
            problems.append("OIDC_CLIENT_SECRET is set, but OIDC_CLIENT_ID is not")
        if self.oidc_accept_bearer and not (self.oidc_audience or self.oidc_client_id or self.oidc_allowed_azp):
            problems.append(
                "OIDC_AUDIENCE or OIDC_ALLOWED_AZP must be set: OIDC_ACCEPT_BEARER would take tokens that the issuer "
                "has made for others"
            )
        if self.oidc_user_token is not None and self.oidc_user_url is None:
            problems.append("OIDC_USER_TOKEN is set, but OIDC_USER_URL is not")
        return problems

    def unfit(self) -> list[str]:
        """Return what production refuses."""
        addresses = {"OIDC_ISSUER": self.oidc_issuer, "OIDC_USER_URL": self.oidc_user_url}
        return [
            f"{name} must begin with https:// in production: an attacker who can change its answers could be anybody"
            for name, address in addresses.items()
            if address is not None and not address.startswith("https://")
        ]
