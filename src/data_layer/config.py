"""Settings: typed and frozen, from the environment and ``.env``; every problem is reported at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from data_layer.environment import (
    check_visible,
    meant_setting,
    misspelt,
    present_variables,
    read_file,
    strip,
    unread,
)
from data_layer.errors import ConfigurationError
from data_layer.settings.database import DatabaseSettings, SslMode
from data_layer.settings.files import FileSettings
from data_layer.settings.observability import AuditSettings, LogSettings, MetricsSettings, TracingSettings
from data_layer.settings.redis import RedisSettings
from data_layer.settings.security import SecuritySettings
from data_layer.settings.service import ServiceSettings
from data_layer.settings.strength import HOW_TO_MAKE_ONE, secret_weakness, shared_secrets
from data_layer.settings.values import (
    COMMA_SEPARATED,
    DEVELOPMENT_SECRET,
    OwnHost,
    Port,
    describe_problem,
    disagreement,
)

__all__ = ["DEVELOPMENT_SECRET", "Environment", "ExaminedSettings", "Settings", "SslMode", "examine_settings"]


class Environment(StrEnum):
    """Where the process runs; production refuses what is convenient elsewhere."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    STAGING = "staging"
    PRODUCTION = "production"


# Stand in for malformed addresses, so that these are not also called missing.
_HARMLESS = {
    "database_url": "postgresql://localhost/name",
    "redis_url": "redis://localhost",
    "redis_cluster_nodes": "localhost:6379",
    "redis_sentinel_nodes": "localhost:26379",
}
_DELAY_IN_PRODUCTION = 5.0


class Settings(
    LogSettings,
    DatabaseSettings,
    RedisSettings,
    FileSettings,
    SecuritySettings,
    AuditSettings,
    ServiceSettings,
    TracingSettings,
    MetricsSettings,
):
    """Everything that can be configured, each by the environment variable of the same name in capitals.

    Values come from the arguments, then the environment, then ``.env`` in the working directory; an empty
    variable counts as not set. White space and what cannot be seen is removed from the ends of every value, and refused
    inside; a password that does end with a blank can be written into DATABASE_URL as %20. ``~`` is the home folder.

    Raises:
        ConfigurationError: with every problem that was found, not only the first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    # General
    environment: Environment = Field(
        Environment.DEVELOPMENT,
        description="Where this runs: development, testing, staging or production. NODE_ENV is read too.",
    )
    host: OwnHost = Field("127.0.0.1", description="Address that the service listens on.")
    port: Port = Field(3000, description="Port that the service listens on.")
    data_folder: Path = Field(
        Path(".data-layer"), description="Folder of the embedded servers, used while no server of one's own is set."
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

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        """Shells expand ~, but neither files of settings nor manifests do."""
        if not isinstance(value, Path):
            return value
        try:
            return value.expanduser()
        except RuntimeError:
            raise ValueError("begins with ~, but there is no such home folder; write the whole path") from None

    @field_validator("log_level", mode="before")
    @classmethod
    def _understand_warning(cls, value: Any) -> Any:
        return "warn" if isinstance(value, str) and value.lower() == "warning" else value

    @field_validator("port", "metrics_port", "db_port", "redis_port", mode="before")
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

    @field_validator("*", mode="before")
    @classmethod
    def _remove_invisible(cls, value: Any, info: ValidationInfo) -> Any:
        """Runs before all others, as the last one that is declared."""
        if isinstance(value, SecretStr):
            return SecretStr(cls._remove_invisible(value.get_secret_value(), info))
        if isinstance(value, Path):
            return Path(cls._remove_invisible(str(value), info))
        if not isinstance(value, str) or isinstance(value, StrEnum):
            return value
        text = strip(value)
        is_list = COMMA_SEPARATED in cls.model_fields[str(info.field_name)].metadata
        check_visible(COMMA_SEPARATED.func(text) if is_list else text)  # type: ignore[call-arg]
        return text

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [
            *self.database_contradictions(),
            *self.security_contradictions(),
            *self.redis_contradictions(),
            *self.file_contradictions(),
            *self.worker_contradictions(self.db_max_connections),
            *self._shared_ports(),
            *self._missing_files(),
        ]
        if self.is_production:
            problems += self.unfit_for_production()
        if problems:
            raise ConfigurationError(*problems)
        return self

    def __init__(self, *, _env_file: Path | None = Path(".env"), **values: Any) -> None:
        known = _known_variables()
        problems: list[str] = []
        try:
            file = read_file(_env_file)
        except ConfigurationError as error:
            problems += error.problems
            file = {}
        present = present_variables(file)
        problems += misspelt(present, known)
        problems += disagreement(present)
        problems += [_unknown(name, known) for name in values if name.upper() not in known]
        values = _by_setting(present, known) | _by_setting(values, known)
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems += [describe_problem(problem) for problem in error.errors(include_url=False)]
            problems += self._problems_beside(error, values)
        except ConfigurationError as error:
            problems += error.problems
        if problems:
            raise ConfigurationError(*problems)

    @classmethod
    def _problems_beside(cls, error: ValidationError, values: dict[str, Any]) -> list[str]:
        """What the checks across settings find once the malformed ones are replaced by harmless ones."""
        try:
            super().__init__(cls.__new__(cls), **values | _harmless(_malformed(error)))
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
    def seconds_until_closed(self) -> float:
        """For how long a service that is told to stop still takes requests: SHUTDOWN_DELAY, or its default."""
        if self.shutdown_delay is not None:
            return self.shutdown_delay
        return _DELAY_IN_PRODUCTION if self.is_production else 0.0

    def masked(self) -> dict[str, Any]:
        """All settings as JSON values, with every secret replaced by stars."""
        return self.model_dump(mode="json")

    def unfit_for_production(self) -> list[str]:
        """What production refuses."""
        return [
            *self.unfit_database(),
            *self.unfit_cache(),
            *self.unfit_against_guessing(),
            *self.unfit_files(),
            *self.unfit_secrets(),
        ]

    def _shared_ports(self) -> list[str]:
        if self.enable_metrics and self.metrics_port == self.port:
            return [f"PORT and METRICS_PORT are both {self.port}; give each its own, or set ENABLE_METRICS=false"]
        return []

    def _missing_files(self) -> list[str]:
        names = ("db_ssl_ca", "db_ssl_cert", "db_ssl_key", "redis_tls_ca")
        files = {name: getattr(self, name) for name in names}
        return [
            f"{name.upper()}: there is no readable file {str(path)!r}"
            for name, path in files.items()
            if path is not None and (path.is_dir() or not os.access(path, os.R_OK))
        ]

    def unfit_secrets(self) -> list[str]:
        """What production refuses of the secrets."""
        secrets = self.signing_secrets()
        if self.storage_backend == "local":
            secrets += self.signing_secrets_of_storage()
        names = self.names_around_database() | self.names_around_cache() | {self.host, self.jwt_issuer}
        problems = []
        for name, secret in secrets:
            weakness = "is missing" if secret == DEVELOPMENT_SECRET else secret_weakness(secret, names)
            if weakness:
                problems.append(f"{name} {weakness}; {HOW_TO_MAKE_ONE}")
        return problems + self._shared_secrets()

    def _shared_secrets(self) -> list[str]:
        secrets = [(name, secret) for name, secret in self.signing_secrets() if secret != DEVELOPMENT_SECRET]
        purposes = {name: [(name, secret)] for name, secret in secrets + self.signing_secrets_of_storage()}
        purposes |= {"database": self.database_passwords(), "cache": self.cache_passwords()}
        if self.aws_secret_access_key is not None:
            purposes["storage"] = [("AWS_SECRET_ACCESS_KEY", self.aws_secret_access_key.get_secret_value())]
        return shared_secrets(purposes)


@dataclass(frozen=True, slots=True)
class ExaminedSettings:
    """Settings as far as they can be understood, for an operator who wants to know what is wrong.

    Attributes:
        settings: In place of what is malformed they hold harmless values.
        problems: What keeps the data layer from opening, as `ConfigurationError` has it.
        malformed: The names of the settings whose value means nothing.
        unknown: Variables that bear a prefix of ours and that nothing reads.
    """

    settings: Settings
    problems: tuple[str, ...] = ()
    malformed: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()


def examine_settings(env_file: Path | None = Path(".env")) -> ExaminedSettings:
    """The settings of the environment, even those that `Settings` refuses."""
    known = _known_variables()
    try:
        file = read_file(env_file)
    except ConfigurationError:  # Among the problems that Settings tells.
        file = {}
    present = present_variables(file)
    unknown = tuple(
        sorted(set(unread(present, known)) - {problem.partition(" ")[0] for problem in misspelt(present, known)})
    )
    try:
        return ExaminedSettings(Settings(_env_file=env_file), unknown=unknown)
    except ConfigurationError as error:
        problems = error.problems
    values = _by_setting(present, known)
    try:
        return ExaminedSettings(_UncheckedSettings(**values), problems, unknown=unknown)
    except ValidationError as error:
        malformed = _malformed(error)
    settings = _UncheckedSettings(**values | _harmless(malformed))
    return ExaminedSettings(settings, problems, malformed, unknown)


class _UncheckedSettings(Settings):
    """Settings whose values fit together or not."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        return self

    def __init__(self, **values: Any) -> None:
        super(Settings, self).__init__(**values)


@cache
def _known_variables() -> tuple[str, ...]:
    return (*(name.upper() for name in Settings.model_fields), "NODE_ENV")


def _by_setting(values: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The values of settings, by their names; NODE_ENV is another name of ENVIRONMENT."""
    settings = {name.lower(): value for name, value in values.items() if name.upper() in known}
    other_name = settings.pop("node_env", None)
    return settings if other_name is None else {"environment": other_name} | settings


def _malformed(error: ValidationError) -> frozenset[str]:
    """The names of the settings whose values mean nothing."""
    return frozenset(str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"])


def _harmless(names: frozenset[str]) -> dict[str, Any]:
    return {name: _HARMLESS.get(name, Settings.model_fields[name].default) for name in names}


def _unknown(name: str, known: tuple[str, ...]) -> str:
    meant = meant_setting(name.upper(), known)
    return f"{name.upper()} is not a setting{f'; did you mean {meant}?' if meant else ''}"
