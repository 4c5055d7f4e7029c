"""Alembic's commands, run from the installed package: no alembic.ini, no working directory, no second connection."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from data_layer.database.migrations import ENVIRONMENT, VERSIONS, known_revisions
from data_layer.errors import MigrationError


class Migrations:
    """The migrations of a folder, to be run on idle connections.

    Alembic's own commands read all files again for each migration, which for a new database takes as long as the rest.
    """

    def __init__(self, versions: Path = VERSIONS) -> None:
        self._versions = versions
        self._scripts = ScriptDirectory.from_config(configuration(versions))

    def upgrade(self, connection: Connection, revision: str) -> None:
        """Run the missing migrations up to ``revision``, each in its own transaction."""
        # Alembic's own commands pass it on like this.
        self._run(connection, self._scripts._upgrade_revs, revision)  # noqa: SLF001

    def downgrade(self, connection: Connection, revision: str) -> None:
        """Undo the migrations after ``revision``, each in its own transaction."""
        self._run(connection, self._scripts._downgrade_revs, revision)  # noqa: SLF001  (see above)

    def _run(self, connection: Connection, find_steps: Callable[[str, Any], list[Any]], revision: str) -> None:
        with EnvironmentContext(
            configuration(self._versions, connection),
            self._scripts,
            fn=lambda current, _: find_steps(revision, current),
            destination_rev=revision,
        ):
            self._scripts.run_env()


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


def write_migration(title: str, versions: Path = VERSIONS) -> Path:
    """Write the file of the next migration, whose two functions are to be filled in, and return its path."""
    number = f"{len(known_revisions(versions)) + 1:04}"
    script = command.revision(configuration(versions), title, rev_id=number, version_path=str(versions))
    if script is None or isinstance(script, list):
        raise MigrationError("Alembic wrote no single file")
    return Path(script.path)


def configuration(
    versions: Path = VERSIONS, connection: Connection | None = None, output: io.StringIO | None = None
) -> Config:
    """Alembic's configuration for this package."""
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(ENVIRONMENT).replace("%", "%%"))
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config
