"""Whether PostgreSQL can be reached, is set up well, and holds the tables of this version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from data_layer.database.address import DatabaseAddress, direct_address, replica_addresses, session_values
from data_layer.database.administration import EXTENSIONS
from data_layer.database.engine import Database
from data_layer.database.schema_check import SchemaStatus
from data_layer.errors import DatabaseError, DatabaseMissingError, NotInitializedError, SchemaMismatchError
from data_layer.repositories.audit_partitions import Month
from data_layer.repositories.diagnostics import (
    Identity,
    ServerFacts,
    measure_lag,
    read_audit_partitions,
    read_clock_difference,
    read_extensions,
    read_identity,
    read_missing_rights,
    read_ownership,
    read_schema_name,
    read_server,
    read_timeouts,
)
from data_layer.schemas.doctor import Outcome, Text
from data_layer.services.doctor.checks import (
    Check,
    CheckResult,
    failed,
    judge_difference,
    listed,
    nothing_yet,
    of_error,
    ok,
    reach,
    some_suffice,
    unknown_location,
    warning,
)
from data_layer.settings.database import DatabaseSettings, SslMode

Locate = Callable[[], Awaitable[DatabaseAddress | CheckResult]]

PART = "database"
_START_SECONDS = 60.0


def database_checks(target: DatabaseTarget, locate: Locate | None) -> list[Check]:
    """The checks of PostgreSQL, those first that others need.

    Args:
        target: what is found out is kept there.
        locate: says where it is, after starting it if it is embedded; or that there is none yet. None: the settings do
            not say where it is.
    """
    address, login, schema = ("address",), ("login",), ("schema",)

    def check(
        name: str, look: Callable[[DatabaseTarget], Awaitable[CheckResult | list[CheckResult]]], *needs: str
    ) -> Check:
        return Check(PART, name, partial(look, target), needs)

    start = Check(PART, "server", partial(_locate, target, locate), time_limit=_limit_of_start(target))
    return [
        start,
        check("address", _reach, "server"),
        check("login", _log_in, *address),
        check("primary", judge_role_of_server, *login),
        check("version", judge_version, *login),
        check("tls", judge_encryption, *login),
        check("role", judge_role, *login),
        check("durability", judge_durability, *login),
        check("encoding", judge_encoding, *login),
        check("connections", judge_connections, *login),
        check("time_limits", judge_timeouts, *login),
        check("clock", judge_clock, *login),
        check("extensions", judge_extensions, *login),
        check("pooler", judge_pooler, *login),
        check("direct_address", judge_direct_address, *login),
        check("replicas", judge_replicas, *login),
        check("schema", judge_schema, *login),
        check("rights", judge_rights, *schema),
        check("migration_rights", judge_migration_rights, *schema),
        check("audit_partitions", judge_audit_partitions, *schema),
    ]


def _limit_of_start(target: DatabaseTarget) -> float | None:
    return max(_START_SECONDS, target.time_limit) if target.settings.is_embedded else None


async def _locate(target: DatabaseTarget, locate: Locate | None) -> CheckResult:
    if locate is None:
        return unknown_location("PostgreSQL")
    found = await locate()
    if isinstance(found, CheckResult):
        return found
    target.use(found)
    address = str(target.database.address)
    if target.settings.is_embedded:
        return ok("embedded PostgreSQL %(address)s", address=address)
    return ok("the settings name %(address)s", address=address)


async def _reach(target: DatabaseTarget) -> list[CheckResult]:
    seconds = min(target.settings.db_connect_timeout, target.time_limit)
    setting = "DB_HOST and DB_PORT" if target.settings.database_url is None else "DATABASE_URL"
    return some_suffice(await reach(target.places, setting, seconds))


async def _log_in(target: DatabaseTarget) -> CheckResult:
    try:
        identity = await read_identity(target.database)
    except DatabaseMissingError:
        if not target.settings.is_embedded:
            raise
        return nothing_yet("the embedded server does not have the database yet; the next start makes it")
    facts = await read_server(target.database)
    target.introduce(facts, identity)
    if facts.is_read_only and not facts.is_standby:
        return failed(
            "%(user)s is logged in, but may only read: default_transaction_read_only is on",
            'ALTER ROLE "%(user)s" RESET default_transaction_read_only, or the same for the database or server',
            user=facts.user,
        )
    return ok("%(user)s is logged in to the database %(database)s", user=facts.user, database=facts.database)


Fact = TypeVar("Fact")

# One for the check that runs, and one in the place of a connection that a check before it left hanging.
_CONNECTIONS = 2
_DEFAULT_PORT = 5432


class DatabaseTarget:
    """The PostgreSQL that is checked: its address, connections to it, and what it reported once."""

    def __init__(self, settings: DatabaseSettings, workers: int, time_limit: float) -> None:
        self.settings = settings
        self.workers = workers
        self.time_limit = time_limit
        self._few = settings.unchecked(
            db_max_connections=_CONNECTIONS,
            db_min_connections=0,
            db_statement_timeout=min(settings.db_statement_timeout, time_limit),
            db_connect_timeout=min(settings.db_connect_timeout, time_limit),
            db_logging=False,
        )
        self._database: Database | None = None
        self._facts: ServerFacts | None = None
        self._identity: Identity | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._database is not None:
            await self._database.close()

    def use(self, address: DatabaseAddress) -> None:
        """Connect to this address."""
        self._database = Database(self._few, address)
        self._database.prepare()

    def introduce(self, facts: ServerFacts, identity: Identity) -> None:
        """Keep what the server reported about itself."""
        self._facts, self._identity = facts, identity

    @property
    def database(self) -> Database:
        """The connections to it."""
        return _known(self._database)

    @property
    def facts(self) -> ServerFacts:
        """What the server reported about itself."""
        return _known(self._facts)

    @property
    def identity(self) -> Identity:
        """Which server answers."""
        return _known(self._identity)

    @property
    def places(self) -> list[tuple[str, int]]:
        """The servers that are named: hosts and ports, or paths of sockets."""
        return places_of(self.database.address)

    @property
    def ssl_mode(self) -> SslMode:
        """How connections are encrypted and verified."""
        address = self.database.address
        return SslMode(str(address.options.get("sslmode") or address.url.query.get("sslmode") or "prefer"))

    @asynccontextmanager
    async def another(self, address: DatabaseAddress) -> AsyncIterator[Database]:
        """Connections to another server, for as long as the block lasts."""
        database = Database(self._few, address)
        database.prepare()
        try:
            yield database
        finally:
            await database.close()


def places_of(address: DatabaseAddress) -> list[tuple[str, int]]:
    """The hosts and ports of an address, or the paths of its sockets."""
    url = address.url
    hosts = str(url.query.get("host", url.host or "localhost")).split(",")
    ports = str(url.query.get("port", url.port or _DEFAULT_PORT)).split(",")
    pairs = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True)
    return [(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else host, int(port)) for host, port in pairs]


def _known(fact: Fact | None) -> Fact:
    if fact is None:
        raise NotInitializedError("this is not known before the check that finds it out")
    return fact


# The oldest that the tests run with.
_OLDEST = 15
_FEW = 0.9


async def judge_role_of_server(target: DatabaseTarget) -> CheckResult:
    """Whether it takes writes."""
    if target.facts.is_standby:
        return failed(
            "this server is a standby, which refuses every write",
            "name the primary in DB_HOST or DATABASE_URL, or all servers separated by commas; or promote this one",
        )
    names, followers = target.facts.synchronous_standbys, target.facts.followers
    if names and not followers and target.facts.synchronous_commit not in {"off", "local"}:
        return failed(
            "every commit waits for ever: synchronous_standby_names is '%(names)s' and no standby is connected",
            "bring the standby back, or empty synchronous_standby_names and reload",
            names=names,
        )
    return ok("it is the primary; other servers that follow it: %(number)s", number=followers)


async def judge_version(target: DatabaseTarget) -> CheckResult:
    """Whether this version is tested."""
    major, version = target.facts.version_number // 10_000, target.facts.version.split()[0]
    if major < _OLDEST:
        return warning(
            "PostgreSQL %(version)s is older than %(oldest)s, the oldest version that is tested",
            "upgrade the server",
            version=version,
            oldest=_OLDEST,
        )
    return ok("PostgreSQL %(version)s", version=version)


async def judge_encryption(target: DatabaseTarget) -> CheckResult:
    """Whether a third party could read or change the traffic."""
    if all(host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"} for host, _ in target.places):
        return ok(
            "encrypted, and it stays on this machine"
            if target.identity.is_encrypted
            else "not encrypted, and it stays on this machine"
        )
    if not target.identity.is_encrypted:
        return warning(
            "the connection is not encrypted: passwords and data can be read on their way",
            "set DB_SSL=verify-full, and DB_SSL_CA if the authority is your own",
        )
    if target.ssl_mode is SslMode.VERIFY_FULL:
        return ok("encrypted, and the server's certificate and name are verified")
    if target.ssl_mode is SslMode.VERIFY_CA:
        return warning("encrypted, but the server's host name is not verified", "set DB_SSL=verify-full")
    return warning(
        "encrypted, but with DB_SSL=%(mode)s the server is not verified",
        "set DB_SSL=verify-full, and DB_SSL_CA if the authority is your own",
        mode=target.ssl_mode.value,
    )


async def judge_role(target: DatabaseTarget) -> list[CheckResult]:
    """Whether the user has more rights than needed, or a login that is about to end."""
    facts, found = target.facts, []
    if facts.is_superuser and not target.settings.is_embedded:
        found.append(
            warning(
                "%(user)s is a superuser: a flaw in the application would expose the whole server",
                "log in as a role that owns only this database",
                user=facts.user,
            )
        )
    if facts.password_ends is not None:
        found.append(
            warning(
                "the login of %(user)s ends on %(day)s",
                "ALTER ROLE … VALID UNTIL a later day",
                user=facts.user,
                day=str(facts.password_ends),
            )
        )
    meaning = (
        Text("%(user)s is the superuser of the embedded server, which only this account reaches", {"user": facts.user})
        if facts.is_superuser
        else Text("%(user)s is not a superuser", {"user": facts.user})
    )
    return found or [CheckResult(Outcome.OK, meaning)]


async def judge_durability(target: DatabaseTarget) -> list[CheckResult]:
    """Whether what was committed survives a crash."""
    facts, found = target.facts, []
    for name, is_on in (("fsync", facts.fsync), ("full_page_writes", facts.full_page_writes)):
        if not is_on:
            found.append(
                warning(
                    "%(setting)s is off: a crash can destroy the database",
                    "set %(setting)s = on, and reload",
                    setting=name,
                )
            )
    if facts.synchronous_commit == "off":
        found.append(
            warning(
                "synchronous_commit is off: a crash loses the last moments of what was confirmed as stored",
                "set synchronous_commit = on for this role, database or server",
            )
        )
    mode = facts.synchronous_commit
    return found or [ok("what is committed survives a crash (synchronous_commit = %(mode)s)", mode=mode)]


async def judge_encoding(target: DatabaseTarget) -> list[CheckResult]:
    """Whether all text can be stored."""
    facts = target.facts
    if facts.encoding != "UTF8":
        return [
            failed(
                "the database is in %(encoding)s and cannot store every text",
                "make one in UTF8, as `data-layer db create` does, and move the data with pg_dump",
                encoding=facts.encoding,
            )
        ]
    return [ok("UTF8, sorted by %(collation)s", collation=facts.collation)]


async def judge_connections(target: DatabaseTarget) -> list[CheckResult]:
    """Whether the pool finds its connections."""
    facts, wanted = target.facts, target.settings.db_max_connections + target.workers
    if target.identity.is_pooled:
        return [ok("a pooler hands them out; its own limits count, which only its operator sees")]
    usable = facts.max_connections - facts.reserved_connections - facts.further_reserved_connections
    limits = [
        (Text("max_connections"), usable),
        (Text('the limit of the role "%(role)s"', {"role": facts.user}), facts.role_limit),
        (Text('the limit of the database "%(database)s"', {"database": facts.database}), facts.database_limit),
    ]
    found = [
        warning(
            "one process may want %(wanted)s connections, and %(limit)s leaves %(number)s: some calls would fail under "
            "load",
            "lower DB_MAX_CONNECTIONS, or raise the limit on the server",
            wanted=wanted,
            limit=name,
            number=number,
        )
        for name, number in limits
        if 0 <= number < wanted
    ]
    if facts.connections > _FEW * usable:
        found.append(
            warning(
                "%(used)s of %(usable)s connections are in use at this moment",
                "find out who holds them in pg_stat_activity; lower DB_MAX_CONNECTIONS, or raise max_connections",
                used=facts.connections,
                usable=usable,
            )
        )
    if found:
        return found
    return [
        ok(
            "%(usable)s can be used and %(used)s are; one process takes %(wanted)s at most, so there is room for "
            "%(room)s",
            usable=usable,
            used=facts.connections,
            wanted=wanted,
            room=usable // wanted,
        )
    ]


async def judge_timeouts(target: DatabaseTarget) -> list[CheckResult]:
    """Whether the limits that each connection asks for are in force, and no others hurt."""
    limits, found = await read_timeouts(target.database), []
    if not target.settings.db_pgbouncer and "statement_timeout" in session_values(target.settings):
        in_force = limits["statement_timeout"]
        if in_force["source"] not in {"client", "session"}:
            found.append(
                warning(
                    "the server ignores DB_STATEMENT_TIMEOUT, as poolers do",
                    "set DB_PGBOUNCER=true, so that each transaction sets it",
                )
            )
    for name in ("idle_session_timeout", "transaction_timeout"):
        limit = limits.get(name)
        if limit is not None and limit["setting"] != "0":
            found.append(
                warning(
                    "%(setting)s is %(limit)s (from %(source)s): it ends connections that are in order",
                    'ALTER ROLE "%(user)s" SET %(setting)s = 0',
                    setting=name,
                    limit=f"{limit['setting']} {limit['unit']}",
                    source=limit["source"],
                    user=target.facts.user,
                )
            )
    seconds = target.settings.db_statement_timeout
    return found or [
        ok(
            "a statement may take %(seconds)s s, an idle transaction %(idle)s s",
            seconds=seconds,
            idle=2 * seconds,
        )
    ]


async def judge_clock(target: DatabaseTarget) -> CheckResult:
    """Whether both clocks agree."""
    difference, uncertainty = await read_clock_difference(target.database)
    return judge_difference(difference, uncertainty, "PostgreSQL")


async def judge_extensions(target: DatabaseTarget) -> list[CheckResult]:
    """Whether what would be useful is there; nothing is needed."""
    there = await read_extensions(target.database, list(EXTENSIONS))
    return [_judge_extension(name, there.get(name)) for name in EXTENSIONS]


def _judge_extension(name: str, is_installed: bool | None) -> CheckResult:  # noqa: FBT001  (one of three answers)
    if is_installed is None:
        return ok("the server does not have %(name)s; statistics of statements are missing, nothing else", name=name)
    if is_installed:
        return ok("%(name)s is installed", name=name)
    return warning(
        "%(name)s is not installed: slow statements cannot be found",
        "CREATE EXTENSION %(name)s, as a superuser, with the server's shared_preload_libraries = '%(name)s'",
        name=name,
    )


async def judge_schema(target: DatabaseTarget) -> CheckResult:
    """Whether the tables are there, and as this version needs them."""
    name, search_path = await read_schema_name(target.database)
    if name is None:
        return failed(
            "%(user)s may use no schema of the search path (%(path)s)",
            'GRANT USAGE ON SCHEMA public TO "%(user)s", or set its search_path',
            user=target.facts.user,
            path=search_path,
        )
    state = await target.database.schema()
    if target.settings.is_embedded and state.state in {SchemaStatus.EMPTY, SchemaStatus.BEHIND}:
        return nothing_yet("the embedded database is behind this version; the next start of the service migrates it")
    try:
        state.require_current()
    except SchemaMismatchError as error:
        return of_error(error)
    return ok(
        "the schema %(schema)s is at revision %(revision)s, which this version needs",
        schema=name,
        revision=str(state.revision),
    )


async def judge_rights(target: DatabaseTarget) -> list[CheckResult]:
    """Whether the service may read and write its tables."""
    user = target.facts.user
    missing = await read_missing_rights(target.database)
    if not missing:
        return [ok("%(user)s may read and write all tables", user=user)]
    return [
        failed(
            "%(user)s lacks %(rights)s on %(table)s",
            'as its owner: GRANT %(rights)s ON %(table)s TO "%(user)s"',
            user=user,
            rights=rights,
            table=table,
        )
        for table, rights in missing.items()
    ]


async def judge_migration_rights(target: DatabaseTarget) -> CheckResult:
    """Check whether the role can migrate and create audit partitions; another role may do both."""
    may_create, owns_tables, owns_partitions = await read_ownership(target.database)
    user = target.facts.user
    if may_create and owns_tables:
        return ok("%(user)s may also run migrations and maintenance", user=user)
    if not (may_create and owns_partitions):
        return ok(
            "%(user)s cannot run migrations or maintenance: let the owner run `data-layer db migrate` and, monthly, "
            "`data-layer maintenance run`",
            user=user,
        )
    return ok("%(user)s cannot run migrations: let the owner of the tables run `data-layer db migrate`", user=user)


async def judge_audit_partitions(target: DatabaseTarget) -> list[CheckResult]:
    """Whether the audit trail has a partition for this month and the next."""
    months, has_orphans = await read_audit_partitions(target.database)
    this = Month.of(datetime.now(UTC))
    missing = [Text.verbatim(str(month)) for month in (this, this.plus(1)) if month not in months]
    found = []
    if missing:
        found.append(
            warning(
                "the audit trail has no partition for %(months)s; entries go into the default one, and nothing is lost",
                "run: data-layer maintenance run, as the service does regularly; see why it has not",
                months=listed(missing),
            )
        )
    if has_orphans:
        found.append(
            warning(
                "entries of the audit trail lie in its default partition, where they are never removed",
                "run: data-layer maintenance run",
            )
        )
    return found or [ok("partitions of the audit trail reach to %(month)s", month=str(months[-1]))]


_REPLICA_ADVICE = Text("until it is back, reads go to the others and to the primary; see its log")


async def judge_pooler(target: DatabaseTarget) -> CheckResult:
    """Check whether DB_PGBOUNCER matches what answers."""
    is_pooled, says_so = target.identity.is_pooled, target.settings.db_pgbouncer
    if is_pooled and not says_so:
        return failed(
            "a pooler such as PgBouncer is in between, and DB_PGBOUNCER is not set: statements fail by chance",
            "set DB_PGBOUNCER=true, and DB_DIRECT_URL to an address that avoids it",
        )
    if says_so and not is_pooled:
        return warning(
            "DB_PGBOUNCER is set, but PostgreSQL itself answers: every transaction costs a statement more",
            "unset DB_PGBOUNCER, or name the pooler",
        )
    return ok("a pooler is in between, as DB_PGBOUNCER says" if is_pooled else "PostgreSQL itself answers")


async def judge_direct_address(target: DatabaseTarget) -> CheckResult:
    """Whether migrations and notifications find a way past the pooler."""
    settings = target.settings
    if settings.db_direct_url is None:
        if not settings.db_pgbouncer:
            return ok("not needed without a pooler")
        return warning(
            "DB_DIRECT_URL is not set: migrations are refused, and ended sessions are heard of a second later",
            "set DB_DIRECT_URL to an address that avoids PgBouncer",
        )
    async with target.another(direct_address(settings)) as database:
        identity = await read_identity(database)
    if identity.is_pooled:
        return failed("DB_DIRECT_URL leads through a pooler too", "name PostgreSQL itself there")
    if (identity.started_at, identity.database) != (target.identity.started_at, target.identity.database):
        return failed(
            "DB_DIRECT_URL leads to another server or database: migrations would change the wrong one",
            "name the server and database behind the pooler there",
        )
    if identity.is_standby:
        return failed("DB_DIRECT_URL leads to a standby, where nothing can be migrated", "name the primary there")
    return ok("it leads to the same database, without a pooler")


async def judge_replicas(target: DatabaseTarget) -> list[CheckResult]:
    """Whether each replica can be read from, and how far it is behind."""
    if not target.settings.db_replica_hosts:
        return [ok("none are named in DB_REPLICA_HOSTS")]
    addresses = replica_addresses(target.settings)
    return list(await asyncio.gather(*(_judge_replica(target, address) for address in addresses)))


async def _judge_replica(target: DatabaseTarget, address: DatabaseAddress) -> CheckResult:
    ((host, port),) = places = places_of(address)
    name = f"{host}:{port}"
    # Less than the whole check has, so that a silent one does not hide the others.
    patience = min(target.settings.db_connect_timeout, target.time_limit / 3)
    (reached,) = await reach(places, "DB_REPLICA_HOSTS", patience)
    if reached.outcome is Outcome.FAILED:
        return _lost(name, reached.meaning)
    maximum = min(target.settings.db_replica_max_lag, target.time_limit / 3)
    try:
        async with asyncio.timeout(2 * target.time_limit / 3), target.another(address) as database:
            if not (await read_identity(database)).is_standby:
                return warning(
                    "%(name)s is not a replica but a primary, and is not read from",
                    "correct DB_REPLICA_HOSTS",
                    name=name,
                )
            if target.facts.is_standby:
                return ok("the replica %(name)s answers; only a primary knows how far it is behind", name=name)
            lag = await measure_lag(target.database, database, maximum)
    except DatabaseError as error:
        result = of_error(error)
        return _lost(name, result.meaning, result.advice)
    except TimeoutError:
        return _lost(name, Text("it takes connections and does not answer"))
    if lag is None:
        return warning(
            "the replica %(name)s is more than %(seconds)s s behind, and is not read from until it has caught up",
            "see whether its replay is paused, its disk slow, or a long query there holds it back",
            name=name,
            seconds=maximum,
        )
    return ok(
        "the replica %(name)s showed within %(milliseconds)s ms what the primary had",
        name=name,
        milliseconds=round(lag * 1000),
    )


def _lost(name: str, reason: Text, advice: Text | None = None) -> CheckResult:
    meaning = Text("the replica %(name)s: %(reason)s", {"name": name, "reason": reason})
    return CheckResult(Outcome.WARNING, meaning, advice or _REPLICA_ADVICE)
