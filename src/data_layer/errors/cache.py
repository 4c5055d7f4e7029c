"""Errors of the cache."""

from __future__ import annotations

from data_layer.errors.base import DataLayerError


class CacheError(DataLayerError):
    """The cache refused or failed in a way that no more precise class describes."""

    code = "cache_error"


class CacheUnavailableError(CacheError):
    """Redis or Valkey could not be reached, or the connection broke."""

    code = "cache_unavailable"


class CacheReadOnlyError(CacheUnavailableError):
    """The server is a replica, which takes no writes."""

    code = "cache_read_only"


class CacheFullError(CacheError):
    """Redis or Valkey has reached its memory limit and evicts nothing."""

    code = "cache_full"


class CacheLoginError(CacheError):
    """Redis or Valkey refused the user name or the password."""

    code = "cache_login_failed"


class CacheTimeoutError(CacheError):
    """Redis or Valkey did not answer within the time limit (REDIS_COMMAND_TIMEOUT)."""

    code = "cache_timeout"


class InvalidCacheKeyError(CacheError):
    """A cache key is empty, too long or not text."""

    code = "cache_key_invalid"


class InvalidCacheValueError(CacheError):
    """A cache value cannot be carried as JSON, or is too large."""

    code = "cache_value_invalid"


class InvalidTimeToLiveError(CacheError):
    """A time to live is zero, negative, not finite or too long."""

    code = "cache_ttl_invalid"


class LockNotAcquiredError(CacheError):
    """A lock stayed taken for as long as the caller was ready to wait."""

    code = "cache_lock_not_acquired"


class LockLostError(CacheError):
    """A lock ended before the work that it protected: another one may have begun the same."""

    code = "cache_lock_lost"
