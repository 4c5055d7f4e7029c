"""What may be configured, and what production refuses."""

from __future__ import annotations

from typing import Any

import pytest

from data_layer import Settings
from data_layer.errors import ConfigurationError
from tests.test_config import FIT_FOR_PRODUCTION

ISSUER = {"oidc_issuer": "https://issuer.example", "oidc_client_id": "id"}
PRODUCTION = {name.lower(): value for name, value in FIT_FOR_PRODUCTION.items()}


def problems(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings(_env_file=None, **values)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"oidc_issuer": "issuer.example"}, "OIDC_ISSUER: is not an address"),
        ({"oidc_issuer": "https://user@issuer.example"}, "OIDC_ISSUER: must be of the form"),
        ({"oidc_issuer": "https://issuer.example?x"}, "OIDC_ISSUER: must be of the form"),
        ({"oidc_issuer": "https://issuer.example"}, "OIDC_CLIENT_ID must be set"),
        ({"oidc_client_id": "id"}, "OIDC_CLIENT_ID is set, but OIDC_ISSUER is not"),
        ({"oidc_accept_bearer": True}, "OIDC_ACCEPT_BEARER is set, but OIDC_ISSUER is not"),
        ({"oidc_issuer": "https://issuer.example", "oidc_accept_bearer": True}, "OIDC_ALLOWED_AZP must be set"),
        ({**ISSUER, "oidc_scopes": "email"}, "OIDC_SCOPES: must be words"),
        ({**ISSUER, "oidc_scopes": "openid  email"}, "OIDC_SCOPES: must be words"),
        ({**ISSUER, "oidc_user_url": "https://api.example/users"}, "OIDC_USER_URL: must have {sub} once"),
        ({**ISSUER, "oidc_user_url": "https://{sub}.example/"}, "OIDC_USER_URL: may have {sub} in its path only"),
        ({**ISSUER, "oidc_user_token": "x"}, "OIDC_USER_TOKEN is set, but OIDC_USER_URL is not"),
        ({"oidc_google_client_id": "id"}, "OIDC_GOOGLE_CLIENT_ID and OIDC_GOOGLE_CLIENT_SECRET belong together"),
        ({"oidc_entra_tenant": "contoso"}, "OIDC_ENTRA_TENANT: must be the id of a tenant"),
        ({**PRODUCTION, **ISSUER}, "PUBLIC_URL must be set"),
        ({**PRODUCTION, **ISSUER, "public_url": "http://service.example"}, "PUBLIC_URL must be set, and begin with"),
        (
            {**PRODUCTION, **ISSUER, "oidc_issuer": "http://issuer.example", "public_url": "https://service.example"},
            "OIDC_ISSUER must begin with https://",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(values: dict[str, Any], problem: str) -> None:
    assert problem in problems(**values)


def test_what_can() -> None:
    tokens_only = {"oidc_issuer": "https://issuer.example", "oidc_accept_bearer": True, "oidc_allowed_azp": "https://a"}
    settings = Settings(_env_file=None, **PRODUCTION, **tokens_only)
    assert settings.openid.login_kinds == (), "nobody comes back, so PUBLIC_URL is not needed"
    kept = Settings(_env_file=None, oidc_issuer="https://tenant.auth0.example/", oidc_client_id="id")
    assert kept.openid.oidc_issuer == "https://tenant.auth0.example/", "the slash belongs to it"
    assert Settings(_env_file=None, host="0.0.0.0", port=3001).base_url == "http://127.0.0.1:3001"  # noqa: S104
