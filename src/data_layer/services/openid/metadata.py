"""What an issuer says about itself: OpenID Connect Discovery 1.0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from data_layer.errors import IssuerError

DISCOVERY_PATH = "/.well-known/openid-configuration"
_LONGEST_URL = 2048


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where an issuer is asked for what.

    ``names_itself``: it says in its answers who it is (RFC 9207), so an answer without that is not its own.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    takes_basic: bool
    names_itself: bool


def read_metadata(document: dict[str, Any], configured: str, is_issuer: Callable[[str], bool]) -> Metadata:
    """Read a discovery document.

    Args:
        document: as it was sent.
        configured: the issuer of the settings, for messages and for the scheme that addresses must have.
        is_issuer: whether the document may be that of this issuer; otherwise another one could speak for it.

    Raises:
        IssuerError: it is of another issuer, or lacks an address that can be used.
    """
    issuer = document.get("issuer")
    if not isinstance(issuer, str) or not is_issuer(issuer):
        raise IssuerError(f"the discovery document of {configured} is of another issuer; write OIDC_ISSUER as it does")
    is_secure = configured.startswith("https://")

    def address(name: str) -> str:
        value = document.get(name)
        if not isinstance(value, str) or not _is_address(value, is_secure=is_secure):
            raise IssuerError(f"the discovery document of {configured} has no {name} that can be used")
        return value

    # RFC 8414: without a list it is client_secret_basic.
    methods = document.get("token_endpoint_auth_methods_supported")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=address("authorization_endpoint"),
        token_endpoint=address("token_endpoint"),
        jwks_uri=address("jwks_uri"),
        userinfo_endpoint=address("userinfo_endpoint") if document.get("userinfo_endpoint") is not None else None,
        takes_basic=not isinstance(methods, list) or "client_secret_basic" in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _is_address(value: str, *, is_secure: bool) -> bool:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    schemes = {"https"} if is_secure else {"http", "https"}
    is_plain = value.isascii() and value.isprintable() and " " not in value and len(value) <= _LONGEST_URL
    return (
        is_plain and parts.scheme in schemes and bool(parts.hostname) and "@" not in parts.netloc and not parts.fragment
    )
