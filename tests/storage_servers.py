"""Fixtures with real object stores, one of each for a whole run of a worker, started when the first test asks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from pydantic import SecretStr

from data_layer import Settings
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


_NUMBERS = count(1)


def bucket_settings(server: AzuriteServer | MotoServer | RcloneServer) -> dict[str, Any]:
    """Settings with a new bucket, or container, of a server."""
    name = f"bucket-{next(_NUMBERS)}"
    server.make_bucket(name)
    if isinstance(server, AzuriteServer):
        return {
            "azure_storage_connection_string": SecretStr(server.connection_string),
            "azure_storage_container_name": name,
        }
    return {
        "aws_s3_bucket": name,
        "aws_region": server.region,
        "aws_endpoint_url": server.address,
        "aws_access_key_id": server.credentials.access_key_id,
        "aws_secret_access_key": SecretStr(server.credentials.secret_access_key),
    }


_SERVERS = {"s3_rclone": "rclone_server", "s3_moto": "moto_server", "azure": "azurite_server"}


def settings_stored_in(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with the storage that the parameter of a fixture names, empty at first: ``local``, or in `_SERVERS`."""
    if request.param == "local":
        return settings
    place = bucket_settings(request.getfixturevalue(_SERVERS[request.param]))
    return settings.replaced(storage_backend=request.param.partition("_")[0], **place)
