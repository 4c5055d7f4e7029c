"""The composition root: what an open data layer consists of, and how it is opened, wired and closed.

To add a part, give it a field of `Container`, make it in `open_container`, and push its end on the stack there. Each
part is made of parts that exist already: what happens after a commit is made before the first service begins one.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.context import current_context
from data_layer.database.address import database_address, direct_address, replica_addresses
from data_layer.database.engine import Database
from data_layer.database.listener import Listener
from data_layer.database.migrator import Migrator
from data_layer.database.replicas import Replicas, ServerCounters
from data_layer.embedded import EmbeddedAddresses
from data_layer.entities.enums import StorageKind
from data_layer.errors import CacheError, CacheLoginError
from data_layer.layer.doctor import examine
from data_layer.layer.servers import embedded_servers, log_progress, prepare, require_direct_address, run_in_thread
from data_layer.observability.levels import LevelFile
from data_layer.observability.log import get_log
from data_layer.observability.tracing import open_tracing
from data_layer.observability.tracing.current import current_traceparent
from data_layer.repositories.session_changes import SESSION_CHANNEL
from data_layer.repositories.unit_of_work import AfterCommit, CommitHooks, TransactionFactory, Transactions, UnitOfWork
from data_layer.services.accounts import AccountDependencies, AccountService, PasswordHasher
from data_layer.services.accounts.passkeys import PasskeySite
from data_layer.services.api_keys import ApiKeyService
from data_layer.services.audit.buffer import AuditBuffer, SpillFolder
from data_layer.services.audit.service import AuditService
from data_layer.services.cached_projects import CachedProjects
from data_layer.services.designs import DesignSystemService
from data_layer.services.exports import ExportService, ExportWorker
from data_layer.services.fetching import Fetcher
from data_layer.services.figure_history import FigureHistory
from data_layer.services.files import (
    FileMaintenance,
    FileRemoval,
    FileService,
    LocalFileServer,
    PublicFileServer,
    StorageBackends,
    ThumbnailMaker,
)
from data_layer.services.first_administrator import FirstAdministratorService
from data_layer.services.generations import GenerationService, GenerationStreams, LiveStreams
from data_layer.services.health import HealthService
from data_layer.services.idempotency import IdempotentRequests
from data_layer.services.image_files import ImageFiles
from data_layer.services.images import ImageService
from data_layer.services.mails import MailQueue, MailService, SmtpTransport
from data_layer.services.mails.delivery import (
    ACCOUNT_PATH,
    RESET_PASSWORD_PATH,
    VERIFY_EMAIL_PATH,
    LetterWriter,
    Links,
    MailDelivery,
)
from data_layer.services.mails.rendering import MailRenderer
from data_layer.services.maintenance import MaintenanceService
from data_layer.services.openid import OpenIdService
from data_layer.services.openid.providers import configured_providers
from data_layer.services.operations import OperationService
from data_layer.services.pages import PageService
from data_layer.services.previews import PreviewService
from data_layer.services.projects import ProjectService
from data_layer.services.seed import SeedService, SeedServices
from data_layer.services.sessions import SessionCopies, SessionService
from data_layer.services.sessions.change_stream import ANSWER_SECONDS
from data_layer.services.shares import ShareService
from data_layer.services.statistics import StatisticsService
from data_layer.services.tokens import TokenService
from data_layer.services.transfer.archives import ProjectArchives
from data_layer.services.transfer.personal import PersonalArchives, PersonalDataService, PersonalDataSources
from data_layer.services.usage import UsageService
from data_layer.services.view_counts import ViewCounts
from data_layer.settings.database import DatabaseSettings
from data_layer.settings.service import ANY_ORIGIN
from data_layer.settings.storage import StorageSettings
from data_layer.storage import StorageBackend
from data_layer.storage.counters import StorageCounters, counted
from data_layer.storage.selection import local_url_signer, make_storage
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import Inspector, limits_of

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from data_layer.observability.tracing.tracing import Tracing

Service = TypeVar("Service")

log = get_log(__name__)

_FETCH_SECONDS = 20.0
_FETCH_SECONDS_OF_HOSTED = 40.0  # The back end of the hosted application waits for an image for 45 seconds.
_FILE_THREADS = 16  # For reading and packing what is uploaded; the storage has threads of its own.


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What exists while the data layer is open, each part once."""

    tracing: Tracing | None
    """Makes spans; None while traces are off."""
    migrator: Migrator
    """Creates, migrates and checks the tables, over an address that avoids PgBouncer."""
    database: Database
    """The pool of connections to PostgreSQL."""
    replicas: Replicas
    """The servers of DB_REPLICA_HOSTS, watched for how far they are behind."""
    server_counters: ServerCounters
    """What the pools and the statements on primary and replicas have counted, for metrics."""
    cache: Cache
    """Values with a time to live, in Redis or Valkey and in this process."""
    storage: StorageBackend
    """Files under keys, in the storage that takes new ones."""
    backends: StorageBackends
    """This storage, and the second one while files move."""
    storage_counters: tuple[StorageCounters, ...]
    """What each storage has done, the one that takes new files first."""
    transactions: TransactionFactory
    """Begins the transactions of everybody."""
    passwords: PasswordHasher
    """Hashes passwords in threads, a few at once."""
    audit_buffer: AuditBuffer
    """Audit entries that belong to no transaction, until they are written."""
    generation_streams: GenerationStreams
    """What is being streamed into variants, until the next checkpoint."""
    view_counts: ViewCounts
    """Views of codes and images, until they are written in batches."""
    files: FileService
    """Files of people: validated, recorded, and removed when nothing refers to them any more."""
    local_files: LocalFileServer | None
    """Serves signed URLs of local files; None where no files are local."""
    public_files: PublicFileServer
    """Serves files with a permanent address, wherever they are stored."""
    file_maintenance: FileMaintenance
    """What administrators do with stored files."""
    sessions: SessionService
    """Who is logged in."""
    tokens: TokenService
    """Access and refresh tokens."""
    api_keys: ApiKeyService
    """API keys of people."""
    audit: AuditService
    """The audit trail."""
    accounts: AccountService
    """Accounts of people."""
    openid: OpenIdService
    """People who prove by an issuer who they are."""
    projects: ProjectService
    """Projects and the versions of their code."""
    images: ImageService
    """Images of projects."""
    generations: GenerationService
    """Requests to generate code, and their variants."""
    designs: DesignSystemService
    """Design systems of people."""
    mails: MailService
    """Mails to people with accounts."""
    usage: UsageService
    """What was used of paid models, and budgets."""
    shares: ShareService
    """Links by which anybody may read one page."""
    pages: PageService
    previews: PreviewService
    """Pages of variants at addresses that need no cookie."""
    personal_data: PersonalDataService
    """Everything about one person, for that person."""
    exports: ExportService
    """The same as jobs, whose archives can be had for a while."""
    idempotency: IdempotentRequests
    """Requests that are carried out once, however often they are sent."""
    maintenance: MaintenanceService
    """Removes what has expired, and makes and drops partitions of the audit trail."""
    seed: SeedService
    """The example data."""
    health: HealthService
    """Whether database, cache and storage work."""
    statistics: StatisticsService
    """Figures of database, cache and storage."""
    figure_history: FigureHistory
    """The same figures of the last half hour."""
    first_administrator: FirstAdministratorService
    """Makes the first administrator."""
    operations: OperationService
    """The health of everything, and what is logged, for administrators."""


async def open_container(  # noqa: PLR0915  (one list of everything, in the order in which it is made)
    settings: Settings,
    stack: AsyncExitStack,
    *,
    exclusive: bool,
    prepares: bool,
    tracer_provider: TracerProvider | None,
) -> Container:
    """Open everything, one after the other; the stack closes it in the opposite order.

    Args:
        settings: what, where and how
        stack: what is opened is entered there
        exclusive: be the one service of the folder of the embedded servers
        prepares: create and migrate a database that is not embedded as well
        tracer_provider: of the application, for the spans
    """
    tracing = _open_tracing(settings, stack, tracer_provider)
    addresses = await stack.enter_async_context(embedded_servers(settings, exclusive=exclusive))
    secret = settings.security.session_secret
    storage, counters = await _open_storage(settings.storage, secret, stack, tracing)
    observer = None if tracing is None else tracing.of_cache()
    cache = await stack.enter_async_context(Cache(settings.redis, addresses.redis_url, observer=observer))
    await _look_for(cache)
    migrator = await _make_migrator(settings.database, addresses, prepares=prepares)
    database = await _open_database(settings.database, addresses, stack, tracing)
    replicas = make_replicas(settings.database, database)
    stack.push_async_callback(replicas.close)
    await replicas.open()
    (await database.schema()).require_current()
    backends, all_counters = await _open_backends(settings.storage, secret, stack, storage, counters)

    # What happens after a commit needs no hooks itself.
    removal = FileRemoval(partial(UnitOfWork, database), backends)
    copies = SessionCopies(cache, settings.security)
    hooks = CommitHooks(
        changed_keys=cache.transaction_keys,
        ended_sessions=partial(AfterCommit, copies.forget),
        discarded_files=partial(AfterCommit, removal.remove_discarded),
    )
    transactions = TransactionFactory(database, replicas, hooks)

    def traced(name: str, service: Service) -> Service:
        return service if tracing is None else tracing.calls.of(name, service)

    fetcher = _make_fetcher(settings)
    stack.callback(fetcher.close)
    files, file_maintenance = _open_files(settings, transactions, backends, removal, fetcher=fetcher, stack=stack)
    files = traced("files", files)
    file_maintenance = traced("file_maintenance", file_maintenance)
    log.info("data_layer_opened", database=str(database.address), cache=cache.address)
    passwords = stack.enter_context(PasswordHasher(settings.security.bcrypt_rounds))
    audit_buffer = _start_audit_buffer(settings, database, stack)
    listen = _session_listener(settings.database, database, addresses)
    sessions = traced("sessions", SessionService(transactions, copies, listen, settings.security))
    api_keys = traced("api_keys", ApiKeyService(transactions, sessions, copies))
    for each in (sessions.close, api_keys.close):
        stack.push_async_callback(each)
    generation_streams = GenerationStreams(transactions, LiveStreams(cache))
    view_counts = ViewCounts(transactions)
    image_files = ImageFiles(files, fetcher)
    cached_projects = CachedProjects(transactions, cache)
    projects = ProjectService(transactions, image_files, cached_projects, view_counts)
    for each in (generation_streams.close, view_counts.close, projects.close):
        stack.push_async_callback(each)
    view_counts.start()
    tokens = traced("tokens", TokenService(transactions, sessions, settings.security))
    audit = traced("audit", AuditService(transactions, audit_buffer))
    mail_queue = MailQueue(settings.mail.domain)
    accounts = AccountService(
        AccountDependencies(
            transactions,
            cache,
            audit,
            passwords,
            sessions,
            tokens,
            mail_queue,
            settings.security,
            _passkey_site(settings),
        )
    )
    openid = OpenIdService(
        configured_providers(settings.openid, settings.base_url),
        settings.openid,
        settings.security,
        accounts=accounts,
        sessions=sessions,
        copies=copies,
        transactions=transactions,
        cache=cache,
        without_address=settings.hosted.is_enabled,
    )
    stack.push_async_callback(openid.close)
    mails = _make_mails(settings, transactions, mail_queue)
    maintenance = MaintenanceService(
        database,
        transactions,
        file_maintenance,
        generation_streams.live,
        retention_months=settings.audit.audit_retention_months,
        trash_retention=timedelta(days=settings.audit.trash_retention) if settings.audit.trash_retention else None,
        event_days=settings.audit.generation_event_retention,
        mail_days=settings.mail.mail_retention,
    )
    local_files = _local_file_server(settings, transactions, backends)
    images = ImageService(transactions, image_files, files, view_counts)
    generations = GenerationService(transactions, cached_projects, generation_streams, view_counts)
    designs = DesignSystemService(transactions)
    usage = UsageService(transactions)
    shares = ShareService(transactions, view_counts, base_url=settings.base_url)
    seed = SeedService(
        transactions,
        SeedServices(accounts, sessions, projects, generations, images, designs, shares, usage),
        is_production=settings.is_production,
    )
    personal_archives = PersonalArchives(
        transactions,
        PersonalDataSources(accounts, sessions, api_keys, designs, projects, shares, files, usage, audit),
        ProjectArchives(projects, generations, files, images),
    )
    statistics = StatisticsService(database, replicas, transactions, cache, settings.storage)
    return Container(
        tracing=tracing,
        migrator=migrator,
        database=database,
        replicas=replicas,
        server_counters=ServerCounters(database, replicas.databases, observing=settings.metrics.enable_metrics),
        cache=cache,
        storage=storage,
        backends=backends,
        storage_counters=all_counters,
        transactions=transactions,
        passwords=passwords,
        audit_buffer=audit_buffer,
        generation_streams=generation_streams,
        view_counts=view_counts,
        files=files,
        local_files=None if local_files is None else traced("local_files", local_files),
        public_files=traced("public_files", PublicFileServer(transactions, backends)),
        file_maintenance=file_maintenance,
        sessions=sessions,
        tokens=tokens,
        api_keys=api_keys,
        audit=audit,
        accounts=traced("accounts", accounts),
        openid=traced("openid", openid),
        projects=traced("projects", projects),
        images=traced("images", images),
        generations=traced("generations", generations),
        mails=traced("mails", mails),
        designs=traced("designs", designs),
        usage=traced("usage", usage),
        shares=traced("shares", shares),
        personal_data=traced("personal_data", PersonalDataService(transactions, personal_archives)),
        exports=traced(
            "exports",
            ExportService(transactions, backends, ExportWorker(transactions, backends, personal_archives, mail_queue)),
        ),
        idempotency=IdempotentRequests(transactions, settings.security.session_secrets()),
        pages=traced("pages", PageService(transactions, files, fetcher, view_counts)),
        previews=traced(
            "previews",
            PreviewService(transactions, view_counts, settings.security.session_secrets(), base_url=settings.base_url),
        ),
        maintenance=traced("maintenance", maintenance),
        seed=traced("seed", seed),
        health=traced("health", HealthService(transactions, cache.check, storage.check)),
        statistics=traced("statistics", statistics),
        figure_history=FigureHistory(statistics, transactions, cache),
        first_administrator=traced("first_administrator", FirstAdministratorService(accounts, cache)),
        operations=traced("operations", _operations(settings, database, transactions)),
    )


def _operations(settings: Settings, database: Database, transactions: Transactions) -> OperationService:
    return OperationService(
        transactions,
        schema=database.schema,
        examine=partial(examine, settings),
        levels=LevelFile(settings.general.data_folder),
        log_level=settings.log.log_level,
    )


def make_replicas(settings: DatabaseSettings, primary: Database) -> Replicas:
    """Return the servers of DB_REPLICA_HOSTS, not yet watched."""
    databases = [Database(settings, address) for address in replica_addresses(settings)]
    return Replicas(primary, databases, settings.db_replica_max_lag)


def _open_tracing(settings: Settings, stack: AsyncExitStack, provider: TracerProvider | None) -> Tracing | None:
    tracing = open_tracing(settings.tracing, lambda: current_context().correlation_id, provider)
    if tracing is not None:
        stack.push_async_callback(tracing.close)
    return tracing


async def _open_storage(
    settings: StorageSettings, session_secret: SecretStr, stack: AsyncExitStack, tracing: Tracing | None
) -> tuple[StorageBackend, StorageCounters]:
    counters = StorageCounters(settings.storage_backend)
    if tracing is not None:
        counters.observer = tracing.of_storage(counters.backend)
    storage: StorageBackend = counted(make_storage(settings, session_secret), counters)
    stack.push_async_callback(storage.close)
    await storage.initialize()
    return storage, counters


async def _open_backends(
    settings: StorageSettings,
    session_secret: SecretStr,
    stack: AsyncExitStack,
    storage: StorageBackend,
    counters: StorageCounters,
) -> tuple[StorageBackends, tuple[StorageCounters, ...]]:
    kind = StorageKind(settings.storage_backend)
    if settings.second is None:
        return StorageBackends(kind, storage, {}), (counters,)
    second, of_second = await _open_storage(settings.second, session_secret, stack, None)
    return StorageBackends(kind, storage, {StorageKind(of_second.backend): second}), (counters, of_second)


async def _make_migrator(settings: DatabaseSettings, addresses: EmbeddedAddresses, *, prepares: bool) -> Migrator:
    migrator = Migrator(direct_address(settings, addresses.database_url))
    if prepares or addresses.database_url is not None:
        require_direct_address(settings)
        await run_in_thread(partial(prepare, migrator), log_progress)
    return migrator


async def _open_database(
    settings: DatabaseSettings, addresses: EmbeddedAddresses, stack: AsyncExitStack, tracing: Tracing | None
) -> Database:
    database = Database(settings, database_address(settings, addresses.database_url))
    if tracing is not None:
        database.observation.add(tracing.of_database(database.address.name))
        if database.observation.comments is not None:
            database.observation.comments.traceparent = current_traceparent
    stack.push_async_callback(database.close)
    await database.open()
    return database


def _open_files(
    settings: Settings,
    transactions: TransactionFactory,
    backends: StorageBackends,
    removal: FileRemoval,
    *,
    fetcher: Fetcher,
    stack: AsyncExitStack,
) -> tuple[FileService, FileMaintenance]:
    threads = FileThreads(_FILE_THREADS)
    stack.push_async_callback(threads.close)
    inspector = Inspector(limits_of(settings.files, settings.storage.max_file_size))
    stack.push_async_callback(inspector.close)
    thumbnails = ThumbnailMaker(transactions, backends, inspector, threads)
    stack.push_async_callback(thumbnails.close)
    thumbnails.start()
    files = FileService(
        transactions,
        backends,
        inspector,
        threads,
        removal,
        thumbnails=thumbnails,
        fetcher=fetcher,
        upload_expires_in=timedelta(seconds=settings.files.upload_expires_in),
        public_url=settings.storage.public_url or "",
    )
    return files, FileMaintenance(transactions, backends, removal, thumbnails)


def _make_fetcher(settings: Settings) -> Fetcher:
    patience = _FETCH_SECONDS_OF_HOSTED if settings.hosted.is_enabled else _FETCH_SECONDS
    return Fetcher(max_size=settings.storage.max_file_size, time_limit=patience)


def _local_file_server(
    settings: Settings, transactions: TransactionFactory, backends: StorageBackends
) -> LocalFileServer | None:
    if StorageKind.LOCAL not in backends.kinds:
        return None
    signer = local_url_signer(settings.storage, settings.security.session_secret)
    return LocalFileServer(transactions, backends.of(StorageKind.LOCAL), signer)


def _make_mails(settings: Settings, transactions: TransactionFactory, queue: MailQueue) -> MailService:
    mail, address = settings.mail, settings.base_url
    links = Links(
        service=address,
        verify_email=mail.verify_email_url or f"{address}{VERIFY_EMAIL_PATH}",
        reset_password=mail.reset_password_url or f"{address}{RESET_PASSWORD_PATH}",
        account=f"{address}{ACCOUNT_PATH}",
    )
    writer = LetterWriter(settings.security.session_secret.get_secret_value().encode(), links)
    renderer = MailRenderer(mail.mail_from or "data-layer@localhost", mail.mail_templates)
    return MailService(
        transactions,
        queue,
        writer,
        MailDelivery(transactions, queue, writer, renderer),
        transport=SmtpTransport(mail) if mail.is_configured else None,
        shows_links=not settings.is_production,
    )


def _passkey_site(settings: Settings) -> PasskeySite:
    origins = [origin for origin in settings.service.cors_allowed_origins if origin != ANY_ORIGIN]
    return PasskeySite.of(settings.base_url, settings.security.passkey_domain, origins)


def _start_audit_buffer(settings: Settings, database: Database, stack: AsyncExitStack) -> AuditBuffer:
    buffer = AuditBuffer(
        database,
        SpillFolder(settings.spill_folder, settings.audit.audit_spill_limit),
        capacity=settings.audit.audit_buffer_size,
        interval=settings.audit.audit_flush_interval,
    )
    stack.push_async_callback(buffer.close)
    buffer.start()
    return buffer


def _session_listener(
    settings: DatabaseSettings, database: Database, addresses: EmbeddedAddresses
) -> partial[Coroutine[Any, Any, Listener]]:
    """Return what connects to the database to listen for ended sessions."""
    is_pooled = settings.db_direct_url is None
    address = database.address if is_pooled else direct_address(settings, addresses.database_url)
    return partial(
        Listener.open,
        address,
        settings,
        SESSION_CHANNEL,
        time_limit=ANSWER_SECONDS,
        observation=database.observation,
    )


async def _look_for(cache: Cache) -> None:
    try:
        await cache.check()
    except CacheLoginError:
        raise
    except CacheError as error:
        log.warning("cache_unavailable", reason=str(error))
