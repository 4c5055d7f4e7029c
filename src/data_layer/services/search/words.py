"""How texts are divided into words: the same way when they are indexed, looked for and highlighted.

PostgreSQL's own parser takes parts of a text for addresses, paths and tags, lower-cases by the locale of the database
and knows no words in scripts that are written without blanks. So it gets nothing but what comes from here: words in
lower case with blanks between them. In scripts without blanks each character is a word; several in a row are looked for
in that order. Words of people's languages go through the dictionaries of PostgreSQL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

LONGEST_WORD = 200
"""Characters of a word that count. PostgreSQL has room for 2046 bytes, and lower case may take more of them."""

# Thai, Lao, Burmese and Khmer; kana, Chinese characters and Hangul.
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
# Marks that belong to the letter before them, and that Python does not count among letters.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"[{_ALONE}]|(?:[^\W_{_ALONE}]|[{_MARKS}])+")
_IS_ALONE = re.compile(f"[{_ALONE}]")


class Word(NamedTuple):
    """A word and its place in the text."""

    start: int
    end: int
    text: str


def words_of(text: str) -> Iterator[Word]:
    """The words of a text, normalized, with the places where they stand in it."""
    known: dict[str, str] = {}
    for match in _WORD.finditer(text):
        word = match[0]
        if word not in known:
            known[word] = normalized(word)
        if known[word]:
            yield Word(match.start(), match.end(), known[word])


def normalized(word: str) -> str:
    """A word in the form in which it is stored and compared: of letters, digits and marks only."""
    form = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    # Of some characters it makes others that belong to no word, such as the parentheses of a number in parentheses.
    return (form if form.isalnum() else "".join(_WORD.findall(form)))[:LONGEST_WORD]


def is_alone(word: str) -> bool:
    """Whether a word is a character of a script that is written without blanks."""
    return _IS_ALONE.fullmatch(word) is not None


def exact_lexeme(word: str) -> str:
    """A word as it is, for PostgreSQL; what dictionaries make of words looks otherwise."""
    return f"={word}"


def cut(text: str, size: int) -> str:
    """The beginning of a text that has at most ``size`` bytes in UTF-8."""
    return text if len(text) * 4 <= size else text.encode()[:size].decode(errors="ignore")


ENGLISH = "english"
"""Indexed and looked for in everything, because pages are often in English, whatever language their owner speaks."""

_DICTIONARIES = {
    "ar": "arabic",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "es": "spanish",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}


def dictionary_of(preferences: Mapping[str, Any]) -> str | None:
    """The dictionary for a person who prefers a language, such as ``de`` or ``pt-BR``; None for English and others."""
    language = preferences.get("language")
    if not isinstance(language, str):
        return None
    return _DICTIONARIES.get(language.replace("_", "-").partition("-")[0].lower())


def dictionaries(own: str | None) -> list[str]:
    """Those that a person's words are looked up in."""
    return [ENGLISH] if own is None else [ENGLISH, own]
