"""``--quick``: a test that starts a process is left out as soon as it tries.

What remains needs no server, and runs while one works. No list has to be kept: a test is quick when it starts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

_STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.system", "os.exec"})
_running: list[pytest.Item] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out tests that start a process")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        sys.addaudithook(_leave_out)  # It stays until the end of the process.


def _leave_out(event: str, _arguments: tuple[object, ...]) -> None:
    if event in _STARTS and _running:
        pytest.skip("it starts a process")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.clear()
