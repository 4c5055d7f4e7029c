"""Rows for tests."""

from __future__ import annotations

from itertools import count
from typing import Any

from uuid_utils.compat import uuid7

from data_layer.entities import GeneratedCode, Project, User
from data_layer.entities.enums import GenerationProvider

_numbers = count(1)


def make_user(**values: Any) -> User:
    return User(**{"email": f"user{next(_numbers)}@example.com", "first_name": "Test", "last_name": "User"} | values)


def make_project(user: User | None = None, **values: Any) -> Project:
    return Project(**{"user_id": user.id if user else uuid7(), "name": "Project"} | values)


def make_code(project: Project, **values: Any) -> GeneratedCode:
    filled = {"code": "<html></html>", "provider": GenerationProvider.OPENAI, "model": "model"} | values
    return GeneratedCode(project_id=project.id, **filled)
