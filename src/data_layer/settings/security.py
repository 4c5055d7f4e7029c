"""The settings of sessions, tokens and passwords: a part of ``Settings`` with its own rules."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from data_layer.settings.part import DEVELOPMENT_SECRET, Duration, PlainText, SettingsPart

_MINIMUM_BCRYPT_ROUNDS = 10  # OWASP Password Storage Cheat Sheet.
_LARGEST_RATE = 100.0  # Requests a second; guessing passwords is not slowed down by more.

RequestLimit = Annotated[int, Field(ge=0, le=100_000_000)]


class SecuritySettings(SettingsPart):
    """Secrets, how long what they protect is good, and how hard passwords are to guess."""

    # Security
    session_secret: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET), description="Key under which session tokens are hashed; 32 characters or more."
    )
    session_secret_previous: SecretStr | None = Field(
        None, description="The key before it, accepted until its sessions have ended; set while changing the key."
    )
    session_ttl: Duration = Field(
        3600, description="How long a session lives without use: seconds, or with a unit as in 90m, 12h, 7d."
    )
    session_max_age: Duration = Field(2_592_000, description="How long a session lives at most, whatever its use.")
    session_limit: int = Field(
        20, ge=1, le=1000, description="Sessions of one user; when one more begins, the one longest without use ends."
    )
    jwt_secret: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET), description="Key that access tokens are signed with; 32 characters or more."
    )
    jwt_secret_previous: SecretStr | None = Field(
        None, description="The key before it, accepted until its tokens have expired; set while changing the key."
    )
    jwt_expires_in: Duration = Field(
        86_400, description="How long an access token is good, if its session does not end."
    )
    jwt_refresh_expires_in: Duration = Field(
        2_592_000, description="How long a refresh token is good and keeps its session; SESSION_MAX_AGE limits it."
    )
    jwt_issuer: PlainText = Field("data-layer", max_length=255, description="Who issues access tokens.")
    jwt_audience: PlainText = Field(
        "screenshot-to-code", max_length=255, description="Whom access tokens are meant for."
    )
    bcrypt_rounds: int = Field(
        12, ge=4, le=18, description="Cost of hashing a password, as a power of two; production needs 10 or more."
    )
    password_min_length: int = Field(
        8, ge=8, le=64, description="Fewest characters of a new password; NIST advises 15 where it is the only factor."
    )
    passkey_domain: PlainText | None = Field(
        None,
        max_length=253,
        description="Domain that passkeys are bound to, such as example.com where a front end at app.example.com uses "
        "this service; it must stay. Default: the host of PUBLIC_URL.",
    )
    rate_limit_max: int = Field(
        100,
        ge=0,
        le=1_000_000,
        description="Requests of one kind, such as logging in, that one network may send in a window; 0: any.",
    )
    rate_limit_window: int = Field(
        900_000, ge=1000, le=86_400_000, description="Length of that window, in milliseconds."
    )
    request_limit_person: RequestLimit = Field(
        6000, description="Requests that one person may send in a minute, from anywhere; 0: any number."
    )
    request_limit_key: RequestLimit = Field(
        6000, description="Requests that may come with one API key in a minute; 0: any number."
    )
    request_limit_address: RequestLimit = Field(
        12_000,
        description="Requests that one address (64 bits of IPv6) may send in a minute, for all "
        "people behind it together; 0: any number.",
    )

    def contradictions(self) -> list[str]:
        """Return what makes the settings unusable anywhere."""
        if self.session_ttl <= self.session_max_age:
            return []
        return [f"SESSION_TTL ({self.session_ttl} s) is longer than SESSION_MAX_AGE ({self.session_max_age} s)"]

    def unfit(self) -> list[str]:
        """Return what production refuses of what slows down somebody who guesses passwords."""
        problems = []
        if self.bcrypt_rounds < _MINIMUM_BCRYPT_ROUNDS:
            problems.append(f"BCRYPT_ROUNDS must be {_MINIMUM_BCRYPT_ROUNDS} or more: fewer are guessed too quickly")
        if self.rate_limit_max == 0:
            problems.append("RATE_LIMIT_MAX must not be 0: nothing would limit how often passwords are tried")
        elif self.rate_limit_max * 1000 / self.rate_limit_window > _LARGEST_RATE:
            problems.append(
                f"RATE_LIMIT_MAX allows more than {_LARGEST_RATE:.0f} requests a second, which limits nothing"
            )
        return problems

    def session_secrets(self) -> list[str]:
        """Return the secret of sessions, and the one before, which is still accepted."""
        secrets = (self.session_secret, self.session_secret_previous)
        return [secret.get_secret_value() for secret in secrets if secret is not None]

    def signing_secrets(self) -> list[tuple[str, str]]:
        """Return the secrets of sessions and tokens with the names of their settings."""
        names = ("session_secret", "session_secret_previous", "jwt_secret", "jwt_secret_previous")
        secrets: dict[str, SecretStr | None] = {name: getattr(self, name) for name in names}
        return [(name.upper(), secret.get_secret_value()) for name, secret in secrets.items() if secret is not None]
