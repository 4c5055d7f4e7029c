"""``data-layer health``."""

from __future__ import annotations

import typer

from data_layer.cli.output import FAILED, AsJson, print_json, print_table, read_settings, run
from data_layer.config import Settings
from data_layer.schemas.health import Health


def health(*, as_json: AsJson = False) -> None:
    """Probe database, cache and storage; exit code 1 when one of them fails, be it only the cache."""
    report = run(_health(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(report)
    else:
        rows = [
            (name, "ok" if part.healthy else "FAILED", f"{part.latency_ms:.1f} ms", part.error or "")
            for name, part in report.parts.items()
        ]
        print_table(f"Health: {report.status}", ("Part", "State", "Latency", ""), rows, right=("Latency",))
    if not report.overall:
        raise typer.Exit(FAILED)


async def _health(settings: Settings) -> Health:
    from data_layer.layer import probe

    return await probe(settings)
