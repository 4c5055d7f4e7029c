"""Settings: typed and frozen, from the environment and ``.env``; every problem is reported at once."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from data_layer.environment import Address, is_local, meant_setting, misspelt, present_variables, read_file
from data_layer.errors import ConfigurationError
from data_layer.setting_types import HostName, MediaTypes, Milliseconds, PixelSizes, PlainText, Port, Seconds
from data_layer.storage_settings import StorageSettings


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
_MINIMUM_SECRET_VARIETY = 8
# Stand in for malformed addresses, so that these are not called missing besides.
_HARMLESS = {"database_url": "postgresql://localhost/name", "redis_url": "redis://localhost"}
_NOT_IN_THIS_VERSION = ("REDIS_CLUSTER_NODES", "REDIS_SENTINEL_NODES", "REDIS_SENTINEL_MASTER")
_WELL_KNOWN_PASSWORDS = frozenset({"password", "postgres", "redis", "secret", "changeme", "admin", "root"})
_YES_AND_NO = {"true": "verify-full", "1": "verify-full", "yes": "verify-full", "on": "verify-full"} | dict.fromkeys(
    ("false", "0", "no", "off"), "disable"
)


class Settings(StorageSettings, BaseSettings):
    """Everything that can be configured, each by the environment variable of the same name in capitals.

    Values come from the arguments, then the environment, then ``.env`` in the working directory; an empty
    variable counts as not set.

    Raises:
        ConfigurationError: with every problem that was found, not only the first.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

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
    db_host: HostName | None = Field(
        None,
        description="Host name, or the folder of a Unix socket. Neither this nor DATABASE_URL: embedded PostgreSQL.",
    )
    db_port: Port = Field(5432, description="Port of PostgreSQL.")
    db_name: PlainText = Field("screenshot_to_code", min_length=1, max_length=63, description="Name of the database.")
    db_username: PlainText = Field("postgres", min_length=1, max_length=63, description="Name of the database user.")
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
    redis_host: HostName | None = Field(None, description="Host name. Neither this nor REDIS_URL: embedded Valkey.")
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

    # Files
    storage_second_backend: Literal["local", "azure", "s3"] | None = Field(
        None, description="Backend that files may still be in while `data-layer storage migrate` moves them."
    )
    max_file_size: int = Field(52_428_800, ge=1, le=5 * 2**40, description="Largest file, in bytes.")
    allowed_file_types: MediaTypes = Field(
        ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"),
        min_length=1,
        description="Types of files that users may store, recognised by content and separated by commas.",
    )
    upload_expires_in: Seconds = Field(
        900, description="Seconds that the signed URL of a direct upload works; an hour later the upload is abandoned."
    )
    image_max_pixels: int = Field(
        50_000_000, ge=1, le=89_000_000, description="Pixels of one image or frame that are decoded at most."
    )
    image_max_frames: int = Field(500, ge=1, le=10_000, description="Frames of one animation, at most.")
    image_time_limit: Seconds = Field(10, description="Seconds that decoding one image may take.")
    image_thumbnail_sizes: PixelSizes = Field(
        (200, 800), description="Longest sides of thumbnails in pixels, separated by commas; 'none' makes none."
    )
    image_remove_metadata: Literal["none", "location", "all"] = Field(
        "none", description="What is removed from images: none, location (where they were taken), or all of EXIF."
    )

    # Security
    session_secret: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET), description="Key under which session tokens are hashed; 32 characters or more."
    )

    @field_validator(
        "environment",
        "log_level",
        "log_format",
        "db_ssl",
        "storage_backend",
        "storage_second_backend",
        "image_remove_metadata",
        mode="before",
    )
    @classmethod
    def _ignore_letter_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("db_ssl", mode="before")
    @classmethod
    def _read_yes_and_no(cls, value: Any) -> Any:
        return _YES_AND_NO.get(str(value).lower(), value)

    @field_validator("log_level", mode="before")
    @classmethod
    def _understand_warning(cls, value: Any) -> Any:
        return "warn" if isinstance(value, str) and value.lower() == "warning" else value

    @field_validator("port", "db_port", "redis_port", mode="before")
    @classmethod
    def _explain_service_links(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and value.startswith("tcp://"):
            name = str(info.field_name).upper()
            service = name.removesuffix("_PORT").lower()
            raise ValueError(
                f"was set by Kubernetes for the service {service!r}; put enableServiceLinks: false into the pod, "
                f"or set {name} there"
            )
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
        problems = [*self._contradictions(), *self.storage_contradictions(), *self._missing_files()]
        if self.is_production:
            problems += self._unfit_for_production()
        if problems:
            raise ConfigurationError(*problems)
        return self

    def __init__(self, *, _env_file: Path | None = Path(".env"), **values: Any) -> None:
        known = [*(name.upper() for name in type(self).model_fields), "NODE_ENV"]
        problems: list[str] = []
        try:
            file = read_file(_env_file)
        except ConfigurationError as error:
            problems += error.problems
            file = {}
        present = present_variables(file)
        problems += misspelt(present, known)
        problems += [
            f"{name} is set, but not available in this version" for name in _NOT_IN_THIS_VERSION if name in present
        ]
        problems += _disagreement(present)
        problems += [_unknown(name, known) for name in values if name.upper() not in known]
        from_file = {name.lower(): file[name] for name in known if name in file and present[name] == file[name]}
        try:
            super().__init__(**from_file | values)
        except ValidationError as error:
            problems += [_describe(problem) for problem in error.errors(include_url=False)]
            problems += self._problems_beside(error, from_file | values)
        except ConfigurationError as error:
            problems += error.problems
        if problems:
            raise ConfigurationError(*problems)

    @classmethod
    def _problems_beside(cls, error: ValidationError, values: dict[str, Any]) -> list[str]:
        """What the checks across settings find once the malformed ones are replaced by harmless ones."""
        broken = {str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"]}
        names = {"environment" if name == "node_env" else name for name in broken}
        harmless = {name: _HARMLESS.get(name, cls.model_fields[name].default) for name in names}
        try:
            super().__init__(cls.__new__(cls), **values | harmless)
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
        if self.storage_second_backend is not None:
            second = self.model_copy(update={"storage_backend": self.storage_second_backend})
            wanted = ("STORAGE_BACKEND is", "STORAGE_SECOND_BACKEND is")
            problems += [problem.replace(*wanted) for problem in second.storage_contradictions()]
        if self.redis_tls_ca is not None and not self.redis_tls:
            problems.append("REDIS_TLS_CA is set, but REDIS_TLS is not")
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
        problems = self._unfit_database()
        if self.uses_embedded_cache:
            problems.append("REDIS_HOST or REDIS_URL must be set: production does not run the embedded Valkey")
        return [*problems, *self.unfit_storage(), *self._unfit_passwords(), *self._weak_secrets()]

    def _unfit_database(self) -> list[str]:
        if self.uses_embedded_database:
            return ["DB_HOST or DATABASE_URL must be set: production does not run the embedded PostgreSQL"]
        address = Address(self.database_url.get_secret_value()) if self.database_url else None
        if address.is_local if address else is_local(self.db_host):
            return []
        problems = []
        if self.db_ssl is None and not (address and address.names_ssl_mode):
            problems.append("DB_SSL must be chosen: verify-full, or disable to accept unencrypted connections")
        password = address.password if address else self.db_password
        if password is None and self.db_ssl_cert is None:
            problems.append("DATABASE_URL has no password" if address else "DB_PASSWORD is missing")
        return problems

    def _unfit_passwords(self) -> list[str]:
        passwords = {name: getattr(self, name) for name in ("db_password", "redis_password")}
        for name in ("database_url", "db_direct_url", "redis_url"):
            url: SecretStr | None = getattr(self, name)
            passwords[name] = SecretStr(Address(url.get_secret_value()).password or "") if url else None
        return [
            f"{name.upper()} {'has' if name.endswith('_url') else 'is'} a well-known password; choose a random one"
            for name, password in passwords.items()
            if password is not None and password.get_secret_value().lower() in _WELL_KNOWN_PASSWORDS
        ]

    def _weak_secrets(self) -> list[str]:
        secret = self.session_secret.get_secret_value()
        advice = "make one with: openssl rand -hex 32"
        if secret == DEVELOPMENT_SECRET:
            return [f"SESSION_SECRET is missing; {advice}"]
        if len(secret) < _MINIMUM_SECRET_LENGTH:
            return [f"SESSION_SECRET has under {_MINIMUM_SECRET_LENGTH} characters; {advice}"]
        if len(set(secret)) < _MINIMUM_SECRET_VARIETY:
            return [f"SESSION_SECRET repeats a few characters; {advice}"]
        return []


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
    name = "_".join(part for part in problem["loc"] if isinstance(part, str)).upper() or "settings"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"


def _unknown(name: str, known: list[str]) -> str:
    meant = meant_setting(name.upper(), known)
    return f"{name.upper()} is not a setting{f'; did you mean {meant}?' if meant else ''}"


def _disagreement(present: dict[str, str]) -> list[str]:
    here, there = present.get("ENVIRONMENT"), present.get("NODE_ENV")
    if here is None or there is None or here.lower() == there.lower():
        return []
    return [f"ENVIRONMENT is {here!r}, but NODE_ENV is {there!r}; keep one of them"]
