"""The dictionaries of PostgreSQL for the languages of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
