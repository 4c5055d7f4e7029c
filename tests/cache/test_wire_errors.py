from __future__ import annotations

import pytest
from hiredis import ReplyError

from data_layer.cache.errors import ConnectionGarbled, ConnectionLost, ConnectionTimedOut, ScriptUnknownError, translate
from data_layer.errors import (
    CacheError,
    CacheFullError,
    CacheLoginError,
    CacheReadOnlyError,
    CacheTimeoutError,
    CacheUnavailableError,
    InvalidCacheValueError,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ReplyError("OOM command not allowed when used memory > 'maxmemory'."), CacheFullError),
        (ReplyError("READONLY You can't write against a read only replica."), CacheReadOnlyError),
        (
            ReplyError(
                "ERR Error running script (call to f_1): @user_script:2: @user_script: 2: -READONLY You can't write "
                "against a read only replica. "
            ),
            CacheReadOnlyError,
        ),
        (ReplyError("NOPROTO unsupported protocol version"), CacheUnavailableError),
        (ReplyError("ERR unknown command 'HELLO', with args beginning with: '3', "), CacheUnavailableError),
        (ReplyError("LOADING Redis is loading the dataset in memory"), CacheUnavailableError),
        (ReplyError("MASTERDOWN Link with MASTER is down"), CacheUnavailableError),
        (ReplyError("CLUSTERDOWN The cluster is down"), CacheUnavailableError),
        (ReplyError("NOAUTH Authentication required."), CacheLoginError),
        (ReplyError("WRONGPASS invalid username-password pair or user is disabled."), CacheLoginError),
        (ReplyError("NOPERM User alice has no permissions to run the 'info' command"), CacheError),
        (ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value"), InvalidCacheValueError),
        (ReplyError("ERR value is not an integer or out of range"), InvalidCacheValueError),
        (ReplyError("ERR increment or decrement would overflow"), InvalidCacheValueError),
        (ReplyError("NOSCRIPT No matching script."), ScriptUnknownError),
        (ReplyError("ERR syntax error"), CacheError),
        (ReplyError(""), CacheError),
        (ConnectionTimedOut(), CacheTimeoutError),
        (ConnectionLost("Connection reset by peer"), CacheUnavailableError),
        (ConnectionGarbled(), CacheUnavailableError),
        (TimeoutError(), CacheUnavailableError),
        (UnicodeError("label too long"), CacheUnavailableError),
        (ConnectionRefusedError("refused"), CacheUnavailableError),
    ],
    ids=str,
)
def test_each_failure_has_its_error_and_names_the_server(answer: Exception, expected: type[CacheError]) -> None:
    error = translate(answer, "cache.example:6379")
    assert type(error) is expected
    assert "cache.example:6379" in str(error)


def test_what_was_sent_is_not_quoted() -> None:
    text = "ERR unknown command 'NONSENSE', with args beginning with: 'secret' 'more secrets'"
    assert "secret" not in str(translate(ReplyError(text), "here"))
