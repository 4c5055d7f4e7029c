"""One part that fails at the start gives one message: what, where, and what to do; the exit code is 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_layer.testing.postgresql_server import PostgresqlServer
from data_layer.testing.redis_server import RedisServer
from data_layer.testing.storage_servers import RcloneServer

from .support import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WRONG = "wrong-" + "x" * 20


def refusal(folder: Path, **environment: Any) -> str:
    """The one line that the service says apart from its log."""
    with Service(folder, "start", **environment) as service:
        said = service.fail()
    assert WRONG not in said
    lines = [line for line in said.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, said
    return lines[0]


def test_a_wrong_database_password(new_folder: Path) -> None:
    with PostgresqlServer(hba=["host all all all scram-sha-256"]) as server:
        address = {"DB_HOST": "127.0.0.1", "DB_PORT": str(server.port), "DB_NAME": "postgres", "DB_PASSWORD": WRONG}
        said = refusal(new_folder, **address, REDIS_URL="redis://127.0.0.1:1")
    assert said.startswith("Error (database_login_failed): ")
    assert "check DB_USERNAME and DB_PASSWORD" in said


def test_a_database_that_speaks_no_tls(new_folder: Path) -> None:
    with PostgresqlServer() as server:
        address = {"DB_HOST": "127.0.0.1", "DB_PORT": str(server.port), "DB_NAME": "postgres", "DB_SSL": "verify-full"}
        said = refusal(new_folder, **address, REDIS_URL="redis://127.0.0.1:1")
    assert said.startswith("Error (database_")
    assert "SSL" in said


def test_a_wrong_redis_password(new_folder: Path, prepared: dict[str, str]) -> None:
    with RedisServer(username="user", password="right") as server:
        said = refusal(new_folder, **prepared | {"REDIS_URL": f"redis://user:{WRONG}@{server.address}"})
    assert said.startswith("Error (cache_login_failed): ")
    assert server.address in said


def test_a_bucket_that_is_not_there(new_folder: Path, prepared: dict[str, str]) -> None:
    with RcloneServer() as server:
        storage = {
            "STORAGE_BACKEND": "s3",
            "AWS_ENDPOINT_URL": server.address,
            "AWS_S3_BUCKET": "missing",
            "AWS_REGION": server.region,
            "AWS_ACCESS_KEY_ID": server.credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.credentials.secret_access_key,
        }
        said = refusal(new_folder, **prepared | storage)
    assert said.startswith("Error (storage_missing): ")
    assert "missing" in said
    assert "data-layer storage init" in said
