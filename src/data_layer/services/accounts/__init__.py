"""Accounts of people: registering, logging in, changing, ending."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from data_layer.services.accounts.administration import Administration
from data_layer.services.accounts.confirmations import Confirmations
from data_layer.services.accounts.dependencies import AccountDependencies, MailedTokens
from data_layer.services.accounts.factors import Factors
from data_layer.services.accounts.identities import ExternalIdentities, ExternalLogin
from data_layer.services.accounts.login import Login
from data_layer.services.accounts.one_time_tokens import OneTimeToken
from data_layer.services.accounts.password_changes import PasswordChanges
from data_layer.services.accounts.passwords import PasswordHasher
from data_layer.services.accounts.profiles import Profiles
from data_layer.services.accounts.registration import Registered, Registration, RegistrationRequest, VerifiedAddress
from data_layer.services.accounts.second_factors import SecondFactors
from data_layer.services.accounts.throttle import LoginAttempts, LoginThrottle
from data_layer.services.arguments import checks_arguments

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

__all__ = [
    "AccountDependencies",
    "AccountService",
    "ExternalLogin",
    "OneTimeToken",
    "PasswordHasher",
    "Registered",
    "RegistrationRequest",
    "VerifiedAddress",
]


def _method_of(
    collaborator: str, method: Callable[Concatenate[Any, Parameters], Result]
) -> Callable[Concatenate[Any, Parameters], Result]:
    """Return a method of the service that one of its collaborators carries out."""

    @wraps(method)
    def call(self: AccountService, /, *arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        return method(getattr(self, collaborator), *arguments, **options)

    return call


@checks_arguments
class AccountService:
    """Everything about accounts, ``data.accounts``.

    The caller is an ``Actor``, proved by a session; ``services.permissions`` decides what it may do. Each
    change is one transaction, together with its entry in the audit trail and the end of the sessions that it concerns.
    One-time tokens are returned to the caller, who mails them, or with ``by_mail=True`` queued for ``data.mails``; they
    are stored as keyed hashes, and never logged.
    """

    def __init__(self, dependencies: AccountDependencies) -> None:
        throttle, tokens = LoginThrottle(dependencies.secret), MailedTokens(dependencies.secret, dependencies.mails)
        attempts = LoginAttempts(dependencies, throttle)
        self._registration = Registration(dependencies, throttle, tokens)
        factors = SecondFactors(dependencies.settings, dependencies.passkey_site)
        self._login = Login(dependencies, throttle, attempts, factors)
        confirmations = Confirmations(dependencies, attempts, factors)
        self._factors = Factors(dependencies, attempts, factors, confirmations)
        self._password_changes = PasswordChanges(dependencies, throttle, attempts, tokens)
        self._profiles = Profiles(dependencies, throttle, confirmations)
        self._administration = Administration(dependencies, throttle)
        self._identities = ExternalIdentities(dependencies, confirmations)

    register = _method_of("_registration", Registration.register)
    request_registration = _method_of("_registration", Registration.request_registration)
    request_email_verification = _method_of("_registration", Registration.request_email_verification)
    verify_email = _method_of("_registration", Registration.verify_email)
    create = _method_of("_registration", Registration.create)

    authenticate = _method_of("_login", Login.authenticate)
    knows_network = _method_of("_login", Login.knows_network)
    log_in = _method_of("_login", Login.log_in)
    log_in_for_tokens = _method_of("_login", Login.log_in_for_tokens)
    finish_authentication = _method_of("_login", Login.finish_authentication)
    begin_passkey_log_in = _method_of("_login", Login.begin_passkey_log_in)
    finish_log_in = _method_of("_login", Login.finish_log_in)
    finish_log_in_for_tokens = _method_of("_login", Login.finish_log_in_for_tokens)

    list_factors = _method_of("_factors", Factors.list_factors)
    begin_totp = _method_of("_factors", Factors.begin_totp)
    confirm_totp = _method_of("_factors", Factors.confirm_totp)
    begin_passkey = _method_of("_factors", Factors.begin_passkey)
    add_passkey = _method_of("_factors", Factors.add_passkey)
    begin_confirmation = _method_of("_factors", Factors.begin_confirmation)
    remove_factor = _method_of("_factors", Factors.remove_factor)
    renew_recovery_codes = _method_of("_factors", Factors.renew_recovery_codes)
    reset_factors = _method_of("_factors", Factors.reset_factors)

    change_password = _method_of("_password_changes", PasswordChanges.change_password)
    request_password_reset = _method_of("_password_changes", PasswordChanges.request_password_reset)
    mail_password_reset = _method_of("_password_changes", PasswordChanges.mail_password_reset)
    set_password = _method_of("_password_changes", PasswordChanges.set_password)
    reset_password = _method_of("_password_changes", PasswordChanges.reset_password)

    get = _method_of("_profiles", Profiles.get)
    get_public = _method_of("_profiles", Profiles.get_public)
    update_profile = _method_of("_profiles", Profiles.update_profile)
    update_preferences = _method_of("_profiles", Profiles.update_preferences)
    deactivate = _method_of("_profiles", Profiles.deactivate)
    delete = _method_of("_profiles", Profiles.delete)

    list = _method_of("_administration", Administration.list)
    find = _method_of("_administration", Administration.find)
    set_role = _method_of("_administration", Administration.set_role)
    verify = _method_of("_administration", Administration.verify)
    suspend = _method_of("_administration", Administration.suspend)
    unsuspend = _method_of("_administration", Administration.unsuspend)
    reactivate = _method_of("_administration", Administration.reactivate)
    unlock = _method_of("_administration", Administration.unlock)

    authenticate_external = _method_of("_identities", ExternalIdentities.authenticate_external)
    log_in_external = _method_of("_identities", ExternalIdentities.log_in_external)
    list_identities = _method_of("_identities", ExternalIdentities.list_identities)
    confirm_link = _method_of("_identities", ExternalIdentities.confirm_link)
    link = _method_of("_identities", ExternalIdentities.link)
    unlink = _method_of("_identities", ExternalIdentities.unlink)
