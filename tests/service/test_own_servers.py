"""With servers of one's own nothing embedded starts, and a database of one's own is only changed when asked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_layer.services.seed_catalog import catalog
from tests.cli.support import Commands
from tests.observability.conftest import logging_as_before

from .support import Service

__all__ = ["logging_as_before"]


@pytest.mark.slow
def test_dev_makes_the_database_and_starts_no_server(new_folder: Path, own_servers: dict[str, Any]) -> None:
    with Service(new_folder, **own_servers) as service:
        service.wait_until_ready()
        assert service.get("/health").json()["overall"] is True
        assert len(Commands(**own_servers)("projects", "list", "--json").json) == len(catalog()["projects"])
        assert service.end() == 0, service.output
    assert not (new_folder / ".data-layer").exists()
    assert (new_folder / "uploads").is_dir()


@pytest.mark.slow
def test_start_refuses_an_unprepared_database_and_works_without_redis(
    new_folder: Path, own_servers: dict[str, Any]
) -> None:
    with Service(new_folder, "start", **own_servers) as service:
        assert "make it with: data-layer db create" in service.fail()
    command = Commands(**own_servers)
    command("db", "create")
    with Service(new_folder, "start", **own_servers) as service:
        said = service.fail()
    assert "schema_behind" in said
    assert "data-layer db migrate" in said
    command("db", "migrate")
    with Service(new_folder, "start", **own_servers | {"REDIS_URL": "redis://127.0.0.1:1"}) as service:
        service.wait_until_ready()
        health = service.get("/health")
        assert health.status_code == 503
        assert health.json() | {"parts": None} == {
            "database": True,
            "cache": False,
            "storage": True,
            "overall": False,
            "status": "degraded",
            "parts": None,
        }
        assert service.get("/readyz").status_code == 200
        assert service.end() == 0, service.output
        events = [json.loads(line) for line in service.output.splitlines()]
    assert {"cache_unavailable", "service_started", "service_stopping"} <= {event["event"] for event in events}
    assert not (new_folder / ".data-layer").exists()
