"""Accounts of people: registering, logging in, changing, ending."""

from __future__ import annotations

from data_layer.services.accounts.administration import Administration
from data_layer.services.accounts.identities import ExternalIdentities, ExternalLogin
from data_layer.services.accounts.login import Login
from data_layer.services.accounts.one_time_tokens import OneTimeToken
from data_layer.services.accounts.password_changes import PasswordChanges
from data_layer.services.accounts.passwords import PasswordHasher
from data_layer.services.accounts.profiles import Profiles
from data_layer.services.accounts.registration import Registered, Registration, RegistrationRequest, VerifiedAddress
from data_layer.services.accounts.tools import AccountTools

__all__ = [
    "AccountService",
    "AccountTools",
    "ExternalLogin",
    "OneTimeToken",
    "PasswordHasher",
    "Registered",
    "RegistrationRequest",
    "VerifiedAddress",
]


class AccountService(Registration, Login, PasswordChanges, Profiles, Administration, ExternalIdentities):
    """Everything about accounts, ``data.accounts``.

    Who asks is said by an ``Actor``, whom a session has proved; ``services.permissions`` decides what it may do. Each
    change is one transaction, together with its entry in the audit trail and the end of the sessions that it concerns.
    One-time tokens are returned to the caller, who mails them; they are stored as keyed hashes, and never logged.
    """
