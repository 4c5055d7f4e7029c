"""Bodies of requests: small JSON objects."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, SecretStr, StrictBool, StringConstraints

from data_layer.schemas.base import Value
from data_layer.schemas.factors import FactorProof
from data_layer.schemas.users import Name

_LONGEST_PASSWORD = 1024
_LONGEST_TOKEN = 4096

Email = Annotated[str, StringConstraints(min_length=1, max_length=320)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=_LONGEST_PASSWORD)]
Token = Annotated[SecretStr, Field(min_length=1, max_length=_LONGEST_TOKEN)]

Reason = Annotated[
    str,
    StringConstraints(max_length=1000),
    Field(description="Why a moderator looks at somebody else's work; it is recorded."),
]


def _require_date(value: object) -> object:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d[Tt ]", value, re.ASCII):
        raise ValueError("write it as in RFC 3339, such as 2026-11-29T12:00:00Z")
    return value


def _require_day(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError("write it as in RFC 3339, such as 2026-11-29")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_require_date)]
"""A time of RFC 3339 with its zone. Pydantic alone would take ``2026`` for seconds since 1970."""
Day = Annotated[date, BeforeValidator(_require_day)]
"""A day of RFC 3339. Pydantic alone would take ``0`` for the first day of 1970."""


class Body(Value):
    """An object; a field that nobody knows is refused, because it is a mistake."""

    model_config = ConfigDict(extra="forbid")


class NewAccount(Body):
    """Somebody who registers.

    With ``cookie`` the proof of who chose the password goes into a cookie, for browsers.
    """

    email: Email
    password: Password
    first_name: Name
    last_name: Name
    display_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)] | None = None
    cookie: StrictBool = False


class Login(Body):
    """Somebody who logs in.

    ``reactivate``: have an account back that its owner deactivated. ``device_id``: what the client calls its device.
    """

    email: Email
    password: Password
    reactivate: StrictBool = False
    device_id: Annotated[str, StringConstraints(max_length=255)] | None = None


class SessionLogin(Login):
    """Somebody who logs in to a session; with ``cookie`` the token goes into a cookie that no script can read."""

    cookie: StrictBool = False


class FactorAnswer(Body):
    """One of: a code of an authenticator app, a recovery code, what a passkey answered (its ``toJSON()``)."""

    code: Annotated[str | None, Field(min_length=1, max_length=64, examples=["492039"])] = None
    recovery_code: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    passkey: dict[str, Any] | None = None

    @property
    def proof(self) -> FactorProof:
        """What is shown."""
        return FactorProof(code=self.code, recovery_code=self.recovery_code, passkey=self.passkey)


class TokenFactor(FactorAnswer):
    """The second factor of somebody who logs in for tokens."""

    challenge: Token
    device_id: Annotated[str, StringConstraints(max_length=255)] | None = None


class SessionFactor(TokenFactor):
    """The same for a session; with ``cookie`` its token goes into a cookie."""

    cookie: StrictBool = False


class Confirmation(FactorAnswer):
    """The password, or a second factor, once more; ``challenge`` is what a passkey has answered."""

    password: Password | None = None
    challenge: Token | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """What is shown, as services take it."""
        shows_factor = self.code is not None or self.recovery_code is not None or self.passkey is not None
        return {
            "password": None if self.password is None else self.password.get_secret_value(),
            "proof": self.proof if shows_factor else None,
            "challenge": None if self.challenge is None else self.challenge.get_secret_value(),
        }


class LinkBeginning(Confirmation):
    """An identity to link; ``next`` is the path of this host with which the browser goes on afterwards."""

    next: Annotated[str, StringConstraints(max_length=1024)] = "/"


class AccountDeletion(Confirmation):
    """An account to delete: its address, and the password or a second factor of its owner."""

    email: Email


class PasskeyLogin(Body):
    """Somebody who logs in with a passkey alone.

    ``reactivate``: have an account back that its owner deactivated.
    """

    reactivate: StrictBool = False


class Address(Body):
    """Where to send a mail."""

    email: Email


class MailedToken(Body):
    """A token that came by mail."""

    token: Token


class EmailVerification(MailedToken):
    """Somebody who opens the link of the mail; ``proof`` comes from registering, unless it is in a cookie."""

    proof: Token | None = None


class PasswordReset(MailedToken):
    """A new password, chosen with the token that was mailed."""

    password: Password


class PasswordChange(Body):
    """A new password for somebody who knows the present one."""

    current: Password
    new: Password


class Refresh(Body):
    """A refresh token to exchange."""

    refresh_token: Token


class Preferences(Body):
    """What to change of the preferences (JSON Merge Patch, RFC 7396): null removes."""

    preferences: dict[str, Any]
