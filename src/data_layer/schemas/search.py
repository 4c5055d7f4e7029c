"""What a search has found."""

from __future__ import annotations

from enum import StrEnum

from data_layer.schemas.base import Value
from data_layer.schemas.projects import ProjectPublic, ProjectSummary


class SearchedField(StrEnum):
    """What of a project was searched."""

    NAME = "name"
    TAGS = "tags"
    DESCRIPTION = "description"
    INSTRUCTIONS = "instructions"
    PROMPT = "prompt"
    PAGE = "page"


class Highlight(Value):
    """A piece of text that holds what was looked for.

    It is plain text, as people and models wrote it: escape it before it becomes part of a page. ``ranges`` are the
    places to emphasize, as pairs of first character and the one after the last, counted in Unicode characters.
    """

    field: SearchedField
    text: str
    ranges: tuple[tuple[int, int], ...]


class ProjectHit(Value):
    """A project that was found. Of somebody else's only what is public is shown, and was searched."""

    project: ProjectSummary | ProjectPublic
    rank: float
    highlights: tuple[Highlight, ...]


class SearchPage(Value):
    """The best hits first; ``next`` is the cursor of the page after it, None on the last one."""

    hits: tuple[ProjectHit, ...]
    next: str | None
