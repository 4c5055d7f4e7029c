"""Rows and processes for tests."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import make_url
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import GeneratedCode, Project, User
from data_layer.entities.enums import GenerationProvider
from data_layer.schemas.actors import Actor

_numbers = count(1)
Made = TypeVar("Made")


def made(kind: Callable[..., Made], given: Mapping[str, Any], /, **others: Any) -> Made:
    """An object with what is given, and for what is not with the others."""
    return kind(**others | dict(given))


_SWITCH_TRIGGERS = """
DO $body$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT tgrelid::regclass AS name, tgname FROM pg_trigger
        WHERE tgname IN ('refuse_change', 'refuse_truncate')
        AND tgrelid NOT IN ('usage_days'::regclass, 'usage_totals'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s {mode} TRIGGER %I', each.name, each.tgname);
    END LOOP;
END
$body$
"""
ALLOW_CHANGES = _SWITCH_TRIGGERS.replace("{mode}", "DISABLE")
"""Lets the owner of the tables change and empty the audit trail and the ledger of usage."""
REFUSE_CHANGES = _SWITCH_TRIGGERS.replace("{mode}", "ENABLE ALWAYS")
EMPTY_ALL_TABLES = f"""
SET session_replication_role = replica;
{ALLOW_CHANGES};
TRUNCATE users CASCADE;
{REFUSE_CHANGES}
"""
"""For a superuser; what belongs to no user stays."""


def make_user(**values: Any) -> User:
    return made(User, values, email=f"user{next(_numbers)}@example.com", first_name="Test", last_name="User")


async def stored_actor(data: DataLayer, **values: Any) -> Actor:
    """Somebody with an account."""
    user = make_user(**values)
    async with data.transaction() as tx:
        tx.add(user)
    return Actor.user(user.id, user.role)


def make_project(user: User | None = None, **values: Any) -> Project:
    return made(Project, values, user_id=user.id if user else uuid7(), name="Project")


def make_code(project: Project, **values: Any) -> GeneratedCode:
    filled = {"code": "<html></html>", "provider": GenerationProvider.OPENAI, "model": "model"} | values
    return GeneratedCode(project_id=project.id, **filled)


def forked(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """The number of a child that runs a coroutine in an event loop of its own, and ends."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            asyncio.run(main())
            status = 0
        except BaseException as error:  # noqa: BLE001  (a forked child must never return)
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(status)
    return process


_KILLED = "killed"


def url_of_killed(url: str) -> str:
    """The address of a database for a process that is going to be killed: its connections bear a name of their own."""
    address = make_url(url).update_query_dict({"application_name": _KILLED})
    return address.render_as_string(hide_password=False)


def wait_for_the_last_commit_of_killed(url: str) -> None:
    """Return when nothing that killed processes have sent is executed any more: until then it may still commit."""
    mine = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    deadline = time.monotonic() + 30
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(mine, [_KILLED]).fetchone() != (0,):
            assert time.monotonic() < deadline, "the server still executes what a killed process has sent"
            time.sleep(0.01)


def made_once(name: str, make: Callable[[Path], None], factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that one of the parallel workers fills while those who need it too wait."""
    root = factory.getbasetemp()
    shared = root if worker_id == "master" else root.parent
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # What another worker could not finish.
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


async def until(condition: Callable[[], bool], patience: float = 30) -> None:
    """Wait for what happens in other tasks, threads, processes or servers."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.01)
