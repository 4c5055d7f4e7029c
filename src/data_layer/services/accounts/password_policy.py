"""Which new passwords are refused, after NIST SP 800-63B: length counts, kinds of characters do not.

Refused are short ones, the most common ones, repetitions and sequences, and the person's own address or name; and
characters that cannot be typed again reliably (control characters, unassigned ones), as in RFC 8265, section 4.2.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib import resources
from itertools import pairwise

from data_layer.errors import WeakPasswordError
from data_layer.services.accounts.passwords import MAXIMUM_LENGTH, normalize

_FEWEST_DIFFERENT = 4
_LONGEST_DECORATION = 5  # "summer" and up to so many digits and signs is still "summer".
_SHORTEST_NAME = 4
_REFUSED_CATEGORIES = {"Cc": "a control character", "Cs": "half a surrogate pair", "Cn": "an unassigned character"}


def check_new_password(password: str, *, minimum: int, personal: Iterable[str] = (), field: str = "password") -> None:
    """Refuse a password that others would try first.

    Args:
        password: what the person chose.
        minimum: fewest characters (PASSWORD_MIN_LENGTH).
        personal: the address and the names of the person, which are no passwords.
        field: what the caller's argument is called, which the error names: ``password`` or ``new``.

    Raises:
        WeakPasswordError: with the reason; it never repeats the password.
    """
    weakness = _weakness(password, minimum, personal)
    if weakness is not None:
        reason, text = weakness
        what = "the password" if field == "password" else f"the {field} password"
        raise WeakPasswordError(f"{what} {text}", field=field, reason=reason)


def _weakness(password: str, minimum: int, personal: Iterable[str]) -> tuple[str, str] | None:
    """Why a password is refused, as a name and as text; None for one that is taken."""
    if len(password) > MAXIMUM_LENGTH:
        return "too_long", f"may have {MAXIMUM_LENGTH} characters at most"
    for character in password:
        if kind := _REFUSED_CATEGORIES.get(unicodedata.category(character)):
            return "untypable", f"holds {kind}, which cannot be typed again; remove it"
    password = normalize(password)
    if len(password) < minimum:
        return "too_short", f"needs {minimum} characters or more; a few words in a row are easy to remember"
    folded = password.casefold()
    if _is_common(folded):
        return "common", "is one of the most common ones, which are tried first; choose another"
    if len(set(folded)) < _FEWEST_DIFFERENT or _is_sequence(folded):
        return "repetitive", "repeats a few characters or is a sequence; choose another"
    if any(_is_like(folded, name.casefold()) for name in personal):
        return "personal", "is the address or the name of the account; choose another"
    return None


@cache
def _common() -> frozenset[str]:
    file = resources.files("data_layer.services.accounts").joinpath("common_passwords.txt")
    return frozenset(line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))


def _is_common(folded: str) -> bool:
    word = folded.rstrip("0123456789!?.,-_#$*+@ ")
    return folded in _common() or (len(folded) - len(word) <= _LONGEST_DECORATION and word in _common())


def _is_sequence(folded: str) -> bool:
    steps = {ord(after) - ord(before) for before, after in pairwise(folded)}
    return steps in ({1}, {-1})


def _is_like(folded: str, name: str) -> bool:
    letters = _letters(name)
    return folded == name or (len(letters) >= _SHORTEST_NAME and _letters(folded) == letters)


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text))
