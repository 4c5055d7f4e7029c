"""Where PostgreSQL is and how connections to it are made: settings in, SQLAlchemy's and libpq's words out."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, make_url

from data_layer.environment import host_and_port, host_options, hosts_in_query
from data_layer.errors import ConfigurationError
from data_layer.settings.database import DatabaseSettings, SslMode

DRIVER = "postgresql+psycopg"
_VERIFYING = (SslMode.VERIFY_CA, SslMode.VERIFY_FULL)
_DEFAULTS = {
    "application_name": "data-layer",
    # A peer that vanished without a word is noticed after about a minute instead of two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


# What our statements and the reading of their results depend on, and what a role, a database, the server or libpq's
# environment (PGTZ, PGDATESTYLE, PGOPTIONS) may have set otherwise. Two are left to the administrator: search_path, by
# which our tables are put into a schema, and default_transaction_read_only, with which writing is stopped.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "gin_fuzzy_search_limit": "0",
    "row_security": "on",
    "exit_on_error": "off",
    "lock_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
# These PgBouncer keeps for each client, which must know them before the first result: the server says what they are no
# earlier than a pipeline ends.
_TRACKED_BY_PGBOUNCER = {name: _SESSION[name] for name in ("TimeZone", "DateStyle", "standard_conforming_strings")}
_NO_LIMITS = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}

# What is not given libpq takes from its environment (PGHOST, PGPORT, PGHOSTADDR, PGOPTIONS, PGSSLMODE …) or from the
# file of PGSERVICE. Our settings alone say where the database is and how it is reached; a password may come from there.
_NOWHERE_ELSE = {
    "host": "",
    "port": "5432",
    "hostaddr": "",
    "options": "",
    "sslmode": "prefer",
    "sslrootcert": "",
    "sslcert": "",
    "sslkey": "",
    "sslcrl": "",
    "sslcrldir": "",
    "requirepeer": "",
    "channel_binding": "prefer",
    "target_session_attrs": "any",
}


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A database and the options of connections to it (libpq's names, PostgreSQL manual 32.1.2)."""

    url: URL
    options: dict[str, Any]
    session: Mapping[str, str] = field(default_factory=_SESSION.copy)
    """What is set on the server after connecting. Behind PgBouncer each transaction sets the rest."""

    @property
    def name(self) -> str:
        """The name of the database."""
        return self.url.database or ""

    @property
    def host_count(self) -> int:
        """How many servers are named; they are tried one after the other."""
        hosts = self.url.query.get("host", "")
        return len(hosts) if isinstance(hosts, tuple) else hosts.count(",") + 1

    @property
    def first_statement(self) -> str:
        """What each new connection executes, before anything else."""
        return session_statement(self.session, is_local=False)

    def __str__(self) -> str:
        """The address without its password, for people."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=True)


def database_address(settings: DatabaseSettings, embedded_url: str | None = None) -> DatabaseAddress:
    """The address for the service's connections, which may lead through PgBouncer.

    Args:
        settings: where DATABASE_URL or the DB_ settings name the server.
        embedded_url: the embedded server's address, used when the settings name none.
    """
    return _address(settings, _url(settings, embedded_url))


def _address(settings: DatabaseSettings, url: URL) -> DatabaseAddress:
    options = _connection_options(settings, url)
    if settings.db_pgbouncer or settings.db_sql_comments:
        options["prepare_threshold"] = None
    if not settings.db_pgbouncer:
        ours = " ".join(f"-c {name}={value}" for name, value in _limits(settings).items())
        options["options"] = f"{url.query.get('options', '')} {ours}".strip()
    return DatabaseAddress(url, options, _TRACKED_BY_PGBOUNCER if settings.db_pgbouncer else _SESSION)


def direct_address(settings: DatabaseSettings, embedded_url: str | None = None) -> DatabaseAddress:
    """The address for migrations, which need one session from beginning to end and so avoid PgBouncer."""
    if settings.db_direct_url is None:
        url = _url(settings, embedded_url)
    else:
        url = _read_url("DB_DIRECT_URL", settings.db_direct_url.get_secret_value())
    is_pooled = settings.db_pgbouncer and settings.db_direct_url is None
    session = _TRACKED_BY_PGBOUNCER if is_pooled else _SESSION | _NO_LIMITS
    return DatabaseAddress(url, _connection_options(settings, url), session)


def replica_addresses(settings: DatabaseSettings) -> list[DatabaseAddress]:
    """The addresses of DB_REPLICA_HOSTS, with the login and the database of the primary."""
    return [_replica_address(settings, name) for name in (settings.db_replica_hosts or "").split(",") if name]


def _replica_address(settings: DatabaseSettings, name: str) -> DatabaseAddress:
    host, port = host_and_port(name, settings.db_port)
    primary = _url(settings, None).difference_update_query(["host", "hostaddr", "port", "target_session_attrs"])
    return _address(settings, primary.set(host=host, port=port))


def session_statement(session: Mapping[str, str], *, is_local: bool) -> str:
    """The statement that sets something for the session, or for the transaction."""
    scope = str(is_local).lower()
    values = (f"pg_catalog.set_config('{name}', '{value}', {scope})" for name, value in session.items())
    return f"SELECT {', '.join(values)}"


def _url(settings: DatabaseSettings, embedded_url: str | None) -> URL:
    given = settings.database_url.get_secret_value() if settings.database_url else embedded_url
    if settings.db_host is None and given is not None:
        return _read_url("DATABASE_URL", given)
    host = settings.db_host or ""
    url = URL.create(
        DRIVER,
        username=settings.db_username,
        password=settings.db_password.get_secret_value() if settings.db_password else None,
        database=settings.db_name,
    )
    if host.startswith("/"):
        return url.set(port=settings.db_port, query={"host": host})
    if "," in host:
        return url.set(query=host_options(host, settings.db_port))
    name, port = host_and_port(host, settings.db_port)
    return url.set(host=name, port=port)


def _read_url(setting: str, text: str) -> URL:
    url = make_url(hosts_in_query(text)).set(drivername=DRIVER)
    if "@" in (url.host or ""):
        # What would be taken for the host, and be shown, holds a piece of the password.
        raise ConfigurationError(f"{setting}: write an @ in the user name or the password as %40")
    return url


def _connection_options(settings: DatabaseSettings, url: URL) -> dict[str, Any]:
    files = {"sslrootcert": settings.db_ssl_ca, "sslcert": settings.db_ssl_cert, "sslkey": settings.db_ssl_key}
    options: dict[str, Any] = {name: str(path) for name, path in files.items() if path is not None}
    if settings.db_ssl is not None:
        options["sslmode"] = settings.db_ssl.value
    if options.get("sslmode", url.query.get("sslmode")) in _VERIFYING:
        # psycopg's wheel brings its own OpenSSL, which looks for authorities where its builder kept them.
        options.setdefault("sslrootcert", url.query.get("sslrootcert", _system_authorities()))
    if "," in str(url.query.get("host", "")):
        # Of several servers one takes writes: after a failover new connections find it.
        options.setdefault("target_session_attrs", url.query.get("target_session_attrs", "read-write"))
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in url.query}
    hosts = str(url.query.get("host", ""))
    # SQLAlchemy also takes ``?host=first:5433&host=second:5434``.
    has_ports = ":" in hosts and "/" not in hosts
    places = {"host": url.host or hosts, "port": url.port or url.query.get("port") or has_ports}
    unset = {name: _NOWHERE_ELSE[name] for name, given in places.items() if not given}
    unset |= {name: value for name, value in _NOWHERE_ELSE.items() if name not in {*places, *url.query}}
    return (
        unset
        | options
        | defaults
        | {"client_encoding": "UTF8", "connect_timeout": max(1, round(settings.db_connect_timeout))}
    )


def _system_authorities() -> str:
    return ssl.get_default_verify_paths().cafile or "system"


def session_values(settings: DatabaseSettings) -> dict[str, str]:
    """What is in force in each session of the service; behind PgBouncer each transaction sets it."""
    return _SESSION | _limits(settings)


def _limits(settings: DatabaseSettings) -> dict[str, str]:
    milliseconds = round(settings.db_statement_timeout * 1000)
    return {
        "statement_timeout": f"{milliseconds}",
        # A transaction whose owner hangs must not hold its locks for ever.
        "idle_in_transaction_session_timeout": f"{2 * milliseconds}",
    }
