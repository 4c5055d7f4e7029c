"""The history of the tables: Alembic's environment, and one file per change in ``versions/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VERSION_TABLE = "data_layer_schema_version"
"""Holds the revision that the database is at. Not Alembic's usual name, which a host application may use itself."""

ENVIRONMENT = Path(__file__).parent
VERSIONS = ENVIRONMENT / "versions"
BASE = "base"
"""Alembic's name for the state before the first migration."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One migration: ``identifier`` is its number, such as ``0001``; ``title`` says what it does."""

    identifier: str
    title: str


def known_revisions(versions: Path = VERSIONS) -> tuple[Revision, ...]:
    """All migrations that this version of the code has, oldest first; each builds on the one before it.

    They are read from the names of the files, so that a service can compare revisions without loading Alembic.
    """
    names = [stem.partition("_") for stem in sorted(path.stem for path in versions.glob("[0-9]*_*.py"))]
    return tuple(Revision(identifier, title.replace("_", " ")) for identifier, _, title in names)
