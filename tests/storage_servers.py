"""Fixtures with real object stores, one of each for a whole run of a worker, started when the first test asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from data_layer.testing.storage_servers import AzuriteServer, MotoServer, RcloneServer


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[RcloneServer]:
    with RcloneServer() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[AzuriteServer]:
    with AzuriteServer() as server:
        yield server
