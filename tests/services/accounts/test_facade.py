"""The account service offers every method of its parts, as the part declares it."""

from __future__ import annotations

import inspect

import pytest

from data_layer.services.accounts import AccountService
from data_layer.services.accounts.administration import Administration
from data_layer.services.accounts.factors import Factors
from data_layer.services.accounts.identities import ExternalIdentities
from data_layer.services.accounts.login import Login
from data_layer.services.accounts.password_changes import PasswordChanges
from data_layer.services.accounts.profiles import Profiles
from data_layer.services.accounts.registration import Registration

PARTS = (Registration, Login, PasswordChanges, Profiles, Administration, ExternalIdentities, Factors)
METHODS = [
    pytest.param(name, method, id=f"{part.__name__}.{name}")
    for part in PARTS
    for name, method in inspect.getmembers(part, inspect.isfunction)
    if not name.startswith("_")
]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_every_method_of_a_part_is_one_of_the_service(name: str, method: object) -> None:
    offered = getattr(AccountService, name)
    assert inspect.unwrap(offered) is method
    assert inspect.signature(offered) == inspect.signature(method)
    assert offered.__doc__ == method.__doc__


def test_the_service_offers_nothing_else() -> None:
    offered = {name for name, _ in inspect.getmembers(AccountService, inspect.isfunction) if not name.startswith("_")}
    assert offered == {parameters.values[0] for parameters in METHODS}
