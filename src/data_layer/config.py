"""Settings: typed and frozen, from the environment and ``.env``; every problem is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from data_layer.environment import is_local, meant_setting, misspelt, present_variables, read_file, unread
from data_layer.errors import ConfigurationError
from data_layer.settings.database import DatabaseSettings, SslMode
from data_layer.settings.mail import MailSettings
from data_layer.settings.observability import AuditSettings, LogSettings, MetricsSettings, TracingSettings
from data_layer.settings.openid import OpenIdSettings
from data_layer.settings.part import DEVELOPMENT_SECRET, SettingsPart, disagreement
from data_layer.settings.redis import RedisSettings
from data_layer.settings.security import SecuritySettings
from data_layer.settings.service import Environment, GeneralSettings, HostedSettings, ServiceSettings
from data_layer.settings.storage import FileSettings, StorageSettings
from data_layer.settings.strength import HOW_TO_MAKE_ONE, secret_weakness, shared_secrets

__all__ = ["DEVELOPMENT_SECRET", "Environment", "ExaminedSettings", "Settings", "SslMode", "examine_settings"]

_DELAY_IN_PRODUCTION = 5.0


class Settings(BaseModel):
    """Everything that can be configured, in parts, such as ``settings.database.db_host``.

    An argument is named as its environment variable, in lower case: ``Settings(db_host="localhost")``. Values come from
    the arguments, then the environment, then ``.env`` in the working directory; an empty variable counts as not set.
    White space and what cannot be seen is removed from the ends of every value, and refused inside; a password that
    does end with a blank can be written into DATABASE_URL as %20. ``~`` is the home folder.

    Raises:
        ConfigurationError: with every problem that was found, not only the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    general: GeneralSettings
    log: LogSettings
    database: DatabaseSettings
    redis: RedisSettings
    storage: StorageSettings
    files: FileSettings
    security: SecuritySettings
    openid: OpenIdSettings
    hosted: HostedSettings
    mail: MailSettings
    audit: AuditSettings
    service: ServiceSettings
    tracing: TracingSettings
    metrics: MetricsSettings

    def __init__(self, *, _env_file: Path | None = Path(".env"), _parts: Any = None, **values: Any) -> None:
        if _parts is None:
            examined = _examine(_env_file, values)
            if examined.problems:
                raise ConfigurationError(*examined.problems)
            _parts = examined.settings.parts
        super().__init__(**_parts)

    @property
    def parts(self) -> dict[str, SettingsPart]:
        """The parts by their names."""
        return dict(self)

    @classmethod
    @cache
    def kinds(cls) -> dict[str, type[SettingsPart]]:
        """Return the classes of the parts by their names."""
        return {name: cast("type[SettingsPart]", field.annotation) for name, field in cls.model_fields.items()}

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Return every setting by its name."""
        return {name: field for kind in cls.kinds().values() for name, field in kind.model_fields.items()}

    @property
    def given(self) -> frozenset[str]:
        """The names of the settings that were set; the others have their defaults."""
        return frozenset().union(*(part.model_fields_set for part in self.parts.values()))

    def flat(self) -> dict[str, Any]:
        """Return the value of every setting by its name."""
        return {name: value for part in self.parts.values() for name, value in part}

    def masked(self) -> dict[str, Any]:
        """Return all settings as JSON values, with every secret replaced by stars."""
        return {name: value for part in self.model_dump(mode="json").values() for name, value in part.items()}

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

    def of_worker(self, number: int, workers: int) -> Settings:
        """Return the settings of one of several processes, counted from 0, which share the pool of connections."""
        return Settings(_parts=self.parts | {"database": self.database.share(number, workers)})

    @property
    def is_production(self) -> bool:
        """Whether this is a production environment."""
        return self.general.is_production

    @property
    def base_url(self) -> str:
        """Where clients reach the service: PUBLIC_URL, or else the address that it listens on."""
        if self.storage.public_url is not None:
            return self.storage.public_url
        host = "127.0.0.1" if self.service.host in {"0.0.0.0", "::"} else self.service.host  # noqa: S104  (compared)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.service.port}"

    @property
    def spill_folder(self) -> Path:
        """Where audit entries wait while the database cannot take them: AUDIT_SPILL_FOLDER, or its default."""
        return (self.audit.audit_spill_folder or self.general.data_folder / "audit-spill").absolute()

    @property
    def seconds_until_closed(self) -> float:
        """For how long a service that is asked to stop still takes requests: SHUTDOWN_DELAY, or its default."""
        if self.service.shutdown_delay is not None:
            return self.service.shutdown_delay
        return _DELAY_IN_PRODUCTION if self.is_production else 0.0

    def contradictions(self) -> list[str]:
        """Return what makes parts that are valid by themselves unusable together, or unfit for production."""
        problems = [
            *self.service.worker_contradictions(self.database.db_max_connections),
            *self._shared_ports(),
            *self._shared_host(),
            *self._hosted_without_issuer(),
        ]
        return problems + self.unfit_for_production() if self.is_production else problems

    def unfit_for_production(self) -> list[str]:
        """Return what production refuses."""
        return [
            *self.database.unfit(),
            *self.redis.unfit(),
            *self.security.unfit(),
            *self.openid.unfit(),
            *self._unfit_redirects(),
            *self.storage.unfit(),
            *self.mail.unfit(),
            *self._unfit_links(),
            *self.unfit_secrets(),
        ]

    def _unfit_redirects(self) -> list[str]:
        """Return what keeps people from coming back after they have logged in elsewhere."""
        if not self.openid.login_kinds or (self.storage.public_url or "").startswith("https://"):
            return []
        return ["PUBLIC_URL must be set, and begin with https://: people come back to it after logging in elsewhere"]

    def unfit_secrets(self) -> list[str]:
        """Return what production refuses of the secrets."""
        secrets = self.security.signing_secrets()
        if self.storage.storage_backend == "local":
            secrets += self.storage.signing_secrets()
        secrets += self.hosted.signing_secrets()
        names = self.database.guessable_names() | self.redis.guessable_names()
        names |= {self.service.host, self.security.jwt_issuer}
        problems = []
        for name, secret in secrets:
            weakness = "is missing" if secret == DEVELOPMENT_SECRET else secret_weakness(secret, names)
            if weakness:
                problems.append(f"{name} {weakness}; {HOW_TO_MAKE_ONE}")
        return problems + self._shared_secrets()

    def _unfit_links(self) -> list[str]:
        """Return what is wrong with the links in mails, which bear tokens that open accounts."""
        if not self.mail.is_configured:
            return []
        pages = (self.mail.verify_email_url, self.mail.reset_password_url)
        own = None in pages
        if own and self.storage.public_url is None:
            return ["PUBLIC_URL is missing: links in mails would lead to nothing"]
        names = {
            "PUBLIC_URL": self.storage.public_url if own else None,
            "VERIFY_EMAIL_URL": self.mail.verify_email_url,
            "RESET_PASSWORD_URL": self.mail.reset_password_url,
        }
        return [
            f"{name} must begin with https://: links in mails lead there, with tokens that open accounts"
            for name, address in names.items()
            if address is not None and address.startswith("http:") and not is_local(urlsplit(address).hostname)
        ]

    def _shared_ports(self) -> list[str]:
        if self.metrics.enable_metrics and self.metrics.metrics_port == self.service.port:
            port = self.service.port
            return [f"PORT and METRICS_PORT are both {port}; give each its own, or set ENABLE_METRICS=false"]
        return []

    def _shared_host(self) -> list[str]:
        """What would let generated pages have the cookies of the service."""
        own, pages = self.storage.public_url, self.service.preview_origin
        if own is None or pages is None or urlsplit(own).hostname != urlsplit(pages).hostname:
            return []
        return ["PREVIEW_ORIGIN and PUBLIC_URL have the same host; generated pages need one of their own"]

    def _hosted_without_issuer(self) -> list[str]:
        """Return what keeps the hosted application's people from being known."""
        if not self.hosted.is_enabled or self.openid.oidc_accept_bearer:
            return []
        return [
            "OIDC_ACCEPT_BEARER must be true, with OIDC_ISSUER: SAAS_API_SECRET is set, and people come with tokens"
        ]

    def _shared_secrets(self) -> list[str]:
        secrets = [(name, secret) for name, secret in self.security.signing_secrets() if secret != DEVELOPMENT_SECRET]
        purposes = {name: [(name, secret)] for name, secret in secrets + self.storage.signing_secrets()}
        purposes |= {"database": self.database.passwords(), "cache": self.redis.passwords()}
        purposes |= {name: [(name, secret)] for name, secret in self.hosted.signing_secrets()}
        if self.mail.smtp_password is not None:
            purposes["mail"] = [("SMTP_PASSWORD", self.mail.smtp_password.get_secret_value())]
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
    parts: dict[str, SettingsPart] = {}
    problems: list[str] = []
    malformed = frozenset[str]()
    for name, kind in Settings.kinds().items():
        of_part = {setting: value for setting, value in values.items() if setting in kind.model_fields}
        parts[name], of_part_problems, of_part_malformed = kind.examine(of_part)
        problems += of_part_problems
        malformed |= of_part_malformed
    settings = Settings(_parts=parts)
    return ExaminedSettings(settings, (*problems, *settings.contradictions()), malformed)


@cache
def _known_variables() -> tuple[str, ...]:
    return (*(name.upper() for name in Settings.fields()), "NODE_ENV")


def _by_setting(values: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The values of settings, by their names; NODE_ENV is another name of ENVIRONMENT."""
    settings = {name.lower(): value for name, value in values.items() if name.upper() in known}
    other_name = settings.pop("node_env", None)
    return settings if other_name is None else {"environment": other_name} | settings


def _unknown(name: str, known: tuple[str, ...]) -> str:
    meant = meant_setting(name.upper(), known)
    return f"{name.upper()} is not a setting{f'; did you mean {meant}?' if meant else ''}"
