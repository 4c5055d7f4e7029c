"""What the doctor looks at: the parts that settings name, each for itself, so that none has to work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from data_layer.config import ExaminedSettings, Settings
from data_layer.database.address import DatabaseAddress, database_address
from data_layer.layer.servers import embedded_servers
from data_layer.observability.masking import Masker, secrets_of
from data_layer.schemas.doctor import Finding, Text
from data_layer.services.doctor import cache, configuration, database, mail, openid, process, storage
from data_layer.services.doctor.cache import CacheTarget, cache_checks
from data_layer.services.doctor.checks import Check, CheckResult, Doctor, nothing_yet
from data_layer.services.doctor.configuration import settings_checks
from data_layer.services.doctor.database import DatabaseTarget, database_checks
from data_layer.services.doctor.mail import mail_checks
from data_layer.services.doctor.openid import openid_checks
from data_layer.services.doctor.process import UsedFolder, process_checks
from data_layer.services.doctor.storage import storage_checks
from data_layer.services.openid.calls import IssuerCalls
from data_layer.services.openid.providers import Provider, configured_providers, make_provider
from data_layer.settings.storage import StorageSettings

# Without them it is not known where a part is; one that is malformed was replaced by something harmless.
_PLACE_OF_DATABASE = {"database_url", "db_host", "db_port", "db_name", "db_username", "db_ssl", "data_folder"}
_PLACE_OF_CACHE = {"redis_url", "redis_host", "redis_port", "redis_database", "redis_cluster_nodes", "data_folder"} | {
    "redis_sentinel_nodes",
    "redis_sentinel_master",
    "redis_tls",
}
_SPACE_FOR_SERVERS = 2**30
_SERVICE_SECONDS = 5.0
"""How long each check may take while a service runs and somebody waits for the page."""


@asynccontextmanager
async def open_doctor(examined: ExaminedSettings, *, time_limit: float) -> AsyncIterator[Doctor]:
    """Yield a doctor for these settings. It changes nothing.

    Embedded servers that have data are started for as long as the block lasts; without data there is nothing to look
    at yet.

    Args:
        examined: the settings, however wrong they are.
        time_limit: seconds for each check.
    """
    settings = examined.settings
    async with AsyncExitStack() as stack:
        parts: dict[str, list[Check]] = {
            configuration.PART: settings_checks(examined),
            process.PART: process_checks(settings.database.db_max_connections, _used_folders(settings)),
            database.PART: _database_checks(examined, stack, time_limit),
            cache.PART: _cache_checks(examined, stack, time_limit),
            storage.PART: _storage_checks(examined, settings.storage, storage.PART, time_limit),
            mail.PART: _mail_checks(examined),
        }
        if (second := settings.storage.second) is not None:
            parts[storage.SECOND_PART] = _storage_checks(examined, second, storage.SECOND_PART, time_limit)
        if openid_part := _openid_checks(examined, stack):
            parts[openid.PART] = openid_part
        yield Doctor(parts, time_limit=time_limit, mask=Masker(secrets_of(settings.flat().values())).text)


async def examine(settings: Settings, on_finding: Callable[[Finding], None]) -> tuple[Finding, ...]:
    """Have the doctor look at what runs with these settings; each finding is passed on as soon as it is known."""
    found = []
    async with (
        open_doctor(ExaminedSettings(settings), time_limit=_SERVICE_SECONDS) as doctor,
        aclosing(doctor.findings()) as findings,
    ):
        async for finding in findings:
            on_finding(finding)
            found.append(finding)
    return tuple(found)


def _used_folders(settings: Settings) -> list[UsedFolder]:
    limit = settings.audit.audit_spill_limit
    folders = [UsedFolder(settings.spill_folder, Text("audit entries wait here while the database is away"), limit)]
    if settings.database.is_embedded or settings.redis.is_embedded:
        own = settings.general.data_folder.absolute()
        folders.append(UsedFolder(own, Text("the data of the embedded servers"), _SPACE_FOR_SERVERS))
    return folders


def _database_checks(examined: ExaminedSettings, stack: AsyncExitStack, time_limit: float) -> list[Check]:
    settings = examined.settings
    target = DatabaseTarget(settings.database, settings.service.workers, time_limit)

    async def locate() -> DatabaseAddress | CheckResult:
        if not settings.database.is_embedded:
            stack.push_async_callback(target.close)
            return database_address(settings.database)
        if not (settings.general.data_folder / "postgresql").is_dir():
            return _not_made("PostgreSQL", settings)
        addresses = await stack.enter_async_context(embedded_servers(settings, valkey=False))
        stack.push_async_callback(target.close)
        return database_address(settings.database, addresses.database_url)

    is_known = not (examined.malformed & _PLACE_OF_DATABASE) and not (
        (settings.database.database_url is not None and settings.database.db_host is not None)
        or (settings.is_production and settings.database.is_embedded)
    )
    return database_checks(target, locate if is_known else None)


def _cache_checks(examined: ExaminedSettings, stack: AsyncExitStack, time_limit: float) -> list[Check]:
    settings = examined.settings
    target = CacheTarget(settings.redis, time_limit)

    async def locate() -> str | CheckResult | None:
        if not settings.redis.is_embedded:
            stack.push_async_callback(target.close)
            return None
        if not (settings.general.data_folder / "valkey").is_dir():
            return _not_made("Valkey", settings)
        addresses = await stack.enter_async_context(embedded_servers(settings, postgresql=False))
        stack.push_async_callback(target.close)
        return addresses.redis_url

    is_known = not (examined.malformed & _PLACE_OF_CACHE) and not (
        settings.redis.address_contradictions() or (settings.is_production and settings.redis.is_embedded)
    )
    return cache_checks(target, locate if is_known else None)


def _storage_checks(examined: ExaminedSettings, settings: StorageSettings, part: str, time_limit: float) -> list[Check]:
    names = {"local": ("local_storage",), "s3": ("aws_",), "azure": ("azure_",)}[settings.storage_backend]
    malformed = any(name.startswith(("storage_backend", *names)) for name in examined.malformed)
    is_known = not (malformed or settings.backend_contradictions())
    return storage_checks(settings, examined.settings.general.environment, time_limit, part=part, is_known=is_known)


def _openid_checks(examined: ExaminedSettings, stack: AsyncExitStack) -> list[Check]:
    settings = examined.settings
    calls = IssuerCalls(settings.openid.oidc_timeout)
    stack.push_async_callback(calls.close)
    configurations = configured_providers(settings.openid, settings.base_url)
    providers: dict[str, Provider] = {one.kind: make_provider(one, settings.openid, calls) for one in configurations}

    async def ask(name: str) -> str:
        stack.push_async_callback(providers[name].close)
        return await providers[name].check()

    return openid_checks(configurations, ask)


def _mail_checks(examined: ExaminedSettings) -> list[Check]:
    settings = examined.settings
    malformed = any(name.startswith(("smtp_", "mail_")) for name in examined.malformed)
    return mail_checks(
        settings.mail,
        settings.base_url,
        is_production=settings.is_production,
        is_known=not malformed and not settings.mail.contradictions(),
    )


def _not_made(name: str, settings: Settings) -> CheckResult:
    return nothing_yet(
        "embedded %(name)s has no data in %(folder)s yet; the first start makes it",
        name=name,
        folder=str(settings.general.data_folder.absolute()),
    )
