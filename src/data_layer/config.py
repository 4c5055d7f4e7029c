"""Settings: typed and frozen, from the environment and ``.env``; every problem is reported at once."""

from __future__ import annotations

import difflib
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from data_layer.errors import ConfigurationError


class Environment(StrEnum):
    """Where the process runs; production refuses what is convenient elsewhere."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    STAGING = "staging"
    PRODUCTION = "production"


class SslMode(StrEnum):
    """How connections to PostgreSQL are encrypted and verified, as libpq names it (PostgreSQL manual, 32.19)."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


DEVELOPMENT_SECRET = "development-only-secret-never-use-in-production"  # noqa: S105  (production refuses it)
_MINIMUM_SECRET_LENGTH = 32
_NOT_IN_THIS_VERSION = ("REDIS_CLUSTER_NODES", "REDIS_SENTINEL_NODES", "REDIS_SENTINEL_MASTER")
_WELL_KNOWN_PASSWORDS = frozenset({"password", "postgres", "redis", "secret", "changeme", "admin", "root"})
_YES_AND_NO = {"true": "verify-full", "1": "verify-full", "yes": "verify-full", "on": "verify-full"} | dict.fromkeys(
    ("false", "0", "no", "off"), "disable"
)

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Milliseconds = Annotated[int, Field(gt=0, le=600_000)]


class Settings(BaseSettings):
    """Everything that can be configured, each by the environment variable of the same name in capitals.

    Values come from the arguments, then the environment, then ``.env`` in the working directory; an empty
    variable counts as not set.

    Raises:
        ConfigurationError: with every problem that was found, not only the first.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, env_file=".env", env_file_encoding="utf-8"
    )

    # General
    environment: Environment = Field(
        Environment.DEVELOPMENT,
        validation_alias=AliasChoices("environment", "node_env"),
        description="Where this runs: development, testing, staging or production. NODE_ENV is read too.",
    )
    host: str = Field("127.0.0.1", description="Address that the service listens on.")
    port: Port = Field(3000, description="Port that the service listens on.")
    data_folder: Path = Field(
        Path(".data-layer"), description="Folder of the embedded servers, used while no server of one's own is set."
    )
    log_level: Literal["error", "warn", "info", "debug"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or auto: JSON in production and wherever the output is no terminal."
    )

    # The database, PostgreSQL
    database_url: SecretStr | None = Field(
        None, description="Whole address, postgresql://user:password@host:5432/name; instead of the DB_ parts."
    )
    db_host: str | None = Field(
        None,
        description="Host name, or the folder of a Unix socket. Neither this nor DATABASE_URL: embedded PostgreSQL.",
    )
    db_port: Port = Field(5432, description="Port of PostgreSQL.")
    db_name: str = Field("screenshot_to_code", min_length=1, max_length=63, description="Name of the database.")
    db_username: str = Field("postgres", min_length=1, max_length=63, description="Name of the database user.")
    db_password: SecretStr | None = Field(None, description="Password of the database user.")
    db_ssl: SslMode | None = Field(
        None,
        description="libpq's sslmode; true: verify-full, false: disable. Default: prefer; production must choose.",
    )
    db_ssl_ca: Path | None = Field(None, description="File with the authorities to trust. Default: the system's.")
    db_ssl_cert: Path | None = Field(None, description="File with the client's certificate.")
    db_ssl_key: Path | None = Field(None, description="File with the client's private key.")
    db_max_connections: int = Field(20, ge=1, le=10_000, description="Connections that are never exceeded.")
    db_min_connections: int = Field(2, ge=0, le=10_000, description="Connections that are opened at start.")
    db_pool_timeout: Seconds = Field(10, description="Seconds to wait for a free connection.")
    db_connect_timeout: Seconds = Field(5, description="Seconds to wait for a new connection.")
    db_statement_timeout: Seconds = Field(30, description="Seconds that one statement may take.")
    db_pgbouncer: bool = Field(
        default=False, description="Connections go through PgBouncer in transaction mode: no prepared statements."
    )
    db_direct_url: SecretStr | None = Field(
        None, description="Address that avoids PgBouncer, for migrations. Default: the same server."
    )
    db_logging: bool = Field(default=False, description="Log every SQL statement (never its values) at level debug.")

    # The cache, Redis or Valkey
    redis_url: SecretStr | None = Field(
        None, description="Whole address: redis://, rediss:// (TLS) or unix://; instead of the REDIS_ parts."
    )
    redis_host: str | None = Field(None, description="Host name. Neither this nor REDIS_URL: embedded Valkey.")
    redis_port: Port = Field(6379, description="Port of Redis.")
    redis_database: int = Field(0, ge=0, le=1023, description="Number of the Redis database.")
    redis_username: str | None = Field(None, description="User name (ACL).")
    redis_password: SecretStr | None = Field(None, description="Password.")
    redis_tls: bool = Field(default=False, description="Encrypt connections and verify the server's certificate.")
    redis_tls_ca: Path | None = Field(None, description="File with the authorities to trust. Default: the system's.")
    redis_key_prefix: str = Field(
        "stc",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Prefix of all keys, so that applications can share a server.",
    )
    redis_connect_timeout: Milliseconds = Field(10_000, description="Milliseconds to wait for a connection.")
    redis_command_timeout: Milliseconds = Field(1_000, description="Milliseconds to wait for the answer to a command.")

    # Storage
    storage_backend: Literal["local"] = Field("local", description="Where files are kept; this version: local.")
    local_storage_path: Path = Field(Path("./uploads"), description="Folder of the local storage.")
    max_file_size: int = Field(52_428_800, ge=1, le=5 * 2**40, description="Largest file, in bytes.")

    # Security
    session_secret: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET), description="Key under which session tokens are hashed; 32 characters or more."
    )

    @field_validator("db_ssl", mode="before")
    @classmethod
    def _read_yes_and_no(cls, value: Any) -> Any:
        return _YES_AND_NO.get(str(value).lower(), value)

    @field_validator("log_level", "environment", mode="before")
    @classmethod
    def _ignore_letter_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("storage_backend", mode="before")
    @classmethod
    def _say_what_is_not_there_yet(cls, value: Any) -> Any:
        if value in {"azure", "s3"}:
            raise ValueError(f"{value!r} is not available in this version; use 'local'")
        return value

    @field_validator("database_url", "db_direct_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _check_url(value, ("postgresql", "postgres"), "postgresql://user:password@host:5432/name")
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _check_url(value, ("redis", "rediss", "unix"), "redis://user:password@host:6379/0")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [*self._contradictions(), *self._missing_files()]
        if self.is_production:
            problems += self._unfit_for_production()
        if problems:
            raise ConfigurationError(*problems)
        return self

    def __init__(self, **values: Any) -> None:
        known = _known_variables(type(self))
        problems = _misspelt_variables(known)
        problems += [
            f"{name.upper()} is not a setting{_suggest(name.upper(), known)}"
            for name in values
            if not name.startswith("_") and name.upper() not in known
        ]
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems += [_describe(problem) for problem in error.errors(include_url=False)]
            problems += self._problems_beside(error, values)
        except ConfigurationError as error:
            problems += error.problems
        if problems:
            raise ConfigurationError(*problems)

    @classmethod
    def _problems_beside(cls, error: ValidationError, values: dict[str, Any]) -> list[str]:
        """What the checks across settings find once the malformed ones are replaced by their defaults."""
        broken = {str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"]}
        names = {"environment" if name == "node_env" else name for name in broken}
        try:
            super().__init__(cls.__new__(cls), **values | {name: cls.model_fields[name].default for name in names})
        except ConfigurationError as further:
            return list(further.problems)
        except ValidationError:
            return []
        return []

    @property
    def is_production(self) -> bool:
        """Whether this is a production environment."""
        return self.environment is Environment.PRODUCTION

    @property
    def uses_embedded_database(self) -> bool:
        """Whether PostgreSQL is to be started from its wheel, because no server is named."""
        return self.database_url is None and self.db_host is None

    @property
    def uses_embedded_cache(self) -> bool:
        """Whether Valkey is to be started from its wheel, because no server is named."""
        return self.redis_url is None and self.redis_host is None

    def masked(self) -> dict[str, Any]:
        """All settings as JSON values, with every secret replaced by stars."""
        return self.model_dump(mode="json")

    def _contradictions(self) -> list[str]:
        problems = []
        if self.database_url is not None and self.db_host is not None:
            problems.append("DATABASE_URL and DB_HOST are both set; keep one of them")
        if self.redis_url is not None and self.redis_host is not None:
            problems.append("REDIS_URL and REDIS_HOST are both set; keep one of them")
        if self.db_min_connections > self.db_max_connections:
            problems.append(
                f"DB_MIN_CONNECTIONS ({self.db_min_connections}) is larger than "
                f"DB_MAX_CONNECTIONS ({self.db_max_connections})"
            )
        if (self.db_ssl_cert is None) != (self.db_ssl_key is None):
            problems.append("DB_SSL_CERT and DB_SSL_KEY belong together; set both or neither")
        if self.redis_tls_ca is not None and not self.redis_tls:
            problems.append("REDIS_TLS_CA is set, but REDIS_TLS is not")
        problems += [
            f"{name} is set, but not available in this version" for name in _NOT_IN_THIS_VERSION if os.environ.get(name)
        ]
        return problems

    def _missing_files(self) -> list[str]:
        names = ("db_ssl_ca", "db_ssl_cert", "db_ssl_key", "redis_tls_ca")
        files = {name: getattr(self, name) for name in names}
        return [
            f"{name.upper()}: there is no readable file {str(path)!r}"
            for name, path in files.items()
            if path is not None and not os.access(path, os.R_OK)
        ]

    def _unfit_for_production(self) -> list[str]:
        problems = []
        if self.uses_embedded_database:
            problems.append("DB_HOST or DATABASE_URL must be set: production does not run the embedded PostgreSQL")
        elif not _is_local(self._database_host) and self._ssl_is_unchosen:
            problems.append("DB_SSL must be chosen: verify-full, or disable to accept unencrypted connections")
        if self.uses_embedded_cache:
            problems.append("REDIS_HOST or REDIS_URL must be set: production does not run the embedded Valkey")
        if (
            self.db_host is not None
            and not _is_local(self.db_host)
            and self.db_password is None
            and self.db_ssl_cert is None
        ):
            problems.append("DB_PASSWORD is missing")
        for name in ("db_password", "redis_password"):
            secret: SecretStr | None = getattr(self, name)
            if secret is not None and secret.get_secret_value().lower() in _WELL_KNOWN_PASSWORDS:
                problems.append(f"{name.upper()} is a well-known password; choose a random one")
        problems += self._weak_secrets()
        return problems

    def _weak_secrets(self) -> list[str]:
        secret = self.session_secret.get_secret_value()
        if secret == DEVELOPMENT_SECRET:
            return ["SESSION_SECRET is missing; make one with: openssl rand -hex 32"]
        if len(secret) < _MINIMUM_SECRET_LENGTH:
            return [
                f"SESSION_SECRET has under {_MINIMUM_SECRET_LENGTH} characters; make one with: openssl rand -hex 32"
            ]
        return []

    @property
    def _database_host(self) -> str | None:
        if self.database_url is not None:
            return urlsplit(self.database_url.get_secret_value()).hostname
        return self.db_host

    @property
    def _ssl_is_unchosen(self) -> bool:
        in_url = self.database_url is not None and "sslmode=" in self.database_url.get_secret_value()
        return self.db_ssl is None and not in_url


def _is_local(host: str | None) -> bool:
    return not host or host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}


def _check_url(value: SecretStr, schemes: tuple[str, ...], example: str) -> None:
    try:
        parts = urlsplit(value.get_secret_value())
        _ = parts.port
    except ValueError:
        raise ValueError(f"is no address; write it as {example}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}; for example {example}")


def _describe(problem: Any) -> str:
    """One line for one pydantic problem, never with the value: it may be a secret."""
    name = "_".join(str(part) for part in problem["loc"]).upper() or "settings"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"


def _known_variables(settings: type[Settings]) -> list[str]:
    return [name.upper() for name in settings.model_fields] + ["NODE_ENV"]


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _misspelt_variables(known: list[str]) -> list[str]:
    """Variables that nothing reads but that are one slip away from a setting, such as DB_HOTS."""
    present = [*os.environ, *dotenv_values(".env")]
    strangers = [name for name in present if "_" in name and name.upper() not in known]
    return [
        f"{name} is not a setting; did you mean {near[0]}?"
        for name in strangers
        if (near := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85))
    ]
