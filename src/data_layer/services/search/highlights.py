"""Where in the texts of a project the words stand that were looked for.

What is found is plain text and places in it, never markup: the texts are not trusted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data_layer.schemas.search import Highlight, SearchedField
from data_layer.services.search.query import Query, Term
from data_layer.services.search.words import Word, words_of

Texts = Mapping[SearchedField, str]

_FRAGMENT = 160
_BEFORE = 40
_MOST_CANDIDATES = 5_000


def candidates(query: Query, all_texts: Iterable[Texts]) -> list[str]:
    """The words of the results that may be what was looked for: those with the same first letter, marks aside."""
    initials = {_initial(term.words[0]) for term in query.wanted}
    words = {
        word.text
        for texts in all_texts
        for text in texts.values()
        for word in words_of(text)
        if _initial(word.text) in initials
    }
    return sorted(words)[:_MOST_CANDIDATES]


def _initial(word: str) -> str:
    return unicodedata.normalize("NFD", word[:1])[:1]


def highlights_of(texts: Texts, query: Query, matching: frozenset[str]) -> tuple[Highlight, ...]:
    """Of each text that holds something the part that holds the most; ``matching`` are the words that count."""
    phrases = [term for term in query.wanted if len(term.words) > 1]
    found = []
    for field, text in texts.items():
        words = list(words_of(text))
        ranges = _merged([*_single(words, matching), *_together(words, phrases)])
        if ranges:
            found.append(_fragment(field, text, ranges))
    return tuple(found)


def _single(words: Sequence[Word], matching: frozenset[str]) -> Iterator[tuple[int, int]]:
    return ((word.start, word.end) for word in words if word.text in matching)


def _together(words: Sequence[Word], phrases: Sequence[Term]) -> Iterator[tuple[int, int]]:
    """The places where all words of a phrase stand one after the other."""
    for phrase in phrases:
        length = len(phrase.words)
        for place in range(len(words) - length + 1):
            here = [word.text for word in words[place : place + length]]
            if here[:-1] == list(phrase.words[:-1]) and _is_end(here[-1], phrase):
                yield words[place].start, words[place + length - 1].end


def _is_end(word: str, phrase: Term) -> bool:
    return word.startswith(phrase.words[-1]) if phrase.is_prefix else word == phrase.words[-1]


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _fragment(field: SearchedField, text: str, ranges: Sequence[tuple[int, int]]) -> Highlight:
    """The text around the first place, or the part of it that holds the most of them."""
    if len(text) <= _FRAGMENT:
        return Highlight(field=field, text=text, ranges=tuple(ranges))
    start = max(0, max(ranges, key=lambda each: _count_from(ranges, each[0]))[0] - _BEFORE)
    end = start + _FRAGMENT
    start, end = _at_blank(text, start, 1), _at_blank(text, end, -1)
    inside = tuple((a - start, min(b, end) - start) for a, b in ranges if start <= a < end)
    return Highlight(field=field, text=text[start:end], ranges=inside)


def _count_from(ranges: Sequence[tuple[int, int]], start: int) -> int:
    return sum(start <= each[0] < start + _FRAGMENT - _BEFORE for each in ranges)


def _at_blank(text: str, place: int, step: int) -> int:
    """The next place near this one where no word is cut, if there is one."""
    if not 0 < place < len(text):
        return max(0, min(place, len(text)))
    for near in range(place, place + step * _BEFORE // 2, step):
        if text[near - 1].isspace():
            return near if step > 0 else near - 1
    return place
