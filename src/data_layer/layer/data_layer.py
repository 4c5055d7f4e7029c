"""``DataLayer``: everything behind one object."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.database.engine import Database
from data_layer.database.migrator import Migrator
from data_layer.database.replicas import Replicas
from data_layer.errors import NotInitializedError
from data_layer.layer.container import Container, open_container
from data_layer.repositories.unit_of_work import UnitOfWork, last_position
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.operations import Health
from data_layer.services.accounts import AccountService
from data_layer.services.api_keys import ApiKeyService
from data_layer.services.audit.service import AuditService
from data_layer.services.designs import DesignSystemService
from data_layer.services.exports import ExportService
from data_layer.services.figure_history import FigureHistory
from data_layer.services.files import FileMaintenance, FileService, LocalFileServer, PublicFileServer
from data_layer.services.first_administrator import FirstAdministratorService
from data_layer.services.generations import GenerationService
from data_layer.services.idempotency import IdempotentRequests
from data_layer.services.images import ImageService
from data_layer.services.mails import MailService
from data_layer.services.maintenance import MaintenanceService
from data_layer.services.openid import OpenIdService
from data_layer.services.operations import OperationService
from data_layer.services.pages import PageService
from data_layer.services.previews import PreviewService
from data_layer.services.projects import ProjectService
from data_layer.services.seed import SeedService
from data_layer.services.sessions import SessionService
from data_layer.services.shares import ShareService
from data_layer.services.statistics import Statistics
from data_layer.services.tokens import TokenService
from data_layer.services.transfer.personal import PersonalDataService
from data_layer.services.usage import UsageService
from data_layer.storage import StorageBackend
from data_layer.storage.counters import StorageCounters

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from data_layer.observability.metrics.registry import Metrics
    from data_layer.observability.tracing.tracing import Tracing


class DataLayer:
    """Database, cache and storage behind one object, used as ``async with DataLayer(Settings()) as data``.

    While no server is named in the settings, PostgreSQL and Valkey are started from their wheels, and the embedded
    database is created and migrated. A database of your own is never changed by opening it.

    Args:
        settings: by default those of the environment.
        exclusive: be the one service of the folder of the embedded servers.
        prepare: also create and migrate a database of your own.
        tracer_provider: OpenTelemetry's, for spans of what is done here; by default the global one of the application,
            if it has set one, or else what the settings say.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        exclusive: bool = False,
        prepare: bool = False,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._exclusive = exclusive
        self._prepares = prepare
        self._tracer_provider = tracer_provider
        self._exit_stack: AsyncExitStack | None = None
        self._container: Container | None = None
        self._metrics: Metrics | None = None

    async def open(self) -> Self:
        """Start and connect everything. Harmless when it is open.

        A cache that cannot be reached does not make this fail: the database holds the truth.

        Raises:
            SchemaMismatchError: when the tables are not those of this version; the message names the command to run.
            DataLayerError: when something else that is needed cannot be had; nothing stays open then.
        """
        if self._container is None:
            async with AsyncExitStack() as stack:
                container = await open_container(
                    self.settings,
                    stack,
                    exclusive=self._exclusive,
                    prepares=self._prepares,
                    tracer_provider=self._tracer_provider,
                )
                self._container, self._exit_stack = container, stack.pop_all()
        return self

    async def close(self) -> None:
        """Close everything, in the opposite order. Harmless when it is closed."""
        stack, self._exit_stack, self._container = self._exit_stack, None, None
        if stack is not None:
            await stack.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def database(self) -> Database:
        """The pool of connections to PostgreSQL."""
        return self._opened.database

    @property
    def migrator(self) -> Migrator:
        """What operators do to the tables."""
        return self._opened.migrator

    @property
    def cache(self) -> Cache:
        """Values with a time to live, in Redis or Valkey."""
        return self._opened.cache

    @property
    def storage(self) -> StorageBackend:
        """Files under keys."""
        return self._opened.storage

    @property
    def storage_counters(self) -> StorageCounters:
        """What the storage has done since it was opened: operations, bytes, errors and durations."""
        return self._opened.storage_counters[0]

    @property
    def metrics(self) -> Metrics:
        """What is counted here, and where an application adds metrics of its own, also before it is open.

        The service exposes them to Prometheus at METRICS_PORT; your own application hands
        ``data.metrics.registry`` to prometheus-client.
        """
        if self._metrics is None:
            # Here because callers that do not ask need not wait for prometheus-client.
            from data_layer.layer.metrics import make_metrics

            self._metrics = make_metrics(self.settings, lambda: self._container)
        return self._metrics

    @property
    def files(self) -> FileService:
        """Files of users: validated, recorded, and removed when nobody refers to them any more."""
        return self._opened.files

    @property
    def local_files(self) -> LocalFileServer | None:
        """What serves signed URLs of local files; None where no files are local."""
        return self._opened.local_files

    @property
    def public_files(self) -> PublicFileServer:
        """What serves files with a permanent address, wherever they are stored."""
        return self._opened.public_files

    @property
    def file_maintenance(self) -> FileMaintenance:
        """What operators do with stored files."""
        return self._opened.file_maintenance

    def transaction(self, *, read_only: bool = False, after: str | None = None) -> UnitOfWork:
        """A new transaction, for one ``async with`` block: committed at its end, rolled back on an exception.

        Args:
            read_only: refuse changes, and read from a replica (DB_REPLICA_HOSTS) if one is fresh enough: at most
                DB_REPLICA_MAX_LAG seconds behind, and not behind what this task, or the one that started it, has
                committed itself.
            after: also not behind this ``position``, which another task or process has handed over.

        Raises:
            NotInitializedError: when the data layer is not open.
            InvalidValueError: when ``after`` is not a position.
        """
        return self._opened.transactions(read_only=read_only, after=after)

    @property
    def position(self) -> str | None:
        """Where the database was after the last commit of this task, for ``transaction(read_only=True, after=…)``.

        A web application hands it to its client, so that the next request reads what this one has written, whichever
        replica serves it. None without a commit, and without replicas.
        """
        return last_position()

    @property
    def replicas(self) -> Replicas:
        """The replicas that are read from."""
        return self._opened.replicas

    @property
    def openid(self) -> OpenIdService:
        """Logging in by an OpenID Connect issuer, Google, GitHub or Microsoft."""
        return self._opened.openid

    @property
    def accounts(self) -> AccountService:
        """Accounts of people: registering, logging in, changing, ending."""
        return self._opened.accounts

    @property
    def projects(self) -> ProjectService:
        """Projects and the versions of their code."""
        return self._opened.projects

    @property
    def images(self) -> ImageService:
        """Images of projects."""
        return self._opened.images

    @property
    def generations(self) -> GenerationService:
        """Requests to generate code, their variants, and every version of a project."""
        return self._opened.generations

    @property
    def designs(self) -> DesignSystemService:
        """Design systems of people."""
        return self._opened.designs

    @property
    def usage(self) -> UsageService:
        """What was used of paid models, and monthly budgets."""
        return self._opened.usage

    @property
    def shares(self) -> ShareService:
        """Links by which anybody may read one page of a project."""
        return self._opened.shares

    @property
    def personal_data(self) -> PersonalDataService:
        """Everything that is kept about one person, as an archive for that person."""
        return self._opened.personal_data

    @property
    def exports(self) -> ExportService:
        """The same archives, which are made in the background and can be had for a week."""
        return self._opened.exports

    @property
    def idempotency(self) -> IdempotentRequests:
        """Requests that are carried out once, however often they are sent."""
        return self._opened.idempotency

    @property
    def pages(self) -> PageService:
        """Pages of variants as they are shown, and the images that they name."""
        return self._opened.pages

    @property
    def previews(self) -> PreviewService:
        """Pages of variants at addresses that need no cookie."""
        return self._opened.previews

    @property
    def mails(self) -> MailService:
        """Mails to people with accounts: which wait, and what became of the others."""
        return self._opened.mails

    @property
    def audit(self) -> AuditService:
        """The audit trail."""
        return self._opened.audit

    @property
    def sessions(self) -> SessionService:
        """Who is logged in."""
        return self._opened.sessions

    @property
    def tokens(self) -> TokenService:
        """Access and refresh tokens, for clients that hold no cookie."""
        return self._opened.tokens

    @property
    def api_keys(self) -> ApiKeyService:
        """Keys with which programs act for people."""
        return self._opened.api_keys

    @property
    def maintenance(self) -> MaintenanceService:
        """Removal of what has expired, files included, and the months of the audit trail."""
        return self._opened.maintenance

    @property
    def first_administrator(self) -> FirstAdministratorService:
        """How a service without an administrator gets one."""
        return self._opened.first_administrator

    @property
    def operations(self) -> OperationService:
        """The health of everything and what is logged, for administrators."""
        return self._opened.operations

    @property
    def seed(self) -> SeedService:
        """The example data."""
        return self._opened.seed

    async def require_current_schema(self) -> None:
        """Ask the database whether its tables are those of this version; one query.

        Raises:
            SchemaMismatchError: when they are not; the message names the command to run.
            DatabaseError: when it cannot be asked.
        """
        (await self.database.schema()).require_current()

    async def health(self) -> Health:
        """Whether database, cache and storage work."""
        return await self._opened.health.check()

    async def statistics(self, actor: Actor = SYSTEM) -> Statistics:
        """Figures of database, cache and storage, after about ten seconds at most; cheap enough for any moment.

        Args:
            actor: the reader; by default the operator.

        Raises:
            PermissionDeniedError: the actor is not an administrator.
        """
        return await self._opened.statistics.gather(actor)

    @property
    def figure_history(self) -> FigureHistory:
        """The same figures of the last half hour, which the service records."""
        return self._opened.figure_history

    @property
    def tracing(self) -> Tracing | None:
        """What makes spans; None while traces are off."""
        return self._opened.tracing

    @property
    def _opened(self) -> Container:
        if self._container is None:
            raise NotInitializedError(
                "the data layer is not open: use it inside `async with`, or call initialize_data_layer()"
            )
        return self._container
