"""redis-py's exceptions become this library's errors, here and nowhere else.

No message quotes what was sent: a command holds keys and values, and a login holds the password.
"""

from __future__ import annotations

import re
import ssl

from redis import exceptions as redis

from data_layer.errors import (
    CacheError,
    CacheLoginError,
    CacheTimeoutError,
    CacheUnavailableError,
    InvalidCacheValueError,
)

_LOGIN_ERRORS = (
    redis.AuthenticationError,
    redis.AuthorizationError,
    redis.AuthenticationWrongNumberOfArgsError,
)
_UNFIT_VALUES = ("WRONGTYPE", "value is not an integer", "increment or decrement would overflow")
# redis-py puts the command of a pipeline, and old servers put the arguments of one they do not know, into the text.
_QUOTED_COMMAND = re.compile(
    r"^Command # \d+ \(.*\) of pipeline caused error: |,? with args beginning with.*", re.DOTALL
)


def translate(error: Exception, address: str) -> CacheError:
    """The error of this library for one of redis-py or of the system; ``address`` is host:port or a socket path."""
    error = unwrap(error)
    if isinstance(error, _LOGIN_ERRORS):
        return CacheLoginError(
            f"Redis at {address} refused the login; check REDIS_USERNAME and REDIS_PASSWORD, or the ones in REDIS_URL"
        )
    if isinstance(error, redis.TimeoutError | TimeoutError) or is_pool_timeout(error):
        return _translate_timeout(error, address)
    if isinstance(error, redis.ConnectionError | redis.InvalidResponse | OSError):
        return CacheUnavailableError(_explain_connection(error, address))
    return _translate_refusal(error, address)


def unwrap(error: Exception) -> Exception:
    """The reason itself: over a Unix socket redis-py wraps what went wrong at login in a ConnectionError."""
    cause = error.__cause__
    return cause if type(error) is redis.ConnectionError and isinstance(cause, redis.RedisError) else error


def is_pool_timeout(error: Exception) -> bool:
    """Whether every connection of the pool stayed in use for too long."""
    return isinstance(error, redis.ConnectionError) and isinstance(error.__cause__, TimeoutError)


def is_broken_connection(error: Exception) -> bool:
    """Whether a new connection may succeed where this one failed."""
    reason = unwrap(error)
    return (
        isinstance(reason, redis.ConnectionError)
        and not isinstance(reason, _LOGIN_ERRORS)
        and not is_pool_timeout(reason)
    )


def _translate_timeout(error: Exception, address: str) -> CacheError:
    if is_pool_timeout(error):
        return CacheTimeoutError(f"All connections to Redis at {address} stayed in use for REDIS_COMMAND_TIMEOUT")
    if "connecting" in str(error):
        return CacheUnavailableError(f"Redis at {address} could not be reached within REDIS_CONNECT_TIMEOUT")
    return CacheTimeoutError(f"Redis at {address} did not answer within REDIS_COMMAND_TIMEOUT")


def _explain_connection(error: Exception, address: str) -> str:
    if isinstance(error, redis.InvalidResponse):
        return f"What answers at {address} is no Redis; check REDIS_HOST and REDIS_PORT"
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        reason = error.__context__.verify_message
        return f"Redis at {address} showed a certificate that is not trusted: {reason}; check REDIS_TLS_CA"
    return f"Redis at {address} is not available: {error}"


def _translate_refusal(error: Exception, address: str) -> CacheError:
    text = _QUOTED_COMMAND.sub("", str(error)).strip("()',\" ")
    refusal = InvalidCacheValueError if text.startswith(_UNFIT_VALUES) else CacheError
    return refusal(f"Redis at {address} refused the command: {text}")
