"""Addresses of mail: one spelling for each, so that letter case and encodings make no second account."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from data_layer.entities.columns import normalize_email
from data_layer.errors import InvalidValueError

_LONGEST = 320
_NOWHERE = "no-address.invalid"
"""A domain that no mail reaches and that nobody can register with (RFC 2606)."""
_IPV6_NETWORK = 64  # What one subscriber gets at least, so that moving inside of it makes nobody new.


def deliverable_email(email: str) -> str:
    """The spelling that is stored of an address that can receive mail.

    Raises:
        InvalidValueError: for what is not an address, or one that cannot receive mail from elsewhere.
    """
    spelled = normalize_email(email)
    try:
        # Whether the domain exists is found out by sending mail.
        validate_email(spelled, check_deliverability=False)
    except (EmailNotValidError, UnicodeError) as error:
        raise InvalidValueError(f"email is not a usable address: {error}", field="email") from None
    return spelled


def placeholder_email(issuer: str, subject: str) -> str:
    """The address of an account of whose owner an issuer says no address: each identity has one of its own."""
    return f"{hashlib.sha256(f'{issuer} {subject}'.encode()).hexdigest()[:32]}@{_NOWHERE}"


def is_placeholder(email: str) -> bool:
    """Whether mail to this address would reach nobody."""
    return email.endswith(f"@{_NOWHERE}")


def login_name(email: str) -> str:
    """The same for somebody who logs in: what is not an address is an unknown one."""
    try:
        return normalize_email(email)
    except InvalidValueError:
        return email[:_LONGEST].lower().replace("\0", "").encode(errors="replace").decode()


@lru_cache(maxsize=4096)
def network_of(ip_address: str) -> str:
    """The network that failed logins are counted for: an IPv4 address, or 64 bits of an IPv6 address."""
    address = ipaddress.ip_address(ip_address)
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))
