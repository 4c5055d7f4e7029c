"""Where PostgreSQL is and how connections to it are made: settings in, SQLAlchemy's and libpq's words out."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, make_url

from data_layer.config import SslMode

if TYPE_CHECKING:
    from data_layer.config import Settings

DRIVER = "postgresql+psycopg"
_VERIFYING = (SslMode.VERIFY_CA, SslMode.VERIFY_FULL)


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A database and the options of connections to it (libpq's names, PostgreSQL manual 32.1.2)."""

    url: URL
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the database."""
        return self.url.database or ""

    def __str__(self) -> str:
        """The address without its password, for people."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=True)


def database_address(settings: Settings, embedded_url: str | None = None) -> DatabaseAddress:
    """The address for the service's connections, which may lead through PgBouncer.

    Args:
        settings: where DATABASE_URL or the DB_ settings name the server.
        embedded_url: the embedded server's address, used when the settings name none.
    """
    options = _connection_options(settings)
    if settings.db_pgbouncer:
        options["prepare_threshold"] = None
    else:
        options["options"] = _server_options(settings)
    return DatabaseAddress(_url(settings, embedded_url), options)


def direct_address(settings: Settings, embedded_url: str | None = None) -> DatabaseAddress:
    """The address for migrations, which need one session from beginning to end and so avoid PgBouncer."""
    if settings.db_direct_url is None:
        url = _url(settings, embedded_url)
    else:
        url = make_url(settings.db_direct_url.get_secret_value()).set(drivername=DRIVER)
    return DatabaseAddress(url, _connection_options(settings))


def _url(settings: Settings, embedded_url: str | None) -> URL:
    given = settings.database_url.get_secret_value() if settings.database_url else embedded_url
    if settings.db_host is None and given is not None:
        return make_url(given).set(drivername=DRIVER)
    host = settings.db_host or ""
    is_socket = host.startswith("/")
    return URL.create(
        DRIVER,
        username=settings.db_username,
        password=settings.db_password.get_secret_value() if settings.db_password else None,
        host=None if is_socket else host,
        port=settings.db_port,
        database=settings.db_name,
        query={"host": host} if is_socket else {},
    )


def _connection_options(settings: Settings) -> dict[str, Any]:
    files = {"sslrootcert": settings.db_ssl_ca, "sslcert": settings.db_ssl_cert, "sslkey": settings.db_ssl_key}
    options: dict[str, Any] = {name: str(path) for name, path in files.items() if path is not None}
    if settings.db_ssl is not None:
        options["sslmode"] = settings.db_ssl.value
    if settings.db_ssl in _VERIFYING and settings.db_ssl_ca is None:
        # psycopg's wheel brings its own OpenSSL, which looks for authorities where its builder kept them.
        options["sslrootcert"] = ssl.get_default_verify_paths().cafile or "system"
    return options | {
        "application_name": "data-layer",
        "connect_timeout": max(1, round(settings.db_connect_timeout)),
        # A peer that vanished without a word is noticed after about a minute instead of two hours.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }


def _server_options(settings: Settings) -> str:
    milliseconds = round(settings.db_statement_timeout * 1000)
    values = {
        "statement_timeout": milliseconds,
        # A transaction whose owner hangs must not hold its locks for ever.
        "idle_in_transaction_session_timeout": 2 * milliseconds,
        "timezone": "UTC",
    }
    return " ".join(f"-c {name}={value}" for name, value in values.items())
