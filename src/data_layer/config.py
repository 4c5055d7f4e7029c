"""Settings: typed and frozen, from the environment and ``.env``; every problem is reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

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
from data_layer.settings.part import SettingsPart, describe_problems, malformed_names
from data_layer.settings.redis import RedisSettings
from data_layer.settings.security import SecuritySettings
from data_layer.settings.service import ServiceSettings
from data_layer.settings.storage import StorageSettings
from data_layer.settings.strength import HOW_TO_MAKE_ONE, secret_weakness, shared_secrets
from data_layer.settings.values import (
    COMMA_SEPARATED,
    DEVELOPMENT_SECRET,
    OwnHost,
    Port,
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

    storage: StorageSettings
    files: FileSettings

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

    def __init__(self, *, _env_file: Path | None = Path(".env"), _understood: Any = None, **values: Any) -> None:
        if _understood is None:
            examined = _examine(_env_file, values)
            if examined.problems:
                raise ConfigurationError(*examined.problems)
            _understood = {name: getattr(examined.settings, name) for name in examined.settings.model_fields_set}
        super().__init__(**_understood)

    @classmethod
    @cache
    def parts(cls) -> dict[str, type[SettingsPart]]:
        """Return the parts by their names."""
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, SettingsPart)}

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Return every setting, those of the parts too, by its name."""
        fields = {name: field for name, field in cls.model_fields.items() if name not in Settings.parts()}
        for part in Settings.parts().values():
            fields |= part.model_fields
        return fields

    @property
    def given(self) -> frozenset[str]:
        """The names of the settings that were set; the others have their defaults."""
        own = self.model_fields_set - Settings.parts().keys()
        return frozenset(own).union(*(getattr(self, name).model_fields_set for name in Settings.parts()))

    def flat(self) -> dict[str, Any]:
        """Return the value of every setting, those of the parts too, by its name."""
        values = {name: value for name, value in self if name not in Settings.parts()}
        for name in Settings.parts():
            values |= dict(getattr(self, name))
        return values

    def replaced(self, **changes: Any) -> Settings:
        """Return these settings with some changed, validated like any others; the environment is not read again.

        Raises:
            ConfigurationError: with every problem that was found, not only the first.
        """
        values = self.flat()
        given = {name: values[name] for name in self.given}
        unknown = [_unknown(name, _known_variables()) for name in changes if name not in values]
        examined = _understand(given | changes)
        if problems := [*unknown, *examined.problems]:
            raise ConfigurationError(*problems)
        return examined.settings

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Settings:  # noqa: ARG002
        """Return `replaced`: pydantic's own copy would neither validate the changes nor find those of a part."""
        return self.replaced(**update or {})

    def contradictions(self) -> list[str]:
        """Return what makes parts that are valid by themselves unusable together, or unfit for production."""
        problems = [
            *self.database_contradictions(),
            *self.security_contradictions(),
            *self.redis_contradictions(),
            *self.worker_contradictions(self.db_max_connections),
            *self._shared_ports(),
            *self._missing_files(),
        ]
        return problems + self.unfit_for_production() if self.is_production else problems

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
        values = self.model_dump(mode="json")
        for name in Settings.parts():
            values |= values.pop(name)
        return values

    def unfit_for_production(self) -> list[str]:
        """What production refuses."""
        return [
            *self.unfit_database(),
            *self.unfit_cache(),
            *self.unfit_against_guessing(),
            *self.storage.unfit(),
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
        if self.storage.storage_backend == "local":
            secrets += self.storage.signing_secrets()
        names = self.names_around_database() | self.names_around_cache() | {self.host, self.jwt_issuer}
        problems = []
        for name, secret in secrets:
            weakness = "is missing" if secret == DEVELOPMENT_SECRET else secret_weakness(secret, names)
            if weakness:
                problems.append(f"{name} {weakness}; {HOW_TO_MAKE_ONE}")
        return problems + self._shared_secrets()

    def _shared_secrets(self) -> list[str]:
        secrets = [(name, secret) for name, secret in self.signing_secrets() if secret != DEVELOPMENT_SECRET]
        purposes = {name: [(name, secret)] for name, secret in secrets + self.storage.signing_secrets()}
        purposes |= {"database": self.database_passwords(), "cache": self.cache_passwords()}
        if self.storage.aws_secret_access_key is not None:
            purposes["storage"] = [("AWS_SECRET_ACCESS_KEY", self.storage.aws_secret_access_key.get_secret_value())]
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
    return _examine(env_file, {})


def _examine(env_file: Path | None, values: dict[str, Any]) -> ExaminedSettings:
    """Read the values, the environment and the file, in this order of precedence."""
    known = _known_variables()
    problems: list[str] = []
    try:
        file = read_file(env_file)
    except ConfigurationError as error:
        problems += error.problems
        file = {}
    present = present_variables(file)
    misspelt_names = misspelt(present, known)
    problems += misspelt_names
    problems += disagreement(present)
    problems += [_unknown(name, known) for name in values if name.upper() not in known]
    examined = _understand(_by_setting(present, known) | _by_setting(values, known))
    unknown = set(unread(present, known)) - {problem.partition(" ")[0] for problem in misspelt_names}
    return replace(examined, problems=(*problems, *examined.problems), unknown=tuple(sorted(unknown)))


def _understand(values: dict[str, Any]) -> ExaminedSettings:
    """Distribute the values to the parts, and check each part and all of them together."""
    problems: list[str] = []
    malformed = frozenset[str]()
    given: dict[str, Any] = {name: value for name, value in values.items() if name in Settings.model_fields}
    for name, part in Settings.parts().items():
        of_part = {setting: value for setting, value in values.items() if setting in part.model_fields}
        given[name], of_part_problems, of_part_malformed = part.examine(of_part)
        problems += of_part_problems
        malformed |= of_part_malformed
    try:
        settings = Settings(_understood=given)
    except ValidationError as error:
        problems += describe_problems(error)
        malformed |= malformed_names(error)
        settings = Settings(_understood=given | _harmless(malformed_names(error)))
    problems += settings.contradictions()
    return ExaminedSettings(settings, tuple(problems), malformed)


@cache
def _known_variables() -> tuple[str, ...]:
    return (*(name.upper() for name in Settings.fields()), "NODE_ENV")


def _by_setting(values: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The values of settings, by their names; NODE_ENV is another name of ENVIRONMENT."""
    settings = {name.lower(): value for name, value in values.items() if name.upper() in known}
    other_name = settings.pop("node_env", None)
    return settings if other_name is None else {"environment": other_name} | settings


def _harmless(names: frozenset[str]) -> dict[str, Any]:
    return {name: _HARMLESS.get(name, Settings.model_fields[name].default) for name in names}


def _unknown(name: str, known: tuple[str, ...]) -> str:
    meant = meant_setting(name.upper(), known)
    return f"{name.upper()} is not a setting{f'; did you mean {meant}?' if meant else ''}"
