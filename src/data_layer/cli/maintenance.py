"""``data-layer maintenance``."""

from __future__ import annotations

from typing import Annotated

import typer

from data_layer.cli.output import FAILED, AsJson, notice, print_facts, print_json, read_settings, run
from data_layer.config import Settings
from data_layer.schemas.operations import MaintenanceReport

commands = typer.Typer(help="Removal of what has expired.", no_args_is_help=True)
_FACTS = {
    "sessions_removed": "Sessions removed",
    "refresh_tokens_removed": "Refresh tokens removed",
    "session_changes_removed": "Journal rows removed",
    "idempotency_keys_removed": "Answers to repeated requests removed",
    "login_attempts_removed": "Login attempts removed",
    "projects_removed": "Deleted projects removed",
    "variants_expired": "Variants ended whose writer had stopped",
    "generation_events_removed": "Events of generations removed",
    "mails_removed": "Old mails removed",
    "exports_expired": "Archives of exports that expired",
    "exports_removed": "Old exports removed from the list",
    "projects_indexed": "Projects indexed for the search",
    "codes_packed": "Codes compressed",
    "code_bodies_removed": "Unneeded texts of codes removed",
    "files_expired": "Expired files removed",
    "uploads_abandoned": "Abandoned uploads removed",
    "objects_removed": "Unneeded objects removed",
    "images_given_thumbnails": "Images given thumbnails",
    "audit_partitions_made": "Audit partitions made",
    "audit_partitions_moved": "Audit partitions moved",
    "audit_partitions_dropped": "Audit partitions dropped",
    "audit_triggers_restored": "Audit triggers restored",
}


@commands.callback()
def _group() -> None:
    """Removal of what has expired."""


@commands.command("run")
def run_maintenance(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what there is to do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove expired sessions and tokens and old months of the audit trail, and make months ahead.

    Harmless at any time and on several machines: one process works, and an interrupted run is continued by the next.
    """
    report = run(_run(read_settings(as_json=as_json), dry_run=dry_run, quiet=as_json), as_json=as_json)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.is_complete:
        raise typer.Exit(FAILED)


def _print(report: MaintenanceReport) -> None:
    facts = {label: _shown(getattr(report, name)) for name, label in _FACTS.items()}
    print_facts("There is to do" if report.is_dry_run else "Done", facts)
    for problem in report.problems:
        notice(f"Left for the next run: {problem}", style="yellow")


def _shown(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, tuple) else f"{value:,}"


async def _run(settings: Settings, *, dry_run: bool, quiet: bool) -> MaintenanceReport:
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    def progress(step: str, count: int) -> None:
        if not quiet and count:
            notice(f"{step.replace('_', ' ')}: {count:,}", style="dim")

    async with DataLayer(settings) as data:
        return await data.maintenance.run(SYSTEM, dry_run=dry_run, on_progress=progress)
