"""What a server answers, or what happens to a connection, becomes this library's errors, here and nowhere else.

No message quotes what was sent: a command holds keys and values, and a login holds the password.
"""

from __future__ import annotations

import re
import ssl

from hiredis import ReplyError

from data_layer.errors import (
    CacheError,
    CacheFullError,
    CacheLoginError,
    CacheReadOnlyError,
    CacheTimeoutError,
    CacheUnavailableError,
    InvalidCacheValueError,
)


class ScriptUnknownError(CacheError):
    """The server has not seen the script that was called by its hash."""


class ServerReplacedError(CacheUnavailableError):
    """The address leads to another server than before. Nothing was sent, and the next attempt goes to that server."""


_REFUSALS: dict[str, type[CacheError]] = {
    "NOAUTH": CacheLoginError,
    "WRONGPASS": CacheLoginError,
    "OOM": CacheFullError,
    "READONLY": CacheReadOnlyError,
    "LOADING": CacheUnavailableError,
    "MASTERDOWN": CacheUnavailableError,
    "CLUSTERDOWN": CacheUnavailableError,
    "TRYAGAIN": CacheUnavailableError,
    "MOVED": CacheUnavailableError,
    "ASK": CacheUnavailableError,
    "MISCONF": CacheUnavailableError,
    "NOREPLICAS": CacheUnavailableError,
    "NOSCRIPT": ScriptUnknownError,
    "WRONGTYPE": InvalidCacheValueError,
}
DEMOTIONS = frozenset({"READONLY", "MASTERDOWN", "LOADING"})
_IN_SCRIPT = re.compile(r"ERR Error running script .*? -([A-Z]+) ", re.DOTALL)
_NO_RESP3 = re.compile(r"NOPROTO|ERR (?:unknown|unsupported) command ['`]?HELLO", re.IGNORECASE)
_UNFIT_VALUES = ("ERR value is not an integer", "ERR increment or decrement would overflow")
_WRONG_LOGINS = ("ERR invalid password", "ERR AUTH ", "ERR Client sent AUTH")
# Old servers put the arguments of a command that they do not know into the text, and new ones the key without a right.
_QUOTED_ARGUMENTS = re.compile(r",? with args beginning with.*", re.DOTALL)


class ConnectionFailure(Exception):  # noqa: N818  (not raised: it takes the place of an answer)
    """Why no answer came."""


class ConnectionLost(ConnectionFailure):
    """The connection broke, or was closed. A command that was not written cannot have been carried out."""

    def __init__(self, reason: str, *, was_written: bool = True) -> None:
        super().__init__(reason)
        self.was_written = was_written


class ConnectionDemoted(ConnectionLost):
    """The server is no longer a primary; a command with this as its answer was not carried out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, was_written=False)


class ConnectionTimedOut(ConnectionFailure):
    """The answer did not come in time."""


class ConnectionGarbled(ConnectionFailure):
    """The bytes received are not an answer of a Redis server."""


def translate(error: Exception, name: str) -> CacheError:
    """The error of this library; ``name`` is the server: host:port, or the path of a socket."""
    match error:
        case ReplyError():
            return _translate_refusal(str(error), name)
        case ConnectionTimedOut():
            return CacheTimeoutError(f"Redis at {name} did not answer within REDIS_COMMAND_TIMEOUT")
        case ConnectionGarbled():
            return CacheUnavailableError(f"what answers at {name} is not Redis; check REDIS_HOST and REDIS_PORT")
        case ssl.SSLCertVerificationError():
            return CacheUnavailableError(
                f"Redis at {name} showed a certificate that is not trusted: {error.verify_message}; check REDIS_TLS_CA"
            )
        case TimeoutError():
            return CacheUnavailableError(f"Redis at {name} could not be reached within REDIS_CONNECT_TIMEOUT")
        case _:
            return CacheUnavailableError(f"Redis at {name} is not available: {error}")


def reply_code(answer: object) -> str:
    """The first word of a refusal, such as MOVED; empty for anything else."""
    return _code(str(answer)) if isinstance(answer, ReplyError) else ""


def is_demotion(answer: ReplyError) -> bool:
    """Whether only a server that is not, or not yet, a primary refuses a command in this way."""
    return reply_code(answer) in DEMOTIONS


def _code(text: str) -> str:
    """Redis 6 wraps what stopped a script: ``ERR Error running script (…): -READONLY …``."""
    wrapped = _IN_SCRIPT.match(text)
    return wrapped[1] if wrapped else text.partition(" ")[0]


def _translate_refusal(text: str, name: str) -> CacheError:
    refusal = _REFUSALS.get(_code(text), CacheError)
    if _NO_RESP3.match(text):
        return CacheUnavailableError(
            f"Redis at {name} is too old: it does not know the protocol RESP3; "
            "upgrade to Redis 6 or later, or to Valkey"
        )
    if text.startswith(_UNFIT_VALUES):
        refusal = InvalidCacheValueError
    if refusal is CacheLoginError or text.startswith(_WRONG_LOGINS):
        return CacheLoginError(
            f"Redis at {name} refused the login; check REDIS_USERNAME and REDIS_PASSWORD, or the ones in REDIS_URL"
        )
    return refusal(f"Redis at {name} refused the command: {_QUOTED_ARGUMENTS.sub('', text)}")
