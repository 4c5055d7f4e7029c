"""``data-layer import`` and ``data-layer projects export``: work that comes from elsewhere, or goes there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_layer.cli.codes import Replaces
from data_layer.cli.output import AsJson, counted, new_file, notice, print_json, print_table, run_with_data, say

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.services.transfer.archives import ExportedProject
    from data_layer.services.transfer.importing import ImportReport


def import_files(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    *,
    user: Annotated[str, typer.Option("--user", "-u", help="Whose it will be: the id or the e-mail address.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be brought.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a person what the application has left on a disk, and projects that were exported.

    Assets, design-systems.json, prompt reports, evaluation results, pages and ZIP files of `data-layer projects export`
    are known by their names and contents. What is there already is not brought a second time.
    """

    async def work(data: DataLayer) -> ImportReport:
        from data_layer.schemas.actors import SYSTEM
        from data_layer.services.transfer.importing import Importer, ImportTargets

        owner = await data.accounts.find(SYSTEM, user)
        targets = ImportTargets(
            data.transaction, data.projects, data.generations, data.files, data.images, data.designs
        )
        importer = Importer(targets, owner.id, is_dry_run=dry_run, on_progress=notice)
        return await importer.run(paths)

    report = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if report.problems:
        raise typer.Exit(1)


def export_project(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="The id or the name.")],
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="ZIP file. Default: as the project.")] = None,
    force: Replaces = False,
    as_json: AsJson = False,
) -> None:
    """Write a project with its versions, files and images to a ZIP file, which `data-layer import` reads."""

    async def work(data: DataLayer) -> tuple[Path, ExportedProject]:
        from data_layer.schemas.actors import SYSTEM
        from data_layer.services.transfer.archives import ProjectArchives

        found = await data.projects.find(project)
        target = output or Path(f"project-{found.id}.zip")
        archives = ProjectArchives(data.projects, data.generations, data.files, data.images)
        with new_file(target, replaces=force) as file:
            return target, await archives.write(SYSTEM, found.id, file)

    target, exported = run_with_data(work, as_json=as_json)
    if as_json:
        print_json({"file": str(target), "exported": exported})
        return
    parts = (
        counted(exported.generations, "version"),
        counted(exported.variants, "variant"),
        counted(exported.files, "file"),
        counted(exported.images, "image"),
    )
    say(f"Wrote {exported.name} with {', '.join(parts)} to {target}")
    if exported.missing:
        notice(f"{counted(exported.missing, 'file')} could not be read; data-layer storage check says more.")


def _print_report(report: ImportReport) -> None:
    kinds = sorted({*report.added, *report.known})
    if kinds:
        title = "Would be brought" if report.is_dry_run else "Brought"
        rows = [(kind, report.added.get(kind, 0), report.known.get(kind, 0)) for kind in kinds]
        print_table(title, ("What", "New", "Known"), rows, right=("New", "Known"))
    elif not report.problems:
        say("There is nothing to bring.")
    if report.problems:
        print_table("Not brought", ("Where", "Why"), [(problem.path, problem.reason) for problem in report.problems])
