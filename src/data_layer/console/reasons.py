"""Why something was refused, for the person who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from data_layer.console import words
from data_layer.console.languages import DEFAULT
from data_layer.errors import (
    AuthenticationError,
    ConflictError,
    DataLayerError,
    InvalidValueError,
    TooManyAttemptsError,
    TooManyRequestsError,
    WeakPasswordError,
)

if TYPE_CHECKING:
    from data_layer.console.pages import PageCall


def reason_of(call: PageCall, error: DataLayerError) -> str:
    """Return what a page says; what only a service has words for is marked as English.

    The words of a service are the most exact. Other languages have a sentence for each code and each field of a form
    that a person can meet.
    """
    if isinstance(error, TooManyAttemptsError | TooManyRequestsError):
        return call.text("Too many attempts. Try again in %(seconds)s seconds.", seconds=round(error.retry_after))
    if isinstance(error, AuthenticationError):
        return call.text("The password or the code is not right. Begin again.")
    if isinstance(error, WeakPasswordError) and error.reason in words.WEAK_PASSWORDS:
        minimum = call.data.settings.security.password_min_length
        return call.text(words.WEAK_PASSWORDS[error.reason], minimum=minimum)
    if call.language.code == DEFAULT:
        return str(error)
    known = words.REFUSALS.get(error.code) or (
        words.REFUSED_FIELDS.get(error.field or "") if isinstance(error, InvalidValueError | ConflictError) else None
    )
    return call.text(known) if known else Markup('<span lang="en">{}</span>').format(str(error))
