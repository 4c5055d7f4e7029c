"""``data-layer projects``."""

from __future__ import annotations

import html
import re
import webbrowser
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

from data_layer.cli.codes import Replaces, Version, read_code, report_file, write_text
from data_layer.cli.output import (
    AsJson,
    console,
    counted,
    notice,
    print_facts,
    print_json,
    print_table,
    run_with_data,
    say,
    say_emphasized,
    size,
)
from data_layer.cli.transfer import export_project

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.schemas.codes import GeneratedCodeFull, GeneratedCodeSummary
    from data_layer.schemas.generations import GenerationView
    from data_layer.schemas.projects import ProjectFull, ProjectSummary
    from data_layer.schemas.search import SearchPage
    from data_layer.schemas.shares import ShareView
    from data_layer.schemas.usage import UsageSum
    from data_layer.services.projects import ProjectDetails

_COLUMNS = ("Name", "Type", "Status", "Versions", "Changed", "Owner", "Id")
# From which width of the terminal there is room for the last two columns.
_WIDTH_WITH_OWNER, _WIDTH_WITH_ID = 108, 146

_LONGEST_PROMPT = 60

# What a generated page does, it does without access to anything: in an origin that it shares with nobody.
_FRAME = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<style>html, body, iframe {{ margin: 0; border: 0; width: 100%; height: 100%; display: block }}</style>
<iframe sandbox="allow-scripts allow-forms allow-popups" srcdoc="{page}"></iframe>
"""

commands = typer.Typer(help="Projects, and what is in them.", no_args_is_help=True)

Named = Annotated[str, typer.Argument(metavar="PROJECT", help="The id or the name.")]


@commands.command("list")
def list_projects(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of projects.")] = 50,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those in the trash.")] = False,
    as_json: AsJson = False,
) -> None:
    """List projects, those that changed last first."""
    rows = run_with_data(lambda data: data.projects.recent(limit=limit, is_deleted=deleted), as_json=as_json)
    if as_json:
        print_json(rows)
        return
    if not rows and deleted:
        say("The trash is empty.")
        return
    if not rows:
        say("There are no projects. Add the example data with: data-layer db seed")
        return
    title = counted(len(rows), "project") + (" that changed last; for more: --limit" if len(rows) == limit else "")
    shown = len(_COLUMNS) - (console.width < _WIDTH_WITH_OWNER) - (console.width < _WIDTH_WITH_ID)
    cells = [(p.name, p.type, p.status, p.version_count, f"{p.updated_at:%Y-%m-%d}", p.owner, p.id) for p in rows]
    print_table(title, _COLUMNS[:shown], [row[:shown] for row in cells], right=("Versions",))
    if hidden := _COLUMNS[shown:]:
        notice(f"Not shown in {console.width} columns: {' and '.join(hidden)}; widen the terminal, or use --json")


@commands.command()
def search(
    words: Annotated[str, typer.Argument(help='As in a web search, such as: kuchen -apfel or "two words".')],
    *,
    user: Annotated[str | None, typer.Option(help="Only this person's: the id or the e-mail address.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="The largest number of projects.")] = 20,
    after: Annotated[str | None, typer.Option(help="The cursor that the page before ended with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find projects by what is in them: names, tags, descriptions, prompts and the text of their pages."""

    async def work(data: DataLayer) -> SearchPage:
        from data_layer.schemas.actors import SYSTEM

        owner_id = None if user is None else (await data.accounts.find(SYSTEM, user)).id
        return await data.projects.search(SYSTEM, words, owner_id=owner_id, limit=limit, after=after)

    found = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(found)
    elif not found.hits:
        say("Nothing was found.")
    else:
        _print_hits(found)


@commands.command()
def show(project: Named, *, as_json: AsJson = False) -> None:
    """Show a project with its versions, images, shares and costs."""

    async def work(data: DataLayer) -> tuple[ProjectDetails, Sequence[ShareView], Sequence[UsageSum]]:
        from data_layer.schemas.actors import SYSTEM

        details = await data.projects.details(project)
        project_id = details.project.id
        shares = await data.shares.list(SYSTEM, project_id) if details.project.deleted_at is None else ()
        return details, shares, await data.usage.sums(SYSTEM, everyone=True, project_id=project_id)

    details, shares, costs = run_with_data(work, as_json=as_json)
    if as_json:
        print_json({**details.model_dump(mode="json"), "shares": shares, "usage": costs})
    else:
        _print_details(details, shares, costs)


@commands.command("open")
def open_page(
    project: Named,
    version: Version = None,
    *,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only write the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open the page of a version in the browser, where its scripts reach nothing of yours."""

    async def work(data: DataLayer) -> tuple[GeneratedCodeFull, str]:
        found = await read_code(data, project, version)
        return found, await _page_of(data, found)

    code, page = run_with_data(work, as_json=as_json)
    title = f"Version {code.version}.{code.variant_index} of {project}"
    file = Path(mkdtemp(prefix="data-layer-"), "page.html")
    write_text(file, _FRAME.format(title=html.escape(title), page=html.escape(page)), replaces=False)
    is_open = not no_browser and webbrowser.open(file.as_uri())
    if as_json:
        print_json({"file": str(file), "opened": is_open, "version": code.version, "variant_index": code.variant_index})
    else:
        say(f"Opened {title}: {file}" if is_open else f"Open this file in a browser: {file}")


@commands.command("export-html")
def export_html(
    project: Named,
    version: Version = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File, or - for standard output. Default: as the project.")
    ] = None,
    force: Replaces = False,
    as_json: AsJson = False,
) -> None:
    """Write the page of a version to a file, with images that live; `codes save` writes what was generated."""

    async def work(data: DataLayer) -> tuple[ProjectSummary, GeneratedCodeFull, str]:
        code = await read_code(data, project, version)
        return await data.projects.find(project), code, await _page_of(data, code)

    found, code, page = run_with_data(work, as_json=as_json)
    file = output or Path(f"{_file_name(found.name)}-v{code.version}.html")
    write_text(file, page, replaces=force)
    if file != Path("-"):
        report_file(file, code, as_json=as_json)


async def _page_of(data: DataLayer, code: GeneratedCodeFull) -> str:
    from data_layer.schemas.actors import SYSTEM

    return await data.pages.show(SYSTEM, code.id, code.code, base=data.settings.base_url)


commands.command("export")(export_project)


@commands.command()
def history(
    project: Named,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of generations.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Only versions before this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what was asked for in a project and what came of it, the last version first."""

    async def work(data: DataLayer) -> Sequence[GenerationView]:
        from data_layer.schemas.actors import SYSTEM

        found = await data.projects.find(project)
        return await data.generations.history(SYSTEM, found.id, limit=limit, before=before)

    generations = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(generations)
    elif not generations:
        say("There are no such versions.")
    else:
        _print_history(generations, is_full=len(generations) == limit)


@commands.command()
def delete(
    project: Named,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a project to the trash; `data-layer projects restore` undoes it."""
    if not yes:
        typer.confirm(f"Move the project {project!r} to the trash?", abort=True, err=True)

    async def work(data: DataLayer) -> ProjectSummary:
        from data_layer.schemas.actors import SYSTEM

        found = await data.projects.find(project)
        await data.projects.delete(SYSTEM, found.id)
        return found

    deleted = run_with_data(work, as_json=as_json)
    if as_json:
        print_json({"deleted": deleted.id})
    else:
        say(f"{deleted.name} is in the trash. To undo: data-layer projects restore {deleted.id}")


@commands.command()
def restore(project: Named, *, as_json: AsJson = False) -> None:
    """Bring a project back from the trash."""

    async def work(data: DataLayer) -> ProjectFull:
        from data_layer.schemas.actors import SYSTEM

        found = await data.projects.find(project, is_deleted=True)
        return await data.projects.restore(SYSTEM, found.id)

    restored = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(restored)
    else:
        say(f"{restored.name} is {restored.status} again.")


@commands.command()
def clone(
    project: Named,
    *,
    name: Annotated[str | None, typer.Option(help="Of the copy. Otherwise that of the original, with (copy).")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="The last version of the copy.")] = None,
    history: Annotated[bool, typer.Option(help="Copy all versions, or only one, which becomes version 1.")] = True,
    as_json: AsJson = False,
) -> None:
    """Copy a project for its owner, with files of its own."""

    async def work(data: DataLayer) -> ProjectFull:
        from data_layer.schemas.actors import SYSTEM

        found = await data.projects.find(project)
        return await data.projects.clone(SYSTEM, found.id, name=name, history=history, version=version)

    copy = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(copy)
    else:
        say(f"{copy.name} has {counted(copy.generation_count, 'version')}.")
        notice(f"Show it with: data-layer projects show {copy.id}")


def _print_hits(found: SearchPage) -> None:
    for hit in found.hits:
        say(f"{hit.project.name}  {hit.project.id}", style="bold")
        for highlight in hit.highlights:
            if highlight.field != "name":
                say_emphasized(f"  {highlight.field}: ", highlight.text, highlight.ranges)
    if found.next is not None:
        console.print()
        say(f"More: --after {found.next}")


def _print_details(details: ProjectDetails, shares: Sequence[ShareView], costs: Sequence[UsageSum]) -> None:
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
        "Cost": ", ".join(f"{total.cost:,.2f} {total.currency} in {counted(total.entries, 'call')}" for total in costs),
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
    if shares:
        console.print()
        print_table(
            counted(len(shares), "share"),
            ("Shows", "Views", "Expires", "Revoked", "Made"),
            [
                (
                    "the latest" if share.is_following else f"{share.version}.{share.variant_index}",
                    *(f"{share.view_count:,}", _day(share.expires_at), _day(share.revoked_at), _day(share.created_at)),
                )
                for share in shares
            ],
            right=("Views",),
        )


def _print_history(generations: Sequence[GenerationView], *, is_full: bool) -> None:
    places = {v.id: f"{v.version}.{v.variant_index}" for each in generations for v in each.variants}
    rows = []
    for each in generations:
        for place, variant in enumerate(each.variants):
            is_first = place == 0
            rows.append(
                (
                    *(
                        f"{variant.version}.{variant.variant_index}",
                        places.get(variant.parent_id, "") if variant.parent_id else "",
                    ),
                    each.generation_type if is_first else "",
                    _shortened(each.prompt or "") if is_first else "",
                    *(variant.name or "", variant.model, variant.status, size(variant.code_size)),
                    "selected" if variant.variant_index == each.selected_variant else "",
                )
            )
    more = f"; for more: --before {generations[-1].number}" if is_full and generations[-1].number > 1 else ""
    columns = ("Version", "Made from", "Type", "Prompt", "Name", "Model", "Status", "Size", "")
    print_table(counted(len(generations), "version") + more, columns, rows, right=("Version", "Made from", "Size"))


def _shortened(text: str) -> str:
    line = " ".join(text[: 2 * _LONGEST_PROMPT].split())
    return line if len(line) <= _LONGEST_PROMPT else f"{line[: _LONGEST_PROMPT - 1]}…"


def _day(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d}"


def _file_name(project: str) -> str:
    """A name for a file, without anything that would lead elsewhere or mean something to a shell."""
    return "-".join(re.findall(r"\w+", project.lower()))[:80] or "page"


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
