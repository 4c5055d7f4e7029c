"""How two codes differ, line by line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from data_layer.entities import GeneratedCode
from data_layer.schemas.generations import CodeDiff, Hunk

_CONTEXT = 3
_MOST_COMPARED = 20_000
"""Lines that are compared one by one; the time for more of them grows with their square."""

_Operations = list[tuple[str, int, int, int, int]]


@dataclass(frozen=True, slots=True)
class _Middle:
    """The lines from the first to the last that differ, with those around them that are shown.

    Attributes:
        start: how many lines of both codes come before.
        before: of the old code.
        after: of the new code.
    """

    start: int
    before: Sequence[str]
    after: Sequence[str]


def difference(old: GeneratedCode, new: GeneratedCode) -> CodeDiff:
    """How two codes differ; of large ones it takes a while, so call it in a thread."""
    names = [f"version {code.version}.{code.variant_index}" for code in (old, new)]
    middle = _middle(old.code, new.code)
    hunks = tuple(_hunk(group, middle) for group in _groups(middle))
    lines = [line for hunk in hunks for line in (_head(hunk), *hunk.lines)]
    return CodeDiff(
        old_id=old.id,
        new_id=new.id,
        unified="\n".join([f"--- {names[0]}", f"+++ {names[1]}", *lines, ""]) if hunks else "",
        hunks=hunks,
        added_lines=sum(line.startswith("+") for hunk in hunks for line in hunk.lines),
        removed_lines=sum(line.startswith("-") for hunk in hunks for line in hunk.lines),
    )


def _middle(before: str, after: str) -> _Middle:
    """Leave out what is equal at both ends, which of two versions of a large page is nearly all of it."""
    shortest = min(len(before), len(after))
    same = _length_of_equal_start(before, after, shortest)
    begin = before.rfind("\n", 0, same) + 1
    for _ in repeat(None, _CONTEXT):
        begin = before.rfind("\n", 0, max(0, begin - 1)) + 1
    same_end = _length_of_equal_end(before, after, shortest - same)
    # The line in which the equal end begins may differ.
    end = before.find("\n", len(before) - same_end)
    for _ in repeat(None, _CONTEXT):
        end = end if end < 0 else before.find("\n", end + 1)
    left_out = 0 if end < 0 else len(before) - end
    return _Middle(
        before.count("\n", 0, begin),
        before[begin : len(before) - left_out].split("\n"),
        after[begin : len(after) - left_out].split("\n"),
    )


def _length_of_equal_start(before: str, after: str, longest: int) -> int:
    """Compare halves of what is left: that is as fast as memory, and looking at each character is not."""
    same, end = 0, longest
    while same < end:
        half = (same + end + 1) // 2
        if before.startswith(after[same:half], same):
            same = half
        else:
            end = half - 1
    return same


def _length_of_equal_end(before: str, after: str, longest: int) -> int:
    same, end = 0, longest
    while same < end:
        half = (same + end + 1) // 2
        if before.endswith(after[len(after) - half : len(after) - same], 0, len(before) - same):
            same = half
        else:
            end = half - 1
    return same


def _groups(middle: _Middle) -> Sequence[_Operations]:
    """Places that differ, with three lines around them."""
    before, after = middle.before, middle.after
    if max(len(before), len(after)) > _MOST_COMPARED:
        return [[("replace", 0, len(before), 0, len(after))]]
    groups = difflib.SequenceMatcher(None, before, after).get_grouped_opcodes(_CONTEXT)
    return [list(group) for group in groups]


def _hunk(group: _Operations, middle: _Middle) -> Hunk:
    first, last = group[0], group[-1]
    lines: list[str] = []
    for tag, old_start, old_end, new_start, new_end in group:
        if tag == "equal":
            lines += [f" {line}" for line in middle.before[old_start:old_end]]
            continue
        lines += [f"-{line}" for line in middle.before[old_start:old_end]]
        lines += [f"+{line}" for line in middle.after[new_start:new_end]]
    return Hunk(
        old_start=middle.start + first[1] + 1,
        old_lines=last[2] - first[1],
        new_start=middle.start + first[3] + 1,
        new_lines=last[4] - first[3],
        lines=tuple(lines),
    )


def _head(hunk: Hunk) -> str:
    return f"@@ -{hunk.old_start},{hunk.old_lines} +{hunk.new_start},{hunk.new_lines} @@"
