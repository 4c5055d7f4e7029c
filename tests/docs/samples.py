"""The code samples of the site, as they stand in its sources.

A sample that no test can run has a comment before it that says why: ``<!-- not run: needs an account at Amazon -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Sample:
    """One block. ``line`` is where its text begins; ``not_run`` says why no test runs it."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None


def all_samples() -> list[Sample]:
    """All that are on the pages; no directives and no output of programs (``text``)."""
    return [sample for page in sorted(SOURCE.rglob("*.md")) if "_build" not in page.parts for sample in _samples(page)]


def samples_by_page(language: str) -> dict[str, list[Sample]]:
    """Those that are to be run, in the order in which they are read."""
    found: dict[str, list[Sample]] = {}
    for sample in all_samples():
        if sample.language == language and sample.not_run is None:
            found.setdefault(sample.page, []).append(sample)
    return found


def _samples(page: Path) -> list[Sample]:
    content = page.read_text()
    name = str(page.relative_to(SOURCE).with_suffix(""))
    assert not re.search(r"^[ \t]+```", content, re.MULTILINE), f"{name}: an indented sample would be overlooked"
    return [
        Sample(name, content.count("\n", 0, match.start("text")) + 1, match["language"], match["text"], match["reason"])
        for match in _FENCE.finditer(content)
        if match["language"] != "text" and not match["language"].startswith("{")
    ]
