"""Logging in by OpenID Connect issuers, Google, GitHub and Microsoft, and bearer tokens of an issuer."""

from data_layer.services.openid.providers import ProviderConfiguration
from data_layer.services.openid.service import FinishedLogin, LoginProvider, LoginStart, OpenIdService

__all__ = ["FinishedLogin", "LoginProvider", "LoginStart", "OpenIdService", "ProviderConfiguration"]
