"""What can be seen of a user: by the user, by anyone, by administrators."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, AliasChoices, Field, StringConstraints, model_validator

from data_layer.entities.enums import AuthProvider, UserRole, UserStatus
from data_layer.schemas.base import Input, JsonObject, View

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


_STORAGE_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def check_avatar(value: str) -> str:
    """An avatar is shown by others' browsers, so it may not be a script, carry its own bytes or name another host.

    Browsers take more for an address than the standard does: a backslash for a slash, and no notice of tabs and line
    breaks. So what is not plainly one of the two is refused.

    Raises:
        ValueError: when it is neither a storage key nor an https address.
    """
    if _STORAGE_KEY.fullmatch(value):
        return value
    is_plain = value.isprintable() and not any(character in ' \\"<>`{}|^' for character in value)
    if is_plain and value.startswith("https://"):
        parts = urlsplit(value)
        if parts.hostname and "@" not in parts.netloc and value[len("https://")] not in "/?#":
            _ = parts.port
            return value
    raise ValueError("must be a storage key, or an address that begins with https://")


class ProfileChanges(Input):
    """What people change of their own profile. What is not given stays; ``None`` clears what may be empty."""

    first_name: Name | None = None
    last_name: Name | None = None
    display_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)] | None = None
    avatar: Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(check_avatar)] | None = None


class ExternalIdentity(Input):
    """What an external provider says of somebody, *after* the caller has verified that it is the provider who says so.

    The caller must have verified, for ``google`` and ``azure_ad``, the signature of the ID token against the keys that
    the provider publishes, ``iss``, ``aud`` (it is our client id, not merely any), ``exp``, and ``nonce`` or ``state``;
    for ``github``, that the answers of its API were fetched over TLS with an access token that GitHub has given to our
    own client in this very login.

    For ``oidc`` that is any OpenID Connect issuer, which ``issuer`` names exactly as its ID tokens do (``iss``); the
    others have none.

    ``subject`` is what the provider never gives to anybody else: Google's ``sub``; GitHub's numeric ``id`` (never the
    login name, which can be taken over); for Azure AD ``tid`` and ``oid`` joined by a dot.

    ``email_verified`` says that the provider has itself verified that the person reads mail at ``email``: Google's
    ``email_verified``; GitHub's ``verified`` of the entry in ``/user/emails``; for Azure AD only where ``xms_edov`` is
    true or the tenant is the caller's own. Its plain ``email`` claim can be set to anything by the tenant ("nOAuth").
    """

    provider: Literal[AuthProvider.AZURE_AD, AuthProvider.GOOGLE, AuthProvider.GITHUB, AuthProvider.OIDC]
    subject: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    email: str | None = None
    email_verified: bool = False
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    avatar: str | None = None

    @model_validator(mode="after")
    def _names_its_issuer(self) -> Self:
        if (self.provider is AuthProvider.OIDC) != (self.issuer is not None):
            raise ValueError("issuer belongs to identities of oidc, and to no others")
        return self


class IdentityView(View):
    """An external identity by which somebody logs in; ``issuer`` names that of ``oidc``."""

    provider: AuthProvider
    issuer: str | None
    subject: str


class LoginMethods(View):
    """How somebody can log in; second factors are apart."""

    has_password: bool
    identities: tuple[IdentityView, ...]


class UserPublic(View):
    """What anyone may see."""

    id: UUID
    display_name: str | None
    avatar: str | None


class UserFull(UserPublic):
    """What users see of themselves."""

    email: str
    first_name: str
    last_name: str
    status: UserStatus
    role: UserRole
    auth_provider: AuthProvider
    email_verified: bool
    email_verified_at: datetime | None
    last_login_at: datetime | None
    preferences: JsonObject
    created_at: datetime
    updated_at: datetime


class UserAdmin(UserFull):
    """What administrators also see: how and from where the account is used."""

    azure_id: str | None
    google_id: str | None
    github_id: str | None
    last_login_ip: str | None
    last_login_user_agent: str | None
    login_count: int
    failed_login_count: int
    locked_until: datetime | None
    password_changed_at: datetime | None
    metadata: JsonObject = Field(validation_alias=AliasChoices("metadata_", "metadata"))
