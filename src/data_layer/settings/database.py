"""The settings of PostgreSQL: a part of ``Settings`` with its own rules."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from data_layer.environment import Address, is_local, split_host
from data_layer.settings.part import (
    ANY_CASE,
    COMMA_SEPARATED,
    Hosts,
    PlainText,
    Port,
    Seconds,
    SecondsOrNever,
    SettingsPart,
    check_url,
)
from data_layer.settings.strength import HOW_TO_MAKE_ONE, password_weakness


class SslMode(StrEnum):
    """How connections to PostgreSQL are encrypted and verified, as libpq names it (PostgreSQL manual, 32.19)."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


_YES_AND_NO = {"true": "verify-full", "1": "verify-full", "yes": "verify-full", "on": "verify-full"} | dict.fromkeys(
    ("false", "0", "no", "off"), "disable"
)


def _read_yes_and_no(value: Any) -> Any:
    return _YES_AND_NO.get(str(value).lower(), value)


class DatabaseSettings(SettingsPart):
    """Where the database is, who logs in, and how long is waited for it."""

    harmless: ClassVar[dict[str, Any]] = {"database_url": "postgresql://localhost/name"}

    # The database, PostgreSQL
    database_url: SecretStr | None = Field(
        None, description="Whole address, postgresql://user:password@host:5432/name; instead of the DB_ parts."
    )
    db_host: Annotated[Hosts | None, COMMA_SEPARATED] = Field(
        None,
        description="Host, or host:port, or the folder of a Unix socket; several, separated by commas, of which one "
        "takes writes. Neither this nor DATABASE_URL: embedded PostgreSQL.",
    )
    db_port: Port = Field(5432, description="Port of PostgreSQL.")
    db_name: PlainText = Field("screenshot_to_code", min_length=1, max_length=63, description="Name of the database.")
    db_username: PlainText = Field("postgres", min_length=1, max_length=63, description="Name of the database user.")
    db_password: SecretStr | None = Field(None, description="Password of the database user.")
    db_ssl: Annotated[SslMode | None, BeforeValidator(_read_yes_and_no), ANY_CASE] = Field(
        None,
        description="libpq's sslmode; true: verify-full, false: disable. Default: prefer; production must choose.",
    )
    db_ssl_ca: Path | None = Field(None, description="File with the authorities to trust. Default: the system's.")
    db_ssl_cert: Path | None = Field(None, description="File with the client's certificate.")
    db_ssl_key: Path | None = Field(None, description="File with the client's private key.")
    db_max_connections: int = Field(
        20,
        ge=1,
        le=10_000,
        description="Connections of the pool, of all WORKERS together; in each one more listens for ended sessions.",
    )
    db_min_connections: int = Field(2, ge=0, le=10_000, description="Connections that are opened at start.")
    db_pool_timeout: Seconds = Field(10, description="Seconds to wait for a free connection.")
    db_pool_queue: int = Field(
        200,
        ge=1,
        le=100_000,
        description="HTTP requests that may wait for a free connection in each process; one more is answered 503 at "
        "once. Not counted is what its sender would not repeat, such as what a writer streams.",
    )
    db_connect_timeout: Seconds = Field(5, description="Seconds to wait for a new connection.")
    db_statement_timeout: Seconds = Field(30, description="Seconds that one statement may take.")
    db_pgbouncer: bool = Field(
        default=False, description="Connections go through PgBouncer in transaction mode: no prepared statements."
    )
    db_direct_url: SecretStr | None = Field(
        None, description="Address that avoids PgBouncer, for migrations. Default: the same server."
    )
    db_replica_hosts: Annotated[Hosts | None, COMMA_SEPARATED] = Field(
        None, description="Replicas to read from, as host or host:port, separated by commas; same login and database."
    )
    db_replica_max_lag: Seconds = Field(
        5, description="Seconds that a replica may be behind; one that is further behind is not read from."
    )
    db_slow_statement: SecondsOrNever = Field(
        1, description="Seconds from which on a statement is logged as slow, with its name, never its values; 0: never."
    )
    db_sql_comments: bool = Field(
        default=False,
        description="Statements carry a comment with correlation id and traceparent, for the server's log and "
        "pg_stat_activity. Each text is another one then: PostgreSQL prepares none and plans every statement again.",
    )
    db_logging: bool = Field(default=False, description="Log every SQL statement (never its values) at level debug.")

    @field_validator("database_url", "db_direct_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            address = check_url(value, ("postgresql", "postgres"), "postgresql://user:password@host:5432/name")
            if any(text.startswith("~") for text in (*address.options.values(), *filter(None, address.hosts))):
                raise ValueError("has an option that begins with ~, which nothing expands there; write the whole path")
        return value

    @property
    def is_embedded(self) -> bool:
        """Whether PostgreSQL is to be started from its wheel, because no server is named."""
        return self.database_url is None and self.db_host is None

    def share(self, number: int, workers: int) -> Self:
        """Return the settings of one of several processes, counted from 0; their pools together are this one."""

        def share(total: int) -> int:
            return total // workers + (number < total % workers)

        return self.replaced(
            db_max_connections=share(self.db_max_connections), db_min_connections=share(self.db_min_connections)
        )

    def contradictions(self) -> list[str]:
        """Return what makes the settings unusable anywhere."""
        problems = []
        if self.database_url is not None and self.db_host is not None:
            problems.append("DATABASE_URL and DB_HOST are both set; keep one of them")
        if (port := self._other_port_in_host) is not None:
            problems.append(f"DB_HOST names port {port}, but DB_PORT is {self.db_port}; keep one of them")
        if self.db_replica_hosts and self.is_embedded:
            problems.append("DB_REPLICA_HOSTS is set, but no primary; set DB_HOST or DATABASE_URL too")
        if self.db_min_connections > self.db_max_connections:
            problems.append(
                f"DB_MIN_CONNECTIONS ({self.db_min_connections}) is larger than "
                f"DB_MAX_CONNECTIONS ({self.db_max_connections})"
            )
        if (self.db_ssl_cert is None) != (self.db_ssl_key is None):
            problems.append("DB_SSL_CERT and DB_SSL_KEY belong together; set both or neither")
        return problems + self.missing_files("db_ssl_ca", "db_ssl_cert", "db_ssl_key")

    def unfit(self) -> list[str]:
        """Return what production refuses."""
        if self.is_embedded:
            return ["DB_HOST or DATABASE_URL must be set: production does not run the embedded PostgreSQL"]
        problems = self._weak_passwords()
        if self._is_local:
            return problems
        address = Address(self.database_url.get_secret_value()) if self.database_url else None
        if self.db_ssl is None and not (address and address.names_ssl_mode):
            problems.append("DB_SSL must be chosen: verify-full, or disable to accept unencrypted connections")
        password = address.password if address else self.db_password
        if password is None and self.db_ssl_cert is None:
            problems.append("DATABASE_URL has no password" if address else "DB_PASSWORD is missing")
        return problems

    def passwords(self) -> list[tuple[str, str]]:
        """Return the passwords with the names of their settings."""
        passwords = [("DB_PASSWORD", self.db_password.get_secret_value())] if self.db_password else []
        for name, url in {"DATABASE_URL": self.database_url, "DB_DIRECT_URL": self.db_direct_url}.items():
            if url is not None and (password := Address(url.get_secret_value()).password):
                passwords.append((name, password))
        return passwords

    def guessable_names(self) -> set[str]:
        """Return what an attacker knows or guesses, and tries as a password."""
        names = {self.db_name, self.db_username, *(self.db_host or "").split(",")}
        for url in filter(None, (self.database_url, self.db_direct_url)):
            address = Address(url.get_secret_value())
            names |= {address.name, address.username or "", *(host or "" for host in address.hosts)}
        return names - {""}

    def _weak_passwords(self) -> list[str]:
        names = self.guessable_names()
        return [
            f"the password in {name} {weakness}; {HOW_TO_MAKE_ONE}"
            if name.endswith("_URL")
            else f"{name} {weakness}; {HOW_TO_MAKE_ONE}"
            for name, password in self.passwords()
            if (weakness := password_weakness(password, names))
        ]

    @property
    def _is_local(self) -> bool:
        if self.database_url is not None:
            return Address(self.database_url.get_secret_value()).is_local
        return all(is_local(split_host(host)[0]) for host in (self.db_host or "").split(",") if host)

    @property
    def _other_port_in_host(self) -> int | None:
        """The port of the one host, where DB_PORT names another one."""
        if self.db_host is None or "," in self.db_host or "db_port" not in self.model_fields_set:
            return None
        port = split_host(self.db_host)[1]
        return None if port == self.db_port else port
