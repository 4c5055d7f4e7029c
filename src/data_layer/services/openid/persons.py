"""What issuers say about a person, read with care: nothing of it is trusted to be there, or to be what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data_layer.entities.columns import check_text
from data_layer.errors import InvalidTextError

_LONGEST = 2048


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of somebody; ``email_verified``: the issuer vouches that the person reads mail there."""

    email: str | None = None
    email_verified: bool = False
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    avatar: str | None = None


def read_person(claims: dict[str, Any], *, email_claim: str = "email", trust_email: bool = False) -> Person:
    """Read standard claims (OpenID Connect Core 5.1), or an answer of Clerk's ``/users/{id}``.

    Args:
        claims: of a token, of userinfo, or of OIDC_USER_URL.
        email_claim: the one that holds the address.
        trust_email: every address that is stated counts as verified.
    """
    email = _text(claims, email_claim)
    is_verified = claims.get("email_verified") in (True, "true")  # Some issuers send text.
    if email is None:
        email, is_verified = _primary_address(claims)
    return Person(
        email=email,
        email_verified=email is not None and (is_verified or trust_email),
        first_name=_text(claims, "given_name") or _text(claims, "first_name"),
        last_name=_text(claims, "family_name") or _text(claims, "last_name"),
        display_name=_text(claims, "name"),
        avatar=_text(claims, "picture") or _text(claims, "image_url"),
    )


def _primary_address(user: dict[str, Any]) -> tuple[str | None, bool]:
    """The first address of a user as Clerk describes one, and whether it is verified."""
    addresses, primary = user.get("email_addresses"), user.get("primary_email_address_id")
    for one in addresses if isinstance(addresses, list) else ():
        if isinstance(one, dict) and one.get("id") == primary and primary is not None:
            verification = one.get("verification")
            is_verified = isinstance(verification, dict) and verification.get("status") == "verified"
            return _text(one, "email_address"), is_verified
    return None, False


def _text(values: dict[str, Any], name: str) -> str | None:
    """A value that can be stored, or nothing."""
    value = values.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
        return None
    try:
        check_text(name, value)
    except InvalidTextError:
        return None
    return value.strip()
