"""``data-layer projects``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from data_layer.cli.output import (
    AsJson,
    console,
    counted,
    print_facts,
    print_json,
    print_table,
    read_settings,
    run,
    say,
    size,
    tell,
)
from data_layer.config import Settings

if TYPE_CHECKING:
    from data_layer.schemas.codes import GeneratedCodeSummary
    from data_layer.services.projects import ProjectDetails, ProjectRow

_COLUMNS = ("Name", "Type", "Status", "Versions", "Changed", "Owner", "Id")
# From which width of the terminal there is room for the last two columns.
_WIDTH_WITH_OWNER, _WIDTH_WITH_ID = 108, 146

commands = typer.Typer(help="What is stored.", no_args_is_help=True)


@commands.command("list")
def list_projects(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of projects.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List projects, those that changed last first."""
    rows = run(_list(read_settings(as_json=as_json), limit), as_json=as_json)
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("There are no projects. Add the example data with: data-layer db seed")
        return
    title = counted(len(rows), "project") + (" that changed last; for more: --limit" if len(rows) == limit else "")
    shown = len(_COLUMNS) - (console.width < _WIDTH_WITH_OWNER) - (console.width < _WIDTH_WITH_ID)
    cells = [(p.name, p.type, p.status, p.version_count, f"{p.updated_at:%Y-%m-%d}", p.owner, p.id) for p in rows]
    print_table(title, _COLUMNS[:shown], [row[:shown] for row in cells], right=("Versions",))
    if hidden := _COLUMNS[shown:]:
        tell(f"Not shown in {console.width} columns: {' and '.join(hidden)}; widen the terminal, or use --json")


@commands.command()
def show(project: Annotated[str, typer.Argument(help="The id or the name.")], *, as_json: AsJson = False) -> None:
    """Show a project with its versions and images."""
    details = run(_show(read_settings(as_json=as_json), project), as_json=as_json)
    if as_json:
        print_json(details)
    else:
        _print_details(details)


def _print_details(details: ProjectDetails) -> None:
    project = details.project
    screenshot = project.original_image and f"{project.original_image} ({size(project.original_image_size or 0)})"
    facts = {
        "Id": project.id,
        "Owner": details.owner.display_name or details.owner.id,
        "Type": f"{project.type}, {project.status}",
        "Tags": ", ".join(project.tags),
        "Screenshot": screenshot,
        "Description": project.description,
        "Instructions": project.instructions,
    }
    print_facts(project.name, {name: value for name, value in facts.items() if value})
    console.print()
    _print_versions(details.versions)
    if details.images:
        console.print()
        print_table(
            counted(len(details.images), "image"),
            ("Name", "Provider", "Pixels", "Prompt"),
            [(image.name or "", image.provider, image.size, image.prompt) for image in details.images],
        )


def _print_versions(versions: Sequence[GeneratedCodeSummary]) -> None:
    single = {number for number, variants in Counter(each.version for each in versions).items() if variants == 1}
    numbers = {v.id: f"{v.version}" if v.version in single else f"{v.version}.{v.variant_index}" for v in versions}
    print_table(
        counted(len({v.version for v in versions}), "version"),
        ("Version", "Made from", "Name", "Stack", "Model", "Status", "Size", "Made"),
        [
            (
                *(numbers[v.id], numbers.get(v.parent_id, "") if v.parent_id else "", v.name or ""),
                *(v.code_stack, v.model, v.status, size(v.code_size), f"{v.created_at:%Y-%m-%d %H:%M}"),
            )
            for v in versions
        ],
        right=("Version", "Made from", "Size"),
    )


async def _list(settings: Settings, limit: int) -> Sequence[ProjectRow]:
    from data_layer.layer import DataLayer

    async with DataLayer(settings) as data:
        return await data.projects.recent(limit=limit)


async def _show(settings: Settings, project: str) -> ProjectDetails:
    from data_layer.layer import DataLayer

    async with DataLayer(settings) as data:
        return await data.projects.details(project)
