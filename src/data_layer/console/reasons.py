"""Why something was refused, for the person who asked for it."""

from __future__ import annotations

from markupsafe import Markup

from data_layer.console import words
from data_layer.console.languages import DEFAULT, Language
from data_layer.errors import (
    AuthenticationError,
    ConflictError,
    DataLayerError,
    InvalidValueError,
    TooManyAttemptsError,
    TooManyRequestsError,
    WeakPasswordError,
)


def reason_of(error: DataLayerError, language: Language, *, shortest_password: int) -> str:
    """Return what a page says; what only a service has words for is marked as English.

    The words of a service are the most exact. Other languages have a sentence for each code and each field of a form
    that a person can meet.
    """
    if isinstance(error, TooManyAttemptsError | TooManyRequestsError):
        return language.text("Too many attempts. Try again in %(seconds)s seconds.", seconds=round(error.retry_after))
    if isinstance(error, AuthenticationError):
        return language.text("The password or the code is not right. Begin again.")
    if isinstance(error, WeakPasswordError) and error.reason in words.WEAK_PASSWORDS:
        return language.text(words.WEAK_PASSWORDS[error.reason], minimum=shortest_password)
    if language.code == DEFAULT:
        return str(error)
    known = words.REFUSALS.get(error.code) or (
        words.REFUSED_FIELDS.get(error.field or "") if isinstance(error, InvalidValueError | ConflictError) else None
    )
    return language.text(known) if known else Markup('<span lang="en">{}</span>').format(str(error))
