"""No statement of the data layer is without a name of its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, literal, select, update

from data_layer import DataLayer, User
from data_layer.database.statements import UNNAMED, _derived
from data_layer.entities.enums import AuditAction, UserRole
from data_layer.schemas.actors import SYSTEM
from tests.architecture.source import all_modules
from tests.database.observers import Recorder
from tests.file_content import animation
from tests.support import make_code, make_project, make_user

# On connections of operators' commands, which nobody watches: they log their progress themselves.
DIRECT = {"database/administration.py", "database/migrator.py", "database/schema_check.py"}
WATCHED = {"database", "repositories", "services"}


def unnamed_texts(tree: ast.Module) -> Iterator[int]:
    """The lines with a ``text(…)`` that executes as it is, outside of ``named(…)``."""
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "named"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "text" and id(node) not in inside:
            yield node.lineno


def test_every_text_for_sqlalchemy_is_named() -> None:
    fragments = {("repositories/users.py", "_IS_ADMIN"), ("repositories/users.py", "users.email")}
    found = [
        (str(module.path).split("data_layer/", 1)[1], line, module.path.read_text().splitlines()[line - 1])
        for module in all_modules()
        if module.part in WATCHED and "migrations/" not in str(module.path)
        for line in unnamed_texts(module.tree)
    ]
    unnamed = [
        (path, line)
        for path, line, code in found
        if path not in DIRECT and not any(path == file and part in code for file, part in fragments)
    ]
    assert not unnamed


@pytest.fixture
def recorder(data: DataLayer) -> Recorder:
    recorder = Recorder()
    data.database.observation.add(recorder)
    return recorder


async def test_what_the_services_do_is_named(data: DataLayer, recorder: Recorder) -> None:
    await use_accounts(data)
    await use_projects(data)
    await use_files(data)
    await data.maintenance.run(SYSTEM)
    await data.statistics()
    await data.health()
    await data.require_current_schema()
    data.audit.record_soon(AuditAction.USER_LOGOUT, "Logged out")
    await data.audit.flush()
    await data.audit.list(SYSTEM, limit=10)
    names = set(recorder.names)
    assert UNNAMED not in names
    assert {name for name in names if not re.fullmatch(r"[a-z_]+\.[a-z_]+", name)} == set()
    assert {
        *("users.insert", "users.select", "users.update", "sessions.validate", "sessions.insert", "sessions.end"),
        *("refresh_tokens.insert", "login_attempts.count", "audit_logs.copy", "audit_logs.page", "audit_logs.insert"),
        *("projects.insert", "generated_codes.insert", "stored_files.save"),
        *("health.probe", "statistics.server", "statistics.tables", "schema.revisions", "exclusive_run.lock"),
        *("audit_partitions.list", "session_changes.read", "transaction.begin", "transaction.commit"),
    } <= names


async def use_accounts(data: DataLayer) -> None:
    password = "correct horse battery staple 9"
    admin = make_user(role=UserRole.ADMIN)
    async with data.transaction() as tx:
        tx.add(admin)
    registered = await data.accounts.register(
        email="names@example.com", password=password, first_name="N", last_name="A"
    )
    user = (await data.accounts.verify_email(registered.verification.token, proof=registered.proof)).user
    await data.accounts.authenticate("names@example.com", password)
    begun = await data.sessions.create(user.id)
    token = begun.token.get_secret_value()
    await data.sessions.validate(token)
    await data.cache.flush()
    await data.sessions.validate_id(begun.session.id)
    await data.sessions.extend(begun.session.id, timedelta(minutes=1))
    await data.sessions.list(SYSTEM, user.id)
    written = await data.sessions.write_data(begun.session.id, {"a": 1}, version=0)
    assert written.version == 1
    pair = await data.tokens.issue(begun.session)
    await data.tokens.refresh(pair.refresh_token.get_secret_value())
    await data.sessions.revoke(SYSTEM, begun.session.id)
    await data.accounts.delete(SYSTEM, user.id)


async def use_projects(data: DataLayer) -> None:
    user = make_user()
    project = make_project(user)
    code = make_code(project)
    async with data.transaction() as tx:
        for entity in (user, project, code):
            tx.add(entity)
    async with data.transaction() as tx:
        await tx.codes.summaries(project.id)
        await tx.projects.increment(project.id, "view_count")
        await tx.codes.list(project_id=project.id)
        await tx.codes.count()
        await tx.users.get(user.id, lock=True)
        await tx.codes.delete(await tx.codes.get(code.id))
    await data.projects.recent()


async def use_files(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    file = await data.files.save(animation("PNG", 1), owner_id=user.id, file_name="picture.png")
    await data.files.list(owner_id=user.id)
    await data.files.delete(file.id, owner_id=user.id)
    await data.file_maintenance.check(SYSTEM)
    await data.file_maintenance.usage(SYSTEM)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (insert(User), "users.insert"),
        (update(User), "users.update"),
        (delete(User), "users.delete"),
        (select(User), "users.select"),
        (select(literal(1)), UNNAMED),
    ],
)
def test_a_statement_of_sqlalchemys_is_named_by_its_table_and_kind(statement: Any, name: str) -> None:
    compiled = statement.compile()
    assert _derived(compiled) == name
