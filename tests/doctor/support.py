"""Runs the doctor and finds lines in what it says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cli.support import Commands

GONE = {"DATABASE_URL": "postgresql://user@127.0.0.1:1/name", "REDIS_URL": "redis://127.0.0.1:1"}
"""Where nothing listens."""

PATIENT = {
    "DB_CONNECT_TIMEOUT": "30",
    "REDIS_CONNECT_TIMEOUT": "30000",
    "REDIS_COMMAND_TIMEOUT": "30000",
    "STORAGE_CONNECT_TIMEOUT": "30",
}
"""A busy machine is no failure."""


class Report:
    """What ``data-layer doctor --json`` printed."""

    def __init__(self, code: int, report: Any) -> None:
        self.code = code
        self.outcome: str = report["outcome"]
        self.counts: dict[str, int] = report["counts"]
        self.findings: list[dict[str, Any]] = report["findings"]

    def of(self, name: str) -> dict[str, Any]:
        """The only finding of a check."""
        (finding,) = self.all_of(name)
        return finding

    def all_of(self, name: str) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if f"{finding['part']}.{finding['check']}" == name]

    def outcomes(self, part: str) -> dict[str, set[str]]:
        """Of each check of a part."""
        found: dict[str, set[str]] = {}
        for finding in self.findings:
            if finding["part"] == part:
                found.setdefault(finding["check"], set()).add(finding["outcome"])
        return found

    def says(self, name: str, outcome: str, *words: str) -> None:
        """Some finding of this check has this outcome and these words."""
        texts = [
            f"{finding['meaning']} → {finding['advice']}"
            for finding in self.all_of(name)
            if finding["outcome"] == outcome
        ]
        assert any(all(word in text for word in words) for text in texts), (outcome, words, self.all_of(name))


class Examine:
    """Calls the doctor with settings in which nothing is wrong, but for what a test changes."""

    def __init__(self, command: Commands) -> None:
        self.command = command

    def __call__(self, *arguments: str, **environment: str) -> Report:
        target = PATIENT | environment
        limit = () if "--time-limit" in arguments else ("--time-limit", "60")
        done = self.command("doctor", "--json", *limit, *arguments, code=None, **target)
        assert done.code in {0, 1}
        assert done.errors == "", "everything that is to be said is in the lines"
        return Report(done.code, done.json)


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield int(server.getsockname()[1])
