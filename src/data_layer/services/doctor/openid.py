"""Issuers that people log in by: whether they answer, and what must be registered there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from data_layer.services.doctor.checks import Check, CheckResult, Look, ok
from data_layer.services.openid import ProviderConfiguration

PART = "openid"


def openid_checks(configurations: Sequence[ProviderConfiguration], ask: Callable[[str], Awaitable[str]]) -> list[Check]:
    """Return a check for each provider.

    Args:
        configurations: the providers
        ask: what answers the name of a provider with what it says of itself
    """
    return [Check(PART, configuration.kind, _look_at(configuration, ask)) for configuration in configurations]


def _look_at(configuration: ProviderConfiguration, ask: Callable[[str], Awaitable[str]]) -> Look:
    async def look() -> CheckResult:
        answer = await ask(configuration.kind)
        if configuration.client_id is None:
            return ok("%(issuer)s answers; only its tokens are accepted", issuer=answer)
        return ok(
            "%(issuer)s answers; register the redirect URI %(address)s",
            issuer=answer,
            address=str(configuration.redirect_uri),
        )

    return look
