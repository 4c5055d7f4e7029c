"""Processes killed with SIGKILL at random moments leave no torn or half-recorded file, and nothing once cleaned up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_layer import DataLayer

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[3]
ROUNDS = 16


async def test_killed_processes(data: DataLayer, tmp_path: Path) -> None:
    settings = data.settings
    assert settings.database.database_url is not None
    assert settings.redis.redis_url is not None
    environment = os.environ | {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": settings.database.database_url.get_secret_value(),
        "REDIS_URL": settings.redis.redis_url.get_secret_value(),
        "REDIS_KEY_PREFIX": settings.redis.redis_key_prefix,
        "LOCAL_STORAGE_PATH": str(tmp_path / "uploads"),
    }
    command = [sys.executable, "-m", "tests.services.files.crashing_saver", str(ROUNDS), "--examine-each", "8"]
    result = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True, timeout=110, cwd=PROJECT, env=environment
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["saved"] > ROUNDS
    assert report["rounds_with_leftovers"] > 0, "hardly anything was under way"
