"""Alembic's commands, run from the installed package: no alembic.ini, no working directory, no second connection."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config

from data_layer.database.migrations import ENVIRONMENT, VERSIONS

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

BASE = "base"
"""Alembic's name for the state before the first migration."""


def upgrade(connection: Connection, revision: str, versions: Path = VERSIONS) -> None:
    """Run the missing migrations up to ``revision``, each in its own transaction of this idle connection."""
    command.upgrade(configuration(versions, connection), revision)


def downgrade(connection: Connection, revision: str, versions: Path = VERSIONS) -> None:
    """Undo the migrations after ``revision``, each in its own transaction of this idle connection."""
    command.downgrade(configuration(versions, connection), revision)


def upgrade_sql(after: str, revision: str, versions: Path = VERSIONS) -> str:
    """The SQL that brings a database from one revision to a later one, for a review or for running it by hand."""
    output = io.StringIO()
    command.upgrade(configuration(versions, output=output), f"{after}:{revision}", sql=True)
    return output.getvalue()


def downgrade_sql(revision: str, before: str, versions: Path = VERSIONS) -> str:
    """The SQL that brings a database from one revision back to an earlier one."""
    output = io.StringIO()
    command.downgrade(configuration(versions, output=output), f"{revision}:{before}", sql=True)
    return output.getvalue()


def configuration(
    versions: Path = VERSIONS, connection: Connection | None = None, output: io.StringIO | None = None
) -> Config:
    """Alembic's configuration for this package."""
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(ENVIRONMENT).replace("%", "%%"))
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
