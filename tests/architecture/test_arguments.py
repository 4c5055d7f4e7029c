"""Every service that is reached from ``DataLayer`` checks the arguments of its callers."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest

from data_layer import DataLayer
from data_layer.layer import data_layer

SERVICES: dict[str, type[Any]] = {}
for _name, _member in vars(DataLayer).items():
    if isinstance(_member, property) and not _name.startswith("_"):
        _kind = getattr(data_layer, str(inspect.signature(_member.fget or print).return_annotation), None)
        if inspect.isclass(_kind) and _kind.__module__.startswith("data_layer.services."):
            SERVICES[_name] = _kind

UNCHECKED = {
    "first_administrator": "for the console alone; the values of the account are checked by accounts.create",
    "public_files": "for the HTTP interface alone, which passes text from the path",
    "idempotency": "for the HTTP interface alone, which checks the key",
}


def test_the_services_are_found() -> None:
    assert len(SERVICES) >= 14
    assert set(SERVICES) >= UNCHECKED.keys()


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - UNCHECKED.keys()))
def test_a_service_checks_its_arguments(name: str) -> None:
    """Decorate it with ``checks_arguments``, and import what its annotations name outside of ``TYPE_CHECKING``."""
    kind = SERVICES[name]
    assert "@checks_arguments" in inspect.getsource(kind).partition("class ")[0]
    for method_name, method in inspect.getmembers(kind, inspect.isfunction):
        if method_name.startswith("_"):
            continue
        names = vars(sys.modules[method.__module__])
        for parameter in inspect.signature(method).parameters.values():
            if isinstance(parameter.annotation, str):
                eval(parameter.annotation, names)  # noqa: S307  (our own source)
