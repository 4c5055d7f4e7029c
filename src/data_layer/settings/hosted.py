"""The settings of the hosted application's calls: a part of ``Settings``."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field, SecretStr

from data_layer.settings.part import SettingsPart


class HostedSettings(SettingsPart):
    """Whether the calls of the hosted application are answered, and what a generation may cost."""

    # The hosted application
    saas_api_secret: Annotated[SecretStr, Field(min_length=1)] | None = Field(
        None,
        description="Secret with which the back end of the hosted application calls this service; it is called "
        "BACKEND_SAAS_API_SECRET there. With it, its calls are answered; needs OIDC_ACCEPT_BEARER.",
    )
    saas_reservation: Decimal = Field(
        Decimal(1),
        gt=0,
        le=1000,
        description="US dollars that are set aside of the budget of a person who begins to generate; those without a "
        "budget spend any amount.",
    )

    @property
    def is_enabled(self) -> bool:
        """Whether the calls are answered."""
        return self.saas_api_secret is not None

    def signing_secrets(self) -> list[tuple[str, str]]:
        """Return the secret with the name of its setting, if there is one."""
        if self.saas_api_secret is None:
            return []
        return [("SAAS_API_SECRET", self.saas_api_secret.get_secret_value())]
