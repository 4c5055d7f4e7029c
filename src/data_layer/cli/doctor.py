"""``data-layer health`` and ``data-layer doctor``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from data_layer import __version__
from data_layer.cli.output import (
    FAILED,
    AsJson,
    console,
    counted,
    log_to_terminal,
    plain,
    print_json,
    print_table,
    read_settings,
    run,
    say,
)
from data_layer.config import ExaminedSettings, Settings
from data_layer.schemas.doctor import Examination, Finding, Outcome
from data_layer.schemas.operations import Health

if TYPE_CHECKING:
    from data_layer.services.doctor.checks import Doctor


_STYLES = {Outcome.OK: "green", Outcome.WARNING: "bold yellow", Outcome.FAILED: "bold red", Outcome.SKIPPED: "dim"}
_OUTCOME_WIDTH = max(map(len, Outcome))
_LEAST_MEANING = 20  # Columns for it and the gaps before it; with less, a line is better than a table.


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


def doctor(
    *,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="A warning counts as failed.")] = False,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.1, max=600, help="Seconds that each check may take.")
    ] = 10.0,
) -> None:
    """Check settings, servers, rights, schema, storage and this machine: what is wrong, what it means, what to do.

    Changes nothing, but for a tiny file in the storage that is removed again. Exit code 1 when something failed.
    """
    from data_layer.config import examine_settings

    examined = examine_settings()
    # What the parts would log is what the lines say.
    log_to_terminal(examined.settings, level="error")
    report = run(_examine(examined, time_limit, as_json=as_json), as_json=as_json)
    if as_json:
        print_json(report)
    else:
        _print_summary(report)
    if report.outcome is Outcome.FAILED or (strict and report.outcome is Outcome.WARNING):
        raise typer.Exit(FAILED)


async def _examine(examined: ExaminedSettings, time_limit: float, *, as_json: bool) -> Examination:
    from data_layer.layer.doctor import open_doctor

    asyncio.get_running_loop().set_default_executor(_DaemonThreads())
    findings: list[Finding] = []
    async with open_doctor(examined, time_limit=time_limit) as doctor:
        lines = None if as_json else _Lines(doctor)
        async with aclosing(doctor.findings()) as found:
            async for finding in found:
                findings.append(finding)
                if lines is not None:
                    lines.show(finding)
        if lines is not None:
            lines.show_skipped()
    return Examination.of(findings, version=__version__, time_limit=time_limit)


class _Lines:
    """Prints findings as they come; those that were skipped for the same reason together."""

    def __init__(self, doctor: Doctor) -> None:
        self._width = max(map(len, doctor.names))
        self._part = ""
        self._skipped: list[Finding] = []
        say(f"data-layer {__version__}: each check may take {doctor.time_limit:g} s, nothing is changed")

    def show(self, finding: Finding) -> None:
        if self._skipped and (finding.part, finding.caused_by) != (self._skipped[0].part, self._skipped[0].caused_by):
            self.show_skipped()
        if finding.part != self._part:
            console.print()
            self._part = finding.part
        if finding.outcome is Outcome.SKIPPED and finding.advice is None:
            self._skipped.append(finding)
        else:
            advice = None if finding.advice is None else str(finding.advice)
            self._print(finding.outcome, f"{finding.part}.{finding.check}", str(finding.meaning), advice)

    def show_skipped(self) -> None:
        if self._skipped:
            first, names = self._skipped[0], ", ".join(finding.check for finding in self._skipped)
            self._print(Outcome.SKIPPED, f"{first.part}.*", f"because of {first.caused_by}: {names}")
        self._skipped = []

    def _print(self, outcome: Outcome, name: str, meaning: str, advice: str | None = None) -> None:
        word = outcome.upper() if outcome in {Outcome.WARNING, Outcome.FAILED} else outcome.value
        text = Text(plain(meaning), style="dim" if outcome is Outcome.SKIPPED else "")
        if advice is not None:
            text.append(f" → {plain(advice)}", style="bold")
        if console.width < _OUTCOME_WIDTH + self._width + _LEAST_MEANING:
            console.print(Text.assemble((word, _STYLES[outcome]), f" {name}: ", text), soft_wrap=True)
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(width=_OUTCOME_WIDTH)
        table.add_column(width=self._width)
        table.add_column(overflow="fold")
        table.add_row(Text(word, style=_STYLES[outcome]), name, text)
        console.print(table)


def _print_summary(report: Examination) -> None:
    counts = report.counts
    console.print()
    figures = [f"{counts[Outcome.FAILED]} failed", counted(counts[Outcome.WARNING], "warning")]
    if counts[Outcome.SKIPPED]:
        figures.append(f"{counts[Outcome.SKIPPED]} skipped")
    say(f"{', '.join(figures)}, {counts[Outcome.OK]} ok", style=_STYLES[report.outcome])


class _DaemonThreads(ThreadPoolExecutor):
    """One thread for each call, which nobody waits for at the end.

    What hangs in the system, such as looking up a name or a dead mount, cannot be cancelled; Python would wait for it
    before it ends.
    """

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(function(*arguments, **options))
            except BaseException as error:  # noqa: BLE001  (handed over)
                future.set_exception(error)

        threading.Thread(target=work, name="doctor", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  (the library's)
        """Nothing: a thread that hangs ends with the process."""
