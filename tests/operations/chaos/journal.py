"""What the replicas did, one line for each event, written so that nothing is lost that happened before a kill.

All times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from data_layer.errors import CommitUnknownError, DataLayerError

DONE, UNKNOWN, FAILED, UNTYPED = "done", "unknown", "failed", "untyped"
"""Acknowledged; may or may not have happened; refused with an error of the data layer; any other error."""


@dataclass(slots=True)
class Event:
    """One operation. ``facts`` is what the checker has to know; ``errors`` its error's class and those above it."""

    process: str
    kind: str
    began: float
    ended: float
    outcome: str = DONE
    code: str = ""
    errors: list[str] = field(default_factory=list)
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def __str__(self) -> str:
        what = (
            f"{self.process}: {self.kind} {self.facts} at {self.began:.3f} after {self.seconds:.3f} s: {self.outcome}"
        )
        return f"{what}: {self.errors[0]}: {self.message}" if self.errors else what


class Journal:
    """The events of one process, in a file that others may read meanwhile."""

    def __init__(self, folder: Path, process: str) -> None:
        self._process = process
        self._file = os.open(folder / process, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self.under_way: dict[int, Event] = {}

    @contextmanager
    def operation(self, kind: str, **facts: Any) -> Iterator[Event]:
        """Write down how the block ends. Errors stay here, whatever they are: the load goes on."""
        event = Event(self._process, kind, monotonic(), 0.0, facts=facts)
        self.under_way[id(event)] = event
        try:
            yield event
        except CommitUnknownError as error:
            _describe(event, UNKNOWN, error)
        except DataLayerError as error:
            _describe(event, FAILED, error)
        except Exception as error:  # noqa: BLE001  (what should never come is what is looked for)
            _describe(event, UNTYPED, error)
        finally:
            del self.under_way[id(event)]
            event.ended = monotonic()
            self._write(event)

    def note(self, kind: str, **facts: Any) -> None:
        """Write down what is no operation."""
        now = monotonic()
        self._write(Event(self._process, kind, now, now, facts=facts))

    def _write(self, event: Event) -> None:
        os.write(self._file, json.dumps(asdict(event)).encode() + b"\n")


class Reader:
    """Follows the journals of all processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._positions: dict[Path, int] = {}

    def more(self) -> list[Event]:
        """The events since the last call, by their end."""
        events = []
        for path in sorted(self._folder.iterdir()):
            with path.open("rb") as file:
                file.seek(self._positions.get(path, 0))
                content = file.read()
            complete = content[: content.rfind(b"\n") + 1]
            self._positions[path] = self._positions.get(path, 0) + len(complete)
            events += [Event(**json.loads(line)) for line in complete.splitlines()]
        return sorted(events, key=lambda event: event.ended)


def _describe(event: Event, outcome: str, error: Exception) -> None:
    event.outcome = outcome
    event.code = getattr(error, "code", "")
    event.errors = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, Exception)]
    event.message = str(error)
