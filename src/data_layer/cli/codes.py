"""``data-layer codes``: the code of a version, as text, as a difference and as a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_layer.cli.output import (
    AsJson,
    console,
    counted,
    new_file,
    notice,
    print_facts,
    print_json,
    print_table,
    run_with_data,
    say,
    size,
)

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.schemas.codes import GeneratedCodeFull
    from data_layer.schemas.generations import CodeDiff
    from data_layer.services.generations.bodies import CodeCheckReport

commands = typer.Typer(help="The code of projects.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class VersionNumber:
    """The number of a version, and of its variant; without the latter the selected one is meant."""

    number: int
    variant: int | None = None


def parse_version(text: str) -> VersionNumber:
    """Read ``3`` or ``3.1``."""
    number, dot, variant = text.partition(".")
    if not _is_number(number) or (dot and not _is_number(variant)):
        raise typer.BadParameter(f"{text!r} is not a version; write 3, or 3.1 for its variant 1")
    return VersionNumber(int(number), int(variant) if dot else None)


Project = Annotated[str, typer.Argument(help="The id or the name of the project.")]
Version = Annotated[
    VersionNumber | None,
    typer.Argument(
        parser=parse_version, metavar="[VERSION]", help="Such as 3, or 3.1 for its variant 1. Default: the latest."
    ),
]
Replaces = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


@commands.command()
def show(project: Project, version: Version = None, *, as_json: AsJson = False) -> None:
    """Show a version: how it was made, and its code."""
    code = run_with_data(lambda data: read_code(data, project, version), as_json=as_json)
    if as_json:
        print_json(code)
        return
    _print_facts(code)
    console.print()
    for line in code.code.split("\n"):
        say(line)


@commands.command()
def diff(
    project: Project,
    old: Annotated[
        VersionNumber, typer.Argument(parser=parse_version, metavar="OLD", help="A version, such as 3 or 3.1.")
    ],
    new: Version = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show how two versions differ."""

    async def work(data: DataLayer) -> CodeDiff:
        from data_layer.schemas.actors import SYSTEM

        before, after = [await read_code(data, project, version) for version in (old, new)]
        numbers = ((code.version, code.variant_index) for code in (before, after))
        return await data.generations.diff(SYSTEM, before.project_id, *numbers)

    found = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found.hunks:
        say("They do not differ.")
        return
    for line in found.unified.removesuffix("\n").split("\n"):
        say(line, style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))
    lines = counted(found.added_lines, "line")
    say(f"{lines} added, {found.removed_lines:,} removed", style="bold")


@commands.command()
def save(
    project: Project,
    version: Annotated[
        VersionNumber, typer.Argument(parser=parse_version, metavar="VERSION", help="Such as 3 or 3.1.")
    ],
    file: Annotated[Path, typer.Argument(help="Where to; - is standard output.")],
    *,
    force: Replaces = False,
    as_json: AsJson = False,
) -> None:
    """Write the code of a version to a file, byte for byte."""
    code = run_with_data(lambda data: read_code(data, project, version), as_json=as_json)
    write_text(file, code.code, replaces=force)
    if file != Path("-"):
        report_file(file, code, as_json=as_json)


async def read_code(data: DataLayer, project: str, version: VersionNumber | None) -> GeneratedCodeFull:
    """A version of a project that is named by its id or its name."""
    from data_layer.schemas.actors import SYSTEM

    found = await data.projects.find(project)
    if version is None:
        return await data.generations.latest(SYSTEM, found.id)
    return await data.generations.version(SYSTEM, found.id, version.number, version.variant)


def write_text(file: Path, text: str, *, replaces: bool) -> None:
    """Write a text to a file, or for ``-`` to standard output."""
    write_bytes(file, text.encode(), replaces=replaces)


def write_bytes(file: Path, content: bytes, *, replaces: bool) -> None:
    """Write bytes to a file, or for ``-`` to standard output."""
    if file == Path("-"):
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with new_file(file, replaces=replaces) as opened:
        opened.write(content)


def report_file(file: Path, code: GeneratedCodeFull, *, as_json: bool) -> None:
    """Say which version is in a file now."""
    if as_json:
        print_json({"file": str(file), "version": code.version, "variant_index": code.variant_index})
    else:
        say(f"Wrote version {code.version}.{code.variant_index} to {file}")


def _print_facts(code: GeneratedCodeFull) -> None:
    facts = {
        "Name": code.name,
        "Stack": code.code_stack,
        "Model": f"{code.model} ({code.provider})",
        "Status": code.status,
        "Error": code.error_message,
        "Prompt": code.original_prompt,
        "Tokens": code.total_tokens and f"{code.total_tokens:,}",
        "Rating": code.rating and f"{code.rating} of 5",
        "Size": size(len(code.code.encode())),
        "Made": f"{code.created_at:%Y-%m-%d %H:%M}",
    }
    title = f"Version {code.version}.{code.variant_index}"
    print_facts(title, {name: value for name, value in facts.items() if value})


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(2**31))


def print_code_check(report: CodeCheckReport) -> None:
    """Say what was found among the texts of codes; nothing where there are none and nothing is wrong."""
    if not report.bodies and not report.findings:
        return
    sizes = f"{size(report.size)} in {size(report.stored_size)}"
    say(f"Compared {counted(report.bodies, 'text')} of codes with their hashes, {sizes}.")
    if report.orphans:
        say(f"Needed no more: {counted(report.orphans, 'text')} of codes, which maintenance removes:")
        for name in report.orphan_bodies:
            say(f"  {name.sha256} of project {name.project_id}")
    if report.findings:
        rows = [
            (
                f"{finding.problem.replace('_', ' ')}{', repaired' if finding.is_repaired else ''}",
                str(finding.project_id),
                ", ".join(finding.versions) or "none",
                finding.sha256,
            )
            for finding in report.findings
        ]
        print_table(counted(len(rows), "problem"), ("Problem", "Project", "Versions", "SHA-256"), rows)
    if not report.is_clean:
        notice(
            "Sizes, hashes and such texts of codes as are also in a row or in another project are repaired with: "
            "data-layer storage check --apply. Others come back from a backup only."
        )
