"""Who may do what: denied unless a rule says otherwise."""

from __future__ import annotations

import pytest

from data_layer.entities.enums import UserRole
from data_layer.errors import PermissionDeniedError
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.services.permissions import RULES, Permission, Rule, is_allowed, require
from tests.support import make_user

ME, SOMEBODY = make_user().id, make_user().id
RANKS = (UserRole.USER, UserRole.MODERATOR, UserRole.ADMIN)


def test_every_permission_has_a_rule() -> None:
    assert set(RULES) == set(Permission)


@pytest.mark.parametrize("permission", Permission)
def test_without_a_rule_everything_is_denied(permission: Permission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, permission)
    assert not any(is_allowed(Actor.user(ME, role), permission, owner=ME) for role in RANKS)


@pytest.mark.parametrize("permission", Permission)
def test_nobody_in_particular_may_do_nothing_and_the_system_everything(permission: Permission) -> None:
    for owner in (None, ME):
        assert not is_allowed(ANONYMOUS, permission, owner=owner)
        assert not is_allowed(Actor(user_id=ME), permission, owner=owner)
        assert not is_allowed(Actor(role=UserRole.ADMIN), permission, owner=owner)
        assert is_allowed(SYSTEM, permission, owner=owner)


@pytest.mark.parametrize("permission", Permission)
def test_a_higher_role_may_do_whatever_a_lower_one_may(permission: Permission) -> None:
    for owner in (None, ME, SOMEBODY):
        for owner_role in (None, *RANKS):
            allowed = [
                is_allowed(Actor.user(ME, role), permission, owner=owner, owner_role=owner_role) for role in RANKS
            ]
            assert allowed == sorted(allowed)


@pytest.mark.parametrize(("permission", "rule"), RULES.items())
def test_users_only_reach_what_is_theirs(permission: Permission, rule: Rule) -> None:
    assert is_allowed(Actor.user(ME), permission, owner=ME) == rule.owner
    assert not is_allowed(Actor.user(ME), permission, owner=SOMEBODY)
    assert not is_allowed(Actor.user(ME), permission)


def test_moderators_do_not_act_against_each_other() -> None:
    moderator = Actor.user(ME, UserRole.MODERATOR)
    allowed = {
        role: is_allowed(moderator, Permission.SUSPEND_ACCOUNT, owner=SOMEBODY, owner_role=role) for role in RANKS
    }
    assert allowed == {UserRole.USER: True, UserRole.MODERATOR: False, UserRole.ADMIN: False}


def test_a_password_belongs_to_its_owner_alone() -> None:
    assert not is_allowed(Actor.user(ME, UserRole.ADMIN), Permission.CHANGE_PASSWORD, owner=SOMEBODY)


def test_a_refusal_names_what_was_wanted() -> None:
    with pytest.raises(PermissionDeniedError, match="may not set role here"):
        require(Actor.user(ME), Permission.SET_ROLE, owner=ME)
    require(SYSTEM, Permission.SET_ROLE)
