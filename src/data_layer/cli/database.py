"""``data-layer db``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from data_layer.cli.output import (
    FAILED,
    AsJson,
    console,
    error_console,
    fail,
    print_json,
    print_table,
    read_settings,
    run,
)
from data_layer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_layer.config import Settings
    from data_layer.database.migrations.progress import MigrationProgress
    from data_layer.database.migrator import Migrator
    from data_layer.services.seed import SeedReport

Result = TypeVar("Result")
commands = typer.Typer(help="The database and its tables.", no_args_is_help=True)


@commands.command()
def create(*, as_json: AsJson = False) -> None:
    """Make the database, and the useful extensions that the server has. Harmless when it exists."""
    settings = read_settings(as_json=as_json)
    report = _with_migrator(settings, lambda migrator: migrator.create(), as_json=as_json)
    if as_json:
        print_json(report)
        return
    console.print("The database was made." if report.created else "The database exists.")
    for name, status in report.extensions.items():
        console.print(f"Extension {name}: {status}", markup=False)


@commands.command()
def migrate(
    target: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
    *,
    shared: Annotated[bool, typer.Option(help="Allow a database that holds other applications' tables.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the missing migrations. Several may be started at once: one works, the others wait."""
    settings = read_settings(as_json=as_json)
    done = _with_migrator(
        settings,
        lambda migrator: migrator.migrate(target, shared=shared, on_progress=_print_progress),
        as_json=as_json,
    )
    if as_json:
        print_json({"migrated": done})
    else:
        console.print(f"Ran {len(done)} migrations: {', '.join(done)}." if done else "Nothing to do.", markup=False)


@commands.command()
def rollback(
    steps: Annotated[int, typer.Argument(min=1, help="How many migrations to undo.")] = 1,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also in production.")] = False,
    as_json: AsJson = False,
) -> None:
    """Undo the last migrations, with what they stored."""
    settings = read_settings(as_json=as_json)
    _confirm(
        settings, f"Undo the last {steps} migrations and lose what they store?", yes=yes, force=force, as_json=as_json
    )
    undone = _with_migrator(
        settings, lambda migrator: migrator.rollback(steps, on_progress=_print_progress), as_json=as_json
    )
    if as_json:
        print_json({"undone": undone})
    else:
        console.print(
            f"Undid {len(undone)} migrations: {', '.join(undone)}." if undone else "Nothing to do.", markup=False
        )


@commands.command()
def current(*, as_json: AsJson = False) -> None:
    """Show at which revision the database is, and which migrations it lacks."""
    state = _with_migrator(read_settings(as_json=as_json), lambda migrator: migrator.current(), as_json=as_json)
    if as_json:
        print_json(state)
        return
    facts = {
        "State": state.state,
        "Revision": state.revision or "none",
        "Needed": state.head or "none",
        "Missing": ", ".join(state.pending) or "none",
    }
    print_table("Schema", ("", ""), facts.items())


@commands.command()
def check(*, as_json: AsJson = False) -> None:
    """Compare models, migrations and database; exit code 1 when they do not agree."""
    report = _with_migrator(read_settings(as_json=as_json), lambda migrator: migrator.check(), as_json=as_json)
    if as_json:
        print_json({"agrees": report.agrees, "schema": report.state, "differences": report.differences})
    elif report.agrees:
        console.print(f"Models, migrations and database agree (revision {report.state.revision}).", markup=False)
    else:
        for difference in report.differences:
            console.print(str(difference), markup=False)
        with_remedy = _with_remedy(report.state.require_current)
        if with_remedy:
            error_console.print(with_remedy, markup=False)
    if not report.agrees:
        raise typer.Exit(FAILED)


@commands.command()
def seed(*, as_json: AsJson = False) -> None:
    """Add the example data. What is there already stays as it is."""
    settings = read_settings(as_json=as_json)
    if settings.is_production:
        fail(
            ConfigurationError("example data does not belong into production; set ENVIRONMENT to another one"),
            as_json=as_json,
        )
    report = run(_seed(settings), as_json=as_json)
    if as_json:
        print_json(report)
    else:
        print_table("Added", ("What", "Rows"), report.model_dump().items())


@commands.command()
def reset(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also in production.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove all tables with all rows, and make them anew, empty. Files in storage stay."""
    settings = read_settings(as_json=as_json)
    _confirm(
        settings, f"Remove everything in the database {settings.db_name!r}?", yes=yes, force=force, as_json=as_json
    )
    migrated = _with_migrator(settings, _reset, as_json=as_json)
    if as_json:
        print_json({"reset": True, "migrated": migrated})
    else:
        console.print("The database is empty, with all its tables.")


def _reset(migrator: Migrator) -> tuple[str, ...]:
    migrator.reset(on_progress=_print_progress)
    return migrator.migrate(on_progress=_print_progress)


def _confirm(settings: Settings, question: str, *, yes: bool, force: bool, as_json: bool) -> None:
    if settings.is_production and not force:
        fail(
            ConfigurationError("this destroys data, and ENVIRONMENT is production; add --force to do it"),
            as_json=as_json,
        )
    if not yes:
        typer.confirm(question, abort=True, err=True)


def _print_progress(progress: MigrationProgress) -> None:
    if progress.revision is None:
        error_console.print("Waiting for another process that is migrating …")
    else:
        revision = progress.revision
        error_console.print(
            f"{progress.number}/{progress.total} {revision.identifier} {revision.title}: {progress.event}", markup=False
        )


def _with_remedy(require: Callable[[], None]) -> str | None:
    from data_layer.errors import SchemaMismatchError

    try:
        require()
    except SchemaMismatchError as error:
        return str(error)
    return None


def _with_migrator(settings: Settings, work: Callable[[Migrator], Result], *, as_json: bool) -> Result:
    return run(_run_with_migrator(settings, work), as_json=as_json)


async def _run_with_migrator(settings: Settings, work: Callable[[Migrator], Result]) -> Result:
    from data_layer.layer import open_migrator

    async with open_migrator(settings) as migrator:
        return await asyncio.to_thread(work, migrator)


async def _seed(settings: Settings) -> SeedReport:
    from data_layer.layer import DataLayer

    async with DataLayer(settings) as data:
        return await data.seed.plant(lambda name: error_console.print(f"Planting {name} …", markup=False))
