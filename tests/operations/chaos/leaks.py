"""Whether anybody keeps what it should have let go: the replicas report, the servers are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

from tests.operations.chaos.journal import Event
from tests.operations.chaos.resources import more_than
from tests.operations.chaos.servers import Servers
from tests.service.support import Service

_PAUSE = 0.2
_PATIENCE = 30.0
_SLOWEST_CLOSE = 15.0
"""Seconds that a data layer may take to close."""


class Leaks:
    """Compares with what was there before: before the replicas came, and before anything was broken."""

    def __init__(self, servers: Servers, service: Service) -> None:
        self._servers = servers
        self._service = service
        self._clients_alone = servers.clients()
        self._clients_before: dict[str, int] = {}
        self._handles_before = 0

    def note_beginning(self) -> None:
        """Everybody works, and nothing was broken yet."""
        self._clients_before = self._servers.clients()
        self._handles_before = _handles_of(self._service)

    async def at_rest(self, events: Iterable[Event]) -> list[str]:
        """After the load: nothing may be in use, and the servers may know of no more connections than we do."""
        reports = [event for event in events if event.kind == "idle"]
        return [fault for report in reports for fault in _own_leaks(report)] + await _that_stay(
            lambda: self._at_servers(reports)
        )

    async def after_closing(self, events: Iterable[Event]) -> list[str]:
        """Nothing of the replicas may be left, with them or at the servers."""
        found = []
        for event in events:
            if event.kind == "closed":
                left = more_than(event.facts["before"], event.facts["after"])
                found += [f"{event.process} after closing has {what}" for what in left]
                if event.facts["seconds"] > _SLOWEST_CLOSE:
                    found.append(f"{event.process} took {event.facts['seconds']:.1f} s to close")
        return found + await _that_stay(self._left_at_servers)

    def _at_servers(self, reports: Iterable[Event]) -> list[str]:
        clients, found = self._servers.clients(), []
        for report in reports:
            known, number = report.facts["connections"], clients.get(report.process, 0)
            if number > known + 1:  # One more listens for ended sessions.
                found.append(f"{report.process} knows {known} connections, PostgreSQL {number}")
        if clients["redis"] > self._clients_before["redis"]:
            found.append(f"Redis has {clients['redis']} clients, and had {self._clients_before['redis']}")
        most = self._handles_before + self._servers.settings("")["db_max_connections"]
        if _handles_of(self._service) > most:
            found.append(f"the service has {_handles_of(self._service)} file handles, and had {self._handles_before}")
        return found

    def _left_at_servers(self) -> list[str]:
        clients = self._servers.clients()
        found = [f"{name} left {number} connections" for name, number in clients.items() if name.startswith("replica")]
        if clients["redis"] > self._clients_alone["redis"]:
            found.append(f"Redis has {clients['redis']} clients, and {self._clients_alone['redis']} without replicas")
        return found


def _own_leaks(report: Event) -> list[str]:
    """What a resting replica reports of itself. Its sockets are counted at the servers, its threads when it closed."""
    facts, name = report.facts, report.process
    found = [
        f"{name} at rest has {what}"
        for what in more_than(facts["before"], facts["after"])
        if not what.startswith(("file socket", "threads"))
    ]
    if facts["in_use"]:
        found.append(f"{name} at rest uses {facts['in_use']} connections")
    if facts["pending"]:
        found.append(f"{name} at rest has still to inform Redis of {facts['pending']} keys")
    if facts["audit"]["lost"] or facts["audit"]["rejected"]:
        found.append(f"{name} lost audit entries: {facts['audit']}")
    return found


async def _that_stay(look: Callable[[], list[str]]) -> list[str]:
    """A server needs a moment to see that a connection was closed."""
    deadline = monotonic() + _PATIENCE
    while (found := look()) and monotonic() < deadline:
        await asyncio.sleep(_PAUSE)
    return found


def _handles_of(service: Service) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))
