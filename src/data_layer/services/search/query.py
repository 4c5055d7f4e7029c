"""What people type into a search box, as PostgreSQL looks for it.

As in a web search: all words must occur, ``"quoted words"`` together and exactly, ``or`` and ``-not`` work. The last
word need not be complete. Nothing that can be typed is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_layer.services.search.words import Word, exact_lexeme, is_alone, words_of

LONGEST_QUERY = 500
"""Most characters of a search."""

_SHORTEST_PREFIX = 2
_PART = re.compile(r'(?<!\S)(-?)"([^"]*)"?|(\S+)')

Leaf = tuple[str, str]
"""A dictionary, and an operand for PostgreSQL's ``to_tsquery``."""


@dataclass(frozen=True, slots=True)
class Term:
    """Words that must occur one after the other, or must not occur; usually one word.

    Attributes:
        words: normalized.
        is_excluded: what they occur in is not wanted.
        is_exact: they were quoted.
        is_prefix: the last of them may go on.
    """

    words: tuple[str, ...]
    is_excluded: bool = False
    is_exact: bool = False
    is_prefix: bool = False

    def exact(self, weights: str) -> str:
        """The words as they are, for ``tsquery``."""
        flags = f"*{weights}" if self.is_prefix else weights
        *before, last = (f"'{exact_lexeme(word)}'" for word in self.words)
        return " <-> ".join([*(_with(lexeme, weights) for lexeme in before), _with(last, flags)])

    def leaves(self, dictionaries: Sequence[str], weights: str) -> list[Leaf]:
        """The words as each dictionary reduces them; those that were quoted stay as they are."""
        if self.is_exact or all(map(is_alone, self.words)):
            return []
        operand = _with(f"'{' '.join(self.words)}'", weights)
        return [(dictionary, operand) for dictionary in dictionaries]


@dataclass(frozen=True, slots=True)
class Query:
    """Alternatives, of each of which all terms must hold."""

    alternatives: tuple[tuple[Term, ...], ...]

    @property
    def wanted(self) -> list[Term]:
        """The terms that a result holds, as far as it holds them."""
        return [term for terms in self.alternatives for term in terms if not term.is_excluded]

    def leaves(self, dictionaries: Sequence[str], weights: str) -> list[Leaf]:
        """Everything that PostgreSQL has to parse."""
        return [leaf for terms in self.alternatives for term in terms for leaf in term.leaves(dictionaries, weights)]

    def compose(self, parsed: Mapping[Leaf, str], dictionaries: Sequence[str], weights: str) -> str:
        """The query as text for ``tsquery``; empty if nothing can be found."""
        found = []
        for terms in self.alternatives:
            parts = _conjunction(terms, parsed, dictionaries, weights)
            if any(not term.is_excluded for term, _ in parts):
                found.append(" & ".join(f"{'!' if term.is_excluded else ''}({text})" for term, text in parts))
        return " | ".join(f"({each})" for each in found)


def parse_query(text: str) -> Query:
    """Read what was typed."""
    alternatives: list[list[Term]] = [[]]
    for match in _PART.finditer(text):
        minus, quoted, word = match.groups()
        if word is None:
            alternatives[-1] += _quoted(quoted, is_excluded=bool(minus))
        elif word.casefold() == "or":
            alternatives.append([])
        else:
            is_last = match.end() == len(text.rstrip())
            alternatives[-1] += _typed(word, is_last=is_last)
    return Query(tuple(tuple(terms) for terms in alternatives if terms))


def _quoted(text: str, *, is_excluded: bool) -> list[Term]:
    words = tuple(word.text for word in words_of(text))
    return [Term(words, is_excluded=is_excluded, is_exact=True)] if words else []


def _typed(text: str, *, is_last: bool) -> list[Term]:
    """What stands between two blanks: usually a word, but also ``e-mail`` or words of a script without blanks."""
    words = list(words_of(text))
    if not words:
        return []
    is_excluded = text.startswith("-") and words[0].start == 1
    is_prefix = is_last and not is_excluded and _may_go_on(words[-1], text)
    return [Term(tuple(word.text for word in words), is_excluded=is_excluded, is_prefix=is_prefix)]


def _may_go_on(word: Word, text: str) -> bool:
    return word.end == len(text) and len(word.text) >= _SHORTEST_PREFIX


def _with(lexeme: str, flags: str) -> str:
    # Words hold letters, digits and marks only, so nothing in them means anything to PostgreSQL.
    return f"{lexeme}:{flags}" if flags else lexeme


def _conjunction(
    terms: Sequence[Term], parsed: Mapping[Leaf, str], dictionaries: Sequence[str], weights: str
) -> list[tuple[Term, str]]:
    """The terms with their text for PostgreSQL, without words such as "the", unless there are no others."""
    parts: list[tuple[Term, str]] = []
    stop_words: list[tuple[Term, str]] = []
    for term in terms:
        forms = [parsed[leaf] for leaf in term.leaves(dictionaries, weights)]
        text = " | ".join(f"({form})" for form in (term.exact(weights), *dict.fromkeys(forms)) if form)
        # A dictionary reduces a stop word to nothing.
        (parts if all(forms) else stop_words).append((term, text))
    return parts if any(not term.is_excluded for term, _ in parts) else [*parts, *stop_words]
