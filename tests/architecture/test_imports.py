"""Arrows between packages go one way."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest

from .source import all_modules

EVERYWHERE = {"settings", "concurrency", "durability", "errors", "context", "extras", "observability", "text_cache"}

ROWS = {"entities", "schemas", "database"}
PORTS = {"cache", "storage"}

FACES = {"api", "hosted", "recorder", "console"}
FACE = EVERYWHERE | {"entities.enums", "schemas", "services", "storage", "layer", "web", "__init__"}

MAY_IMPORT: dict[str, set[str]] = {
    "concurrency": set(),
    "durability": set(),
    "errors": set(),
    "environment": {"errors"},
    "extras": {"errors"},
    "garbage": set(),
    "text_cache": set(),
    "settings": {"errors", "environment"},
    "config": {"errors", "environment", "settings"},
    "context": {"entities.enums", "text_cache"},
    # The context holds the correlation id of every event.
    "observability": {"concurrency", "errors", "settings", "context", "text_cache"},
    "entities": {"errors", "text_cache"},
    "schemas": {"errors", "entities.enums"},
    "database": EVERYWHERE | {"environment", "entities", "schemas"},
    "repositories": EVERYWHERE | ROWS,
    "cache": EVERYWHERE | {"schemas.base"},
    "storage": EVERYWHERE,
    "services": EVERYWHERE | ROWS | PORTS | {"repositories", "config"},
    "embedded": EVERYWHERE,
    "layer": EVERYWHERE | ROWS | PORTS | {"config", "repositories", "services", "embedded"},
    "instance": EVERYWHERE | {"config", "schemas", "services", "layer"},
    "__init__": EVERYWHERE | {"config", "entities", "schemas", "layer", "instance"},
    # What the faces share; they never import each other, and ``server`` puts them into one application.
    "web": EVERYWHERE | {"entities.enums", "schemas", "services", "layer"},
    "api": FACE,
    "hosted": FACE,
    "recorder": FACE | {"config"},
    "console": FACE,
    "client": {"errors", "concurrency"},
    "server": EVERYWHERE | {"config", "garbage", "services", "layer", "web", *FACES},
    "cli": EVERYWHERE
    | PORTS
    | {"config", "entities.enums", "garbage", "schemas", "database", "services", "layer", "server", "__init__"}
    | FACES,
    "testing": EVERYWHERE
    | ROWS
    | PORTS
    | {"config", "repositories", "services", "embedded", "layer", "api", "__init__"},
}
"""What each package may import, apart from itself; a dotted name allows only that module."""


def may_import(part: str, target: str) -> bool:
    allowed = MAY_IMPORT[part] | {part}
    return target in allowed or any(target.startswith(f"{name}.") for name in allowed)


def test_imports_go_one_way() -> None:
    upward = [
        f"{module.path}:{line}: {module.part} may not import {target}"
        for module in all_modules()
        for target, line in module.imports()
        if not may_import(module.part, target)
    ]
    assert not upward, "\n".join(upward)


def test_only_the_doctor_among_the_services_knows_all_settings() -> None:
    """It judges them together; everything else takes the part that it needs."""
    knowing = {module.name for module in all_modules() for target, _ in module.imports() if target == "config"}
    assert {name for name in knowing if name.startswith("services.")} == {"services.doctor.configuration"}


def test_every_package_has_a_place() -> None:
    assert {module.part for module in all_modules()} <= set(MAY_IMPORT)


def test_the_rules_themselves_allow_no_cycle() -> None:
    rules = {part: {target.partition(".")[0] for target in allowed} for part, allowed in MAY_IMPORT.items()}
    TopologicalSorter(rules).prepare()


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    names = {module.name for module in all_modules()}
    graph = {
        module.name: {target for target, _ in module.imports() if target in names} - {module.name}
        for module in all_modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))
