"""How long is waited for a server, and how often a request is repeated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_NEVER = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Limits:
    """Every wait has one. Times are in seconds.

    Attributes:
        connect_timeout: For a connection.
        timeout: For the answer to a request, the sending of its body included, and for each piece of a download.
        retries: How often a request is sent again that is safe to repeat: after a lost connection, and after an answer
            by which the server says that it is overloaded or broken. The pauses between grow, with chance in them.
        retry_timeout: After this time no further attempt begins.
        idle_timeout: A connection that was idle for longer is not used again. NATs and load balancers remember one for
            longer than this; a request on a connection that they forgot would wait for ``timeout``.
    """

    connect_timeout: float = 5.0
    timeout: float = 30.0
    retries: int = 3
    retry_timeout: float = 60.0
    idle_timeout: float = 20.0

    def client_options(self, *, allow_http: bool) -> ClientConfig:
        """For obstore's HTTP client. Its limit for whole requests is off: a large download may take hours."""
        return {
            "allow_http": allow_http,
            "connect_timeout": timedelta(seconds=self.connect_timeout),
            "read_timeout": timedelta(seconds=self.timeout),
            "timeout": _NEVER,
            "pool_idle_timeout": timedelta(seconds=self.idle_timeout),
        }

    def retry_config(self) -> RetryConfig:
        """For obstore's repetitions."""
        return {
            "max_retries": self.retries,
            "retry_timeout": timedelta(seconds=self.retry_timeout),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        }
