"""Which columns, and keys inside JSON, hold secrets that the audit trail must not repeat."""

from __future__ import annotations

import re
from functools import lru_cache

_SEPARATORS = re.compile(r"[\W_]+")
_SECRET = re.compile(
    "passw|passphrase|pwd|secret|token|authorization|cookie|apikey|accesskey|privatekey|credential|signature|jwt"
    "|hash$|^sessionid$|^sessiondata$|^otp$"
)
# Their names hold a word of the above, but they only measure or date a secret.
_HARMLESS = re.compile("tokens$|(?:expiresat|changedat|verifiedat|count|length)$")


@lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Whether what bears this name is a secret, in any spelling: ``password_hash``, ``apiKey``."""
    normalised = _SEPARATORS.sub("", name).lower()
    return _SECRET.search(normalised) is not None and _HARMLESS.search(normalised) is None
