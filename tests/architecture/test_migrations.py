"""Migrations stand in one row: two branches that were joined must not both have taken the same number."""

from __future__ import annotations

import re

from data_layer.database.migrations import VERSIONS

_REVISION = re.compile(r'^revision = "(\d{4})"\ndown_revision = (?:"(\d{4})"|None)$', re.MULTILINE)


def test_each_migration_has_a_number_of_its_own_and_follows_the_one_before() -> None:
    files = sorted(VERSIONS.glob("[0-9]*.py"))
    numbers = [f"{number:04}" for number in range(1, len(files) + 1)]
    assert [file.name[:4] for file in files] == numbers

    for before, file in zip([None, *numbers], files, strict=False):
        match = _REVISION.search(file.read_text())
        assert match, file.name
        assert match.groups() == (file.name[:4], before)
