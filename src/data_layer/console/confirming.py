"""Confirming a change of how somebody logs in: the fields of its form, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from data_layer.console.pages import PageCall
from data_layer.errors import InvalidValueError
from data_layer.schemas.factors import FactorProof, FactorsView
from data_layer.schemas.users import LoginMethods


@dataclass(frozen=True, slots=True)
class Ways:
    """How the person can confirm a change: with the password, or where there is none with a second factor.

    ``challenge`` and ``passkey`` are what a passkey answers in place of a code.
    """

    methods: LoginMethods
    factors: FactorsView
    challenge: str | None = None
    passkey: Mapping[str, Any] | None = None

    @property
    def has_password(self) -> bool:
        """Whether the account has one."""
        return self.methods.has_password

    @property
    def has_factors(self) -> bool:
        """Whether a second factor counts."""
        return bool(self.factors.factors)


async def ways_to_confirm(call: PageCall) -> Ways:
    """Return how a person can confirm a change of their own account."""
    accounts = call.data.accounts
    methods = await accounts.list_identities(call.actor, call.user_id)
    factors = await accounts.list_factors(call.actor, call.user_id)
    if methods.has_password or not factors.factors:
        return Ways(methods, factors)
    asked = await accounts.begin_confirmation(call.actor, call.user_id)
    return Ways(methods, factors, asked.challenge.get_secret_value(), asked.passkey)


def shown_in(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what a form shows, as services take it.

    Raises:
        InvalidValueError: the answer of a passkey cannot be read.
    """
    is_passkey = bool(fields.get("answer"))
    return {
        "password": fields.get("password") or None,
        "proof": proof_in(fields) if is_passkey or fields.get("code", "").strip() else None,
        "challenge": fields.get("challenge") if is_passkey else None,
    }


def proof_in(fields: Mapping[str, str]) -> FactorProof:
    """Return the second factor that a form shows: what a passkey has answered, a code of an app, or a recovery code.

    Raises:
        InvalidValueError: the answer of a passkey cannot be read.
    """
    if fields.get("answer"):
        return FactorProof(passkey=object_in(fields, "answer"))
    code = "".join(fields.get("code", "").split())
    return FactorProof(code=code) if code.isdecimal() else FactorProof(recovery_code=code)


def object_in(fields: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return what the script has put into a field, such as what a passkey has answered.

    Raises:
        InvalidValueError: it cannot be read.
    """
    try:
        found = orjson.loads(fields.get(name, ""))
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InvalidValueError(f"{name} is an object of JSON, as the page sends it", field=name)
    return found
