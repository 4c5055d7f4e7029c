"""Which names announce a secret."""

from __future__ import annotations

import re
from functools import lru_cache

_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_NAME = 128
_SECRET = re.compile(
    "passw|passphrase|pwd|secret|token|authorization|cookie|apikey|accesskey|accountkey|sharedkey|privatekey"
    "|signingkey|encryptionkey|instrumentationkey|credential|sessionid|connectionstring|signature|jwt|.hash$|^(?:auth|sig|otp)$"
    # As pydantic shows what it refused.
    "|^input(?:value)?$"
)
_HEADER = re.compile("^(?:proxy)?authorization$|^(?:set)?cookie$|^x.*(?:key|token|secret)$|^apikey$")
_MEASURE = re.compile("tokens|(?:count|length|size|limit|seconds|ttl|used|age)$")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether what bears this name is a secret, in any spelling: ``api_key``, ``X-API-Key``, ``apiKey``."""
    return _SECRET.search(_normalised(name)) is not None


@lru_cache(maxsize=4096)
def is_measure(name: str) -> bool:
    """Whether a number of this name only measures secrets, as ``prompt_tokens`` does."""
    return _MEASURE.search(_normalised(name)) is not None


@lru_cache(maxsize=4096)
def is_header_name(name: str) -> bool:
    """Whether the rest of the line is the value, as in ``Authorization: Basic ...``."""
    return _HEADER.search(_normalised(name)) is not None


def _normalised(name: str) -> str:
    return _SEPARATORS.sub("", name[:_LONGEST_NAME]).lower()
