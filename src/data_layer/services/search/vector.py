"""What of the texts of a project goes into its search vector.

The words as they are become lexemes with an equals sign before them, with the places where they stand; what the
dictionaries of PostgreSQL make of the words has none. So a quoted word is not found by what another one is reduced to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from data_layer.services.search.words import exact_lexeme, is_alone, words_of

_WEIGHTS = "ABCD"
_GAP = 2  # Between two texts, so that no phrase goes from one to the next.
_LAST_PLACE = 16_383
"""PostgreSQL knows no places behind it: words are found there, phrases are not."""


class SearchedText(NamedTuple):
    """A text, and how many bytes of its words are searched."""

    text: str
    limit: int


def searched_words(texts: Sequence[SearchedText]) -> tuple[str, list[str]]:
    """Of four texts, the one that weighs most first: a vector as text for ``tsvector``, and words for dictionaries."""
    places: dict[str, list[str]] = defaultdict(list)
    reduced: list[str] = []
    place = 0
    for (text, limit), weight in zip(texts, _WEIGHTS, strict=True):
        words: list[str] = []
        room = limit
        for word in words_of(text):
            room -= len(word.text.encode()) + 1
            if room < 0:
                break
            place += 1
            places[word.text].append(f"{min(place, _LAST_PLACE)}{weight}")
            if not is_alone(word.text):
                words.append(word.text)
        reduced.append(" ".join(words))
        place += _GAP
    return " ".join(f"'{exact_lexeme(word)}':{','.join(found)}" for word, found in places.items()), reduced
