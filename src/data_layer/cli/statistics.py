"""``data-layer stats``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.live import Live

from data_layer.cli.output import FAILED, AsJson, console, notice, print_json, read_settings, run
from data_layer.cli.statistics_screen import Screen
from data_layer.config import Settings

if TYPE_CHECKING:
    from data_layer.services.statistics import Statistics

_SECONDS = 2.0


def stats(
    seconds: Annotated[
        float | None,
        typer.Argument(min=0.5, max=3600, metavar="[SECONDS]", help="With --watch: between two looks; 2 by default."),
    ] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show figures of database, cache and storage; exit code 1 when one of them cannot be asked.

    Looking disturbs nobody: every question has a short time limit, and no table is counted. With --watch --json each
    look is one line.
    """
    if seconds is not None and not watch:
        raise typer.BadParameter("they belong to --watch", param_hint="SECONDS")
    settings = read_settings(as_json=as_json)
    if watch:
        try:
            run(_watch(settings, seconds or _SECONDS, as_json=as_json), as_json=as_json)
        except BrokenPipeError:  # The reader has had enough; Python would complain once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    figures = run(_look_once(settings), as_json=as_json)
    if as_json:
        print_json(figures)
    else:
        Screen().print(figures)
        for name, reason in figures.errors.items():
            notice(f"{name}: {reason}", style="red")
    if figures.errors:
        raise typer.Exit(FAILED)


async def _look_once(settings: Settings) -> Statistics:
    from data_layer.layer import open_statistics

    async with open_statistics(settings) as service:
        return await service.gather()


async def _watch(settings: Settings, seconds: float, *, as_json: bool) -> None:
    from data_layer.layer import open_statistics

    screen = Screen(seconds)
    in_place = console.is_terminal and not as_json
    live = Live(console=console, screen=True, auto_refresh=False) if in_place else None
    stopped = _stopped_by_signals()
    async with open_statistics(settings) as service:
        with live or nullcontext():
            while not stopped.is_set():
                figures = await service.gather()
                if as_json:
                    _print_line(figures)
                elif live:
                    live.update(screen.render(figures), refresh=True)
                else:
                    screen.print(figures)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), seconds)


def _stopped_by_signals() -> asyncio.Event:
    """Set by Ctrl-C: what has been asked is still answered, so that no connection breaks; the second one cancels."""
    stopped, loop, task = asyncio.Event(), asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if stopped.is_set() and task is not None:
            task.cancel()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopped


def _print_line(figures: Statistics) -> None:
    sys.stdout.buffer.write(orjson.dumps(figures.model_dump(mode="json")) + b"\n")
    sys.stdout.buffer.flush()
