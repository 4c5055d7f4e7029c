"""Writes the file of the next migration: ``python -m data_layer.database.migrations "Add a column"``."""

from __future__ import annotations

import argparse
import sys

from data_layer.database.migrations.alembic_commands import write_migration


def main() -> None:
    """Read the title from the command line, write the file, and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m data_layer.database.migrations", description=__doc__)
    parser.add_argument("title", help="what the migration does, in a few words")
    path = write_migration(parser.parse_args().title)
    sys.stdout.write(f"Fill in {path}, and change the models in the same commit.\n")


if __name__ == "__main__":
    main()
