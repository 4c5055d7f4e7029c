"""``data-layer db``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from data_layer.cli.codes import print_code_check
from data_layer.cli.output import (
    FAILED,
    AsJson,
    counted,
    fail,
    notice,
    print_facts,
    print_json,
    print_table,
    read_settings,
    run,
    say,
)
from data_layer.config import Settings
from data_layer.errors import ConfigurationError

if TYPE_CHECKING:
    from data_layer.database.migrations.execution import MigrationProgress, ProgressListener
    from data_layer.database.migrator import Migrator
    from data_layer.database.schema_check import SchemaReport
    from data_layer.services.generations.bodies import CodeCheckReport
    from data_layer.services.seed import SeedReport

Result = TypeVar("Result")
commands = typer.Typer(help="The database and its tables.", no_args_is_help=True)


@commands.command()
def create(*, as_json: AsJson = False) -> None:
    """Make the database, and the useful extensions that the server has. Harmless when it exists."""
    settings = read_settings(as_json=as_json)
    report = _with_migrator(settings, lambda migrator, _: migrator.create(), as_json=as_json)
    if as_json:
        print_json(report)
        return
    say("The database was made." if report.created else "The database exists.")
    for name, status in report.extensions.items():
        say(f"Extension {name}: {status.replace('_', ' ')}")


@commands.command()
def migrate(
    target: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
    *,
    shared: Annotated[bool, typer.Option("--shared", help="Also beside other applications' tables.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the missing migrations. Several may be started at once: one works, the others wait."""
    settings = read_settings(as_json=as_json)
    done = _with_migrator(
        settings,
        lambda migrator, listener: migrator.migrate(target, shared=shared, on_progress=listener),
        as_json=as_json,
    )
    if as_json:
        print_json({"migrated": done})
    else:
        say(f"Ran {counted(len(done), 'migration')}: {', '.join(done)}." if done else "Nothing to do.")


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
    question = f"Undo the last {counted(steps, 'migration')} and lose what they store?"
    _confirm(settings, question, yes=yes, force=force, as_json=as_json)
    undone = _with_migrator(
        settings, lambda migrator, listener: migrator.rollback(steps, on_progress=listener), as_json=as_json
    )
    if as_json:
        print_json({"undone": undone})
    else:
        say(f"Undid {counted(len(undone), 'migration')}: {', '.join(undone)}." if undone else "Nothing to do.")


@commands.command()
def current(*, as_json: AsJson = False) -> None:
    """Show at which revision the database is, and which migrations it lacks."""
    state = _with_migrator(read_settings(as_json=as_json), lambda migrator, _: migrator.current(), as_json=as_json)
    if as_json:
        print_json(state)
        return
    facts = {
        "State": state.state.replace("_", " "),
        "Revision": state.revision or "none",
        "Needed": state.head or "none",
        "Missing": ", ".join(state.pending) or "none",
    }
    print_facts("Schema", facts)


@commands.command()
def check(
    *,
    schema_only: Annotated[bool, typer.Option("--schema-only", help="Do not read the texts of codes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare models, migrations and database, and the texts of codes; exit code 1 when something is wrong."""
    report, codes = run(_check(read_settings(as_json=as_json), schema_only=schema_only), as_json=as_json)
    if as_json:
        known = {"agrees": report.agrees, "schema": report.state, "differences": report.differences}
        print_json(known | {"codes": codes and codes.model_dump(mode="json")})
    elif report.agrees:
        say(f"Models, migrations and database agree (revision {report.state.revision}).")
    else:
        for difference in report.differences:
            say(str(difference))
        if remedy := _remedy(report.state.require_current):
            notice(remedy)
    if codes and not as_json:
        print_code_check(codes)
    if not report.agrees or (codes and not codes.is_clean):
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
    report, login = run(_seed(settings), as_json=as_json)
    if as_json:
        print_json(report.model_dump() | ({"login": login} if login else {}))
    else:
        rows = [(count, name.replace("_", " ")) for name, count in report.model_dump().items() if count]
        if rows:
            print_table("Added", ("Rows", "Of"), rows, right=("Rows",))
        else:
            say("Nothing was added: the example data is there already.")


@commands.command()
def reset(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also in production.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove all tables with all rows, and create them again, empty. Files in storage stay."""
    from data_layer.layer import describe_database

    settings = read_settings(as_json=as_json)
    _confirm(settings, f"Remove everything in {describe_database(settings)}?", yes=yes, force=force, as_json=as_json)
    migrated = _with_migrator(settings, _reset, as_json=as_json)
    if as_json:
        print_json({"reset": True, "migrated": migrated})
    else:
        say("The database is empty, with all its tables.")


def _reset(migrator: Migrator, listener: ProgressListener) -> tuple[str, ...]:
    migrator.reset(on_progress=listener)
    return migrator.migrate(on_progress=listener)


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
        notice("Waiting for another process that is migrating …")
    else:
        revision = progress.revision
        notice(f"{progress.number}/{progress.total} {revision.identifier} {revision.title}: {progress.event}")


def _remedy(require: Callable[[], None]) -> str | None:
    from data_layer.errors import SchemaMismatchError

    try:
        require()
    except SchemaMismatchError as error:
        return str(error)
    return None


def _with_migrator(
    settings: Settings, work: Callable[[Migrator, ProgressListener], Result], *, as_json: bool
) -> Result:
    return run(_run_with_migrator(settings, work), as_json=as_json)


async def _run_with_migrator(settings: Settings, work: Callable[[Migrator, ProgressListener], Result]) -> Result:
    from data_layer.layer import open_migrator, run_in_thread

    async with open_migrator(settings) as migrator:
        return await run_in_thread(lambda listener: work(migrator, listener), _print_progress)


async def _check(settings: Settings, *, schema_only: bool) -> tuple[SchemaReport, CodeCheckReport | None]:
    """The schema, and the texts of codes if it is one that they can be read with."""
    from data_layer.layer import open_transactions
    from data_layer.services.generations.bodies import CodeCheck

    report = await _run_with_migrator(settings, lambda migrator, _: migrator.check())
    if schema_only or not report.state.is_current:
        return report, None
    async with open_transactions(settings) as transactions:
        check = CodeCheck(
            transactions, repair=False, on_progress=lambda seen: notice(f"Compared {counted(seen, 'text')} of codes …")
        )
        return report, await check.run()


async def _seed(settings: Settings) -> tuple[SeedReport, dict[str, str]]:
    from data_layer.layer import DataLayer

    login: dict[str, str] = {}

    def note(email: str, password: str) -> None:
        # At once, so that it is not lost if the rest fails.
        notice(f"Log in as {email} with the password {password} (shown only now)")
        login.update(email=email, password=password)

    async with DataLayer(settings) as data:
        return await data.seed.load(lambda name: notice(f"Added {name}"), note), login
