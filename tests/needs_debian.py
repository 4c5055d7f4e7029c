"""Tests marked ``needs_debian`` run where the servers that no wheel brings are installed.

Elsewhere they are left out, with one line that says so. With REQUIRE_ALL_SERVERS=1 a missing server is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import pytest

PROGRAMS = {
    "pgbouncer": "pgbouncer",
    "redis-server": "redis-server",
    "postgresql-15": "postgres",
    "chromium": "chromium",
}
"""The Debian packages, and the program of each."""

_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/usr/lib/postgresql/15/bin"
"""Where Debian puts servers, and where the PATH of an ordinary user does not look."""


def find_program(name: str) -> str | None:
    return shutil.which(name, path=_SYSTEM_FOLDERS) or shutil.which(name)


def missing_programs() -> list[str]:
    """The packages whose program is not there."""
    return [package for package, program in PROGRAMS.items() if find_program(program) is None]


def report(missing: Sequence[str]) -> str:
    return (
        f"the tests marked needs_debian use {', '.join(PROGRAMS)}; not installed: {', '.join(missing)} "
        f"(Debian, Ubuntu: sudo apt install {' '.join(missing)})"
    )


def pytest_configure() -> None:
    missing = missing_programs()
    if missing and os.environ.get("REQUIRE_ALL_SERVERS") == "1":
        raise pytest.UsageError(report(missing))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not missing_programs():
        return
    left_out = [item for item in items if item.get_closest_marker("needs_debian")]
    items[:] = [item for item in items if not item.get_closest_marker("needs_debian")]
    config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = missing_programs()
    if missing:
        terminalreporter.write_line(f"Left out: {report(missing)}", yellow=True)
