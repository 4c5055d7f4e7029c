"""A text that its column takes is stored, whatever a search vector or an index would make of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from data_layer import DataLayer
from data_layer.errors import ValueTooLongError
from tests.support import make_project, make_user


def words(letters: str, length: int, joint: str, size: int, group: int = 10**9) -> str:
    chance = random.Random(20261129)
    pieces: list[str] = []
    filled = grouped = 0
    while filled < size:
        word = "".join(chance.choices(letters, k=length))
        pieces += [word, joint if grouped < group else " "]
        grouped = grouped + length + 1 if grouped < group else 0
        filled += length + 1
    return "".join(pieces)[:size]


KOREAN = "".join(map(chr, range(0xAC00, 0xAC00 + 11000)))
IDEOGRAPHS = "".join(map(chr, range(0x20000, 0x20000 + 40000)))
# Made by the test that needs one: all of them take a second.
HATEFUL = {
    "hyphenated Korean": partial(words, KOREAN, 2, "-", 100_000, 6),
    "ideographs in pairs": partial(words, IDEOGRAPHS, 1, "-", 100_000, 3),
    "more positions than a vector has": partial(words, "abcdefghijklmnopqrstuvwxyz", 4, " ", 500_000),
    "one word": lambda: "x" * 1_000_000,
    "one random word": partial(words, KOREAN, 1, "", 60_000),
    "addresses": partial(words, "abcdefghij", 5, ".de/", 300_000, 50),
}


@pytest.mark.parametrize("make", HATEFUL.values(), ids=HATEFUL)
async def test_no_project_is_refused_because_of_its_search_vector(data: DataLayer, make: Callable[[], str]) -> None:
    text = make()
    user = make_user()
    project = make_project(user, description=text, instructions=text, tags=[text, "needle"], name="Haystack")
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)
    async with data.transaction() as tx:
        found = await tx.projects.get(project.id)
        assert (found.description, found.instructions, found.tags) == (text, text, [text, "needle"])
        found.instructions = f"{text} again"
    async with data.transaction() as tx:
        assert [one.id for one in await tx.projects.search("haystack")] == [project.id]


@pytest.mark.parametrize("column", ["azure_id", "google_id", "github_id"])
async def test_what_an_index_cannot_hold_is_refused_with_its_name(data: DataLayer, column: str) -> None:
    longest: dict[str, Any] = {column: words(IDEOGRAPHS, 1, "", 255)}
    async with data.transaction() as tx:
        tx.add(make_user(**longest))
    with pytest.raises(ValueTooLongError) as raised:
        make_user(**{column: "x" * 256})
    assert raised.value.field == column
