"""What ``from data_layer import …`` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from enum import Enum

import data_layer
from data_layer.entities import enums
from data_layer.settings import database, service

PUBLIC = {
    "DataLayer",
    "DataLayerError",
    "Settings",
    "initialize_data_layer",
    "shutdown_data_layer",
    "timed",
    "check_data_layer_health",
    "get_data_layer_stats",
    "Actor",
    "ExternalIdentity",
    "ProfileChanges",
    "RequestContext",
    "request_context",
    "current_context",
    "User",
    "Project",
    "GeneratedCode",
    "GeneratedImage",
    "Session",
    "AuditLog",
    "CodePiece",
    "GenerationRequest",
    "ProjectChanges",
    "ProjectDraft",
    "ProjectFilter",
    "ProjectOrder",
    "VariantModel",
    "VariantResult",
    "WholeCode",
}
ENUMS = {
    name
    for module in (service, database, enums)
    for name, value in vars(module).items()
    if inspect.isclass(value) and issubclass(value, Enum) and len(value) and value.__module__ == module.__name__
}
HEAVY = {"alembic", "fastapi", "obstore", "psycopg", "pydantic", "redis", "sqlalchemy", "uvicorn"}


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_public_names_are_these() -> None:
    assert set(data_layer.__all__) == PUBLIC | ENUMS
    assert len(data_layer.__all__) == len(set(data_layer.__all__))


def test_every_public_name_is_there() -> None:
    assert {name for name in data_layer.__all__ if not hasattr(data_layer, name)} == set()
    assert set(data_layer.__all__) <= set(dir(data_layer))


def test_a_public_name_is_the_thing_of_that_name() -> None:
    assert {name: getattr(data_layer, name).__name__ for name in data_layer.__all__} == {
        name: name for name in data_layer.__all__
    }


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(data_layer, "no_such_name")


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = run_python("import data_layer, sys; print(*sys.modules)").split()
    assert HEAVY.isdisjoint(loaded), HEAVY.intersection(loaded)


def test_a_star_import_offers_the_public_names_and_no_others() -> None:
    code = "before = set(globals()) | {'before'}\nfrom data_layer import *\nprint(*set(globals()) - before)"
    assert set(run_python(code).split()) == set(data_layer.__all__)
