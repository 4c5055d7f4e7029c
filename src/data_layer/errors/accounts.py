"""Who may come in, and who may do what."""

from __future__ import annotations

from data_layer.errors.base import DataLayerError


class PermissionDeniedError(DataLayerError):
    """The actor may not do this. It is answered before looking, so it tells nothing about what exists."""

    code = "permission_denied"


class AuthenticationError(DataLayerError):
    """The caller could not be shown to be somebody who may come in."""

    code = "authentication_failed"


class InvalidCredentialsError(AuthenticationError):
    """The address is unknown or the password is wrong; which of them is never told."""

    code = "invalid_credentials"


class TooManyAttemptsError(AuthenticationError):
    """Too many failed logins; nothing was checked. ``retry_after`` says after how many seconds to try again."""

    code = "too_many_attempts"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidOneTimeTokenError(AuthenticationError):
    """A one-time token is malformed, unknown, expired or used; which of them is never told."""

    code = "one_time_token_invalid"


class UnverifiedIdentityError(AuthenticationError):
    """An external identity may not be used this way: its address is not verified, or its account must link it first."""

    code = "identity_unverified"


class EmailNotVerifiedError(AuthenticationError):
    """The password is right, but the account waits for its e-mail address to be verified."""

    code = "email_not_verified"


class AccountInactiveError(AuthenticationError):
    """The password is right, but the account is deactivated."""

    code = "account_inactive"


class AccountSuspendedError(AuthenticationError):
    """The password is right, but the account is suspended."""

    code = "account_suspended"


class InvalidSessionError(AuthenticationError):
    """The session is unknown, expired or revoked; which of them is never told. The user has to log in again."""

    code = "session_invalid"


class InvalidTokenError(AuthenticationError):
    """An access or refresh token is malformed, forged, not meant for us, or its session has ended. Log in again."""

    code = "token_invalid"


class ExpiredTokenError(InvalidTokenError):
    """An access token was right until it expired. Exchange the refresh token for a new pair."""

    code = "token_expired"


class ReusedTokenError(InvalidTokenError):
    """A refresh token came a second time, so somebody else may hold it: its session was ended."""

    code = "token_reused"
