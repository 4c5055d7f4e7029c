"""``data-layer storage``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from data_layer.cli.codes import print_code_check
from data_layer.cli.output import (
    FAILED,
    AsJson,
    counted,
    notice,
    print_facts,
    print_json,
    print_table,
    read_settings,
    run,
    say,
    size,
)
from data_layer.config import Settings
from data_layer.errors import ConfigurationError

if TYPE_CHECKING:
    from data_layer.schemas.files import StorageUsage
    from data_layer.services.files.check import CheckReport
    from data_layer.services.files.cleanup import CleanupReport
    from data_layer.services.files.migration import MigrationReport
    from data_layer.services.generations.bodies import CodeCheckReport

_LONGEST_HOURS = 876_600  # A century; much more would lie before the first day of the calendar.

commands = typer.Typer(help="Where files are kept.", no_args_is_help=True)


AllowPublic = Annotated[bool, typer.Option("--allow-public", help="Accept that everybody can read all files.")]


@commands.command()
def init(*, allow_public: AllowPublic = False, as_json: AsJson = False) -> None:
    """Make the folder, bucket or container, private, and prove that files can be written. Harmless when it is there."""
    settings = read_settings(as_json=as_json)
    unknown = run(_init(settings, allow_public=allow_public), as_json=as_json)
    place = _place(settings)
    if as_json:
        print_json({"backend": settings.storage.storage_backend, "place": place, "unknown": list(unknown)})
    else:
        for line in unknown:
            notice(f"The server did not say, which does no harm: {line}", style="yellow")
        say(f"The {settings.storage.storage_backend} storage is ready: {place}")


@commands.command()
def check(
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its hash, too.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Repair objects whose bytes are there, with the size or headers wrong.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the table of files with the storage, both ways, and the texts of codes with their hashes.

    The exit code is 1 when something is wrong.
    """
    report, codes = run(_check(read_settings(as_json=as_json), deep=deep, repair=apply), as_json=as_json)
    if as_json:
        print_json({**report.model_dump(mode="json"), "codes": codes})
    else:
        say(f"Compared {counted(report.objects, 'object')}, {size(report.size)}; {report.recorded:,} are recorded.")
        if report.unrecorded:
            say(f"{counted(report.unrecorded, 'object')} belong to rows that hold their key.")
        if report.young:
            say(f"{counted(report.young, 'object')} may be about to be recorded.")
        if report.unusable:
            say(f"{counted(report.unusable, 'object')} of something else have keys that no file of ours can have:")
            for key in report.unusable_keys:
                say(f"  {key}")
        if report.findings:
            rows = [
                (
                    f"{finding.problem.replace('_', ' ')}{', repaired' if finding.is_repaired else ''}",
                    finding.backend,
                    finding.key,
                )
                for finding in report.findings
            ]
            print_table(counted(len(rows), "problem"), ("Problem", "Storage", "Key"), rows)
        if not report.is_clean:
            notice(
                "Orphans go with: data-layer storage cleanup. Wrong sizes and headers are repaired, where the "
                "bytes are there, with: data-layer storage check --apply. Missing and damaged files come back from a "
                "backup only."
            )
        print_code_check(codes)
    if not (report.is_clean and codes.is_clean):
        raise typer.Exit(FAILED)


@commands.command()
def cleanup(
    *,
    yes: Annotated[bool, typer.Option("--apply", "--yes", help="Really remove it.")] = False,
    older_than: Annotated[
        float,
        typer.Option("--older-than", min=0, max=_LONGEST_HOURS, help="Hours that something must have been useless."),
    ] = 24,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Also unknown objects that applications may have put there themselves.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is expired, abandoned, unreferenced or unknown; remove it with --apply. Stopping it does no harm."""
    report = run(
        _cleanup(read_settings(as_json=as_json), hours=older_than, apply=yes, everywhere=everywhere), as_json=as_json
    )
    if as_json:
        print_json(report)
        return
    facts = {
        "Expired files": report.expired,
        "Abandoned uploads": report.abandoned,
        "Half-deleted objects": report.half_deleted,
        "Unreferenced objects": report.unreferenced,
        "Unusable keys, left": report.unusable,
        "Orphaned objects": f"{report.orphans} ({size(report.orphan_size)})",
    }
    print_facts("Removed" if report.applied else "Would be removed", facts)
    if not report.applied:
        notice("Nothing was removed. To remove it: data-layer storage cleanup --apply")


@commands.command()
def migrate(
    *,
    to: Annotated[str, typer.Option("--to", help="local, azure or s3: the one to copy everything into.")],
    as_json: AsJson = False,
) -> None:
    """Copy everything between STORAGE_BACKEND and STORAGE_SECOND_BACKEND, verified. Starting it again goes on.

    The service keeps running: start it with both settings, migrate, swap them and restart it, then migrate once more.
    """
    report = run(_migrate(read_settings(as_json=as_json), to), as_json=as_json)
    if as_json:
        print_json(report)
    else:
        say(
            f"Copied {counted(report.copied, 'object')} ({size(report.size)}) from {report.source} to {report.target}; "
            f"{report.present:,} were there already. {counted(report.moved, 'file')} moved."
        )
        for key in report.missing:
            say(f"Missing in {report.source}: {key}")
        for key in report.damaged:
            say(f"Damaged in {report.source}, not copied: {key}")
    if report.missing or report.damaged:
        raise typer.Exit(FAILED)


@commands.command()
def stats(*, as_json: AsJson = False) -> None:
    """Show how many files there are and what they take, by type, owner, state and storage."""
    usage = run(_stats(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(usage)
        return
    groups = {"Type": usage.by_type, "Owner": usage.by_owner, "State": usage.by_state, "Storage": usage.by_backend}
    say(f"{counted(usage.total.count, 'object')}, {size(usage.total.stored_size)} ({size(usage.total.size)} unpacked)")
    for name, rows in groups.items():
        cells = [(row.name, f"{row.count:,}", size(row.stored_size), size(row.size)) for row in rows]
        print_table("", (name, "Objects", "Stored", "Unpacked"), cells, right=("Objects", "Stored", "Unpacked"))


def _place(settings: Settings) -> str:
    match settings.storage.storage_backend:
        case "s3":
            return f"bucket {settings.storage.aws_s3_bucket}"
        case "azure":
            return f"container {settings.storage.azure_storage_container_name}"
        case _:
            return str(settings.storage.local_storage_path.absolute())


async def _init(settings: Settings, *, allow_public: bool) -> Sequence[str]:
    from data_layer.layer import create_storage, open_storage

    unknown = await create_storage(settings, allow_public=allow_public)
    async with open_storage(settings.storage, settings.security.session_secret) as storage:
        await storage.check()
    return unknown


async def _check(settings: Settings, *, deep: bool, repair: bool) -> tuple[CheckReport, CodeCheckReport]:
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    async with DataLayer(settings) as data:
        files = await data.file_maintenance.check(
            SYSTEM, deep=deep, repair=repair, on_progress=lambda seen: notice(f"Compared {counted(seen, 'object')} …")
        )
        return files, await data.maintenance.check_codes(repair=repair)


async def _cleanup(settings: Settings, *, hours: float, apply: bool, everywhere: bool) -> CleanupReport:
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    async with DataLayer(settings) as data:
        return await data.file_maintenance.cleanup(
            SYSTEM,
            apply=apply,
            everywhere=everywhere,
            older_than=timedelta(hours=hours),
            on_progress=lambda what, count: notice(f"{what.replace('_', ' ')}: {count:,} …"),
        )


async def _migrate(settings: Settings, target: str) -> MigrationReport:
    from data_layer.entities.enums import StorageKind
    from data_layer.layer import DataLayer

    kinds = [kind.value for kind in StorageKind]
    if target not in kinds:
        raise ConfigurationError(f"--to must be one of: {', '.join(kinds)}")
    async with DataLayer(settings) as data:
        return await data.file_maintenance.migrate(
            StorageKind(target), on_progress=lambda done: notice(f"{counted(done, 'object')} …")
        )


async def _stats(settings: Settings) -> StorageUsage:
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    async with DataLayer(settings) as data:
        return await data.file_maintenance.usage(SYSTEM)
