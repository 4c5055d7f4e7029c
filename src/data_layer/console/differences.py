"""The lines of codes, marked up; and two codes line by line, side by side, with the words that differ.

Pygments escapes code, and gives it classes that the style sheet knows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice, zip_longest

from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import HtmlLexer

from data_layer.schemas.generations import CodeDiff, Hunk

LONGEST_HIGHLIGHTED = 40_000
"""Characters; Pygments takes about a second for half a million."""
LONGEST_SHOWN = 400_000
LONGEST_CODE_LINE = 2_000


async def code_lines(code: str) -> Sequence[Markup]:
    """The lines of a code, each with its markup; all stacks are HTML or SVG with scripts and styles inside."""
    shown = code[:LONGEST_SHOWN]
    if len(shown) > LONGEST_HIGHLIGHTED:
        return [escape(line[:LONGEST_CODE_LINE]) for line in shown.split("\n")]
    return await asyncio.to_thread(_highlighted, shown)


@lru_cache(maxsize=8)
def _highlighted(code: str) -> Sequence[Markup]:
    formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True, classprefix="c-")
    marked = highlight(
        code.replace("\r\n", "\n").replace("\r", "\n"), HtmlLexer(stripnl=False, ensurenl=False), formatter
    )
    return [Markup(line) for line in marked.split("\n")]  # noqa: S704  (escaped by the formatter)


LONGEST_LINE = 600
MOST_ROWS = 4_000
_MOST_WORDS = 400
_WORDS = re.compile(r"\w+|\s+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a line, and whether the other line has something else there."""

    text: str
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """A line of one code; ``kind``: same, removed or added."""

    number: int
    kind: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Lines that stand beside each other; None where the other code has one more."""

    old: Side | None
    new: Side | None


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that follow each other; lines between two blocks are the same."""

    heading: str
    rows: tuple[Row, ...]

    def in_line(self) -> Iterator[Side]:
        """The lines one below the other: what was removed before what was added."""
        removed: list[Side] = []
        added: list[Side] = []
        for row in self.rows:
            if row.old is not None and row.old.kind == "same":
                yield from removed
                yield from added
                removed, added = [], []
                if row.new is not None:
                    yield row.new
                continue
            if row.old is not None:
                removed.append(row.old)
            if row.new is not None:
                added.append(row.new)
        yield from removed
        yield from added


def blocks_of(diff: CodeDiff) -> tuple[list[Block], bool]:
    """The blocks of a difference, and whether that is all of it."""
    blocks: list[Block] = []
    left = MOST_ROWS
    for hunk in diff.hunks:
        if left <= 0:
            return blocks, False
        rows = tuple(islice(_rows(hunk), left))
        left -= len(rows)
        heading = f"@@ -{hunk.old_start},{hunk.old_lines} +{hunk.new_start},{hunk.new_lines} @@"
        blocks.append(Block(heading, rows))
    return blocks, left > 0


def _rows(hunk: Hunk) -> Iterator[Row]:
    old, new = hunk.old_start, hunk.new_start
    removed: list[str] = []
    added: list[str] = []
    for line in hunk.lines:
        if line.startswith("-"):
            removed.append(line[1:])
        elif line.startswith("+"):
            added.append(line[1:])
        else:
            yield from _changed(removed, added, old, new)
            old, new = old + len(removed), new + len(added)
            removed, added = [], []
            spans = (Span(line[1:][:LONGEST_LINE]),)
            yield Row(Side(old, "same", spans), Side(new, "same", spans))
            old, new = old + 1, new + 1
    yield from _changed(removed, added, old, new)


def _changed(removed: Sequence[str], added: Sequence[str], old: int, new: int) -> Iterator[Row]:
    for offset, (before, after) in enumerate(zip_longest(removed, added)):
        left, right = _spans(before, after)
        yield Row(
            None if before is None else Side(old + offset, "removed", left),
            None if after is None else Side(new + offset, "added", right),
        )


def _spans(before: str | None, after: str | None) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """The words of two lines, those that differ marked; whole lines where that would be nearly everything."""
    old, new = (before or "")[:LONGEST_LINE], (after or "")[:LONGEST_LINE]
    whole = (Span(old),), (Span(new),)
    if before is None or after is None:
        return whole
    old_words, new_words = _WORDS.findall(old), _WORDS.findall(new)
    if len(old_words) + len(new_words) > _MOST_WORDS:
        return whole
    matcher = SequenceMatcher(None, old_words, new_words, autojunk=False)
    if matcher.quick_ratio() < 0.4:
        return whole
    left: list[Span] = []
    right: list[Span] = []
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        differs = tag != "equal"
        if end > start:
            left.append(Span("".join(old_words[start:end]), differs))
        if other_end > other_start:
            right.append(Span("".join(new_words[other_start:other_end]), differs))
    return tuple(left), tuple(right)
