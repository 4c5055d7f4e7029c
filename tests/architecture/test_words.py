"""Pages and code use plain, idiomatic English: the words that once stood for it in this project do not come back."""

from __future__ import annotations

import re

from tests.architecture.source import PACKAGE, PROJECT

PAGES = [
    *(PROJECT / "docs").rglob("*.md"),
    *(PROJECT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
]
UNIDIOMATIC = re.compile(
    r"\b(tells?|told|telling|whoever|mend(ed|s)?|anew|besides|who is|of one's own)\b", re.IGNORECASE
)


def test_pages_are_written_in_idiomatic_english() -> None:
    assert len(PAGES) > 20
    found = [
        f"{page.relative_to(PROJECT)}:{number}: {match[0]}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if (match := UNIDIOMATIC.search(line))
    ]
    assert found == []


IN_CODE = re.compile(
    r"\b(told|whoever|mend(ed|s)?|anew|besides|owed|condemn(s|ed)?|travel(s|led)? together)\b", re.IGNORECASE
)


def test_code_is_written_in_idiomatic_english() -> None:
    found = [
        f"{file.relative_to(PROJECT)}:{number}: {match[0]}"
        for file in PACKAGE.rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := IN_CODE.search(line))
    ]
    assert found == []
