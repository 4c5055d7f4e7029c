"""Reading from replicas that are fresh enough, and from the primary when none is.

Replica freshness is measured without comparing clocks: the primary's position in its log is noted four times a second,
and a replica that has replayed the position noted at a certain time shows everything that was committed before that
time. After a write, its caller reads from replicas that have replayed the position after its own commit (PostgreSQL
manual, "Backup Control Functions": ``pg_current_wal_flush_lsn``, ``pg_last_wal_replay_lsn``).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from data_layer.concurrency import Backoff, cancel_and_wait
from data_layer.database.driver import translated, was_refused
from data_layer.database.engine import Database, discard, driver_of
from data_layer.database.observation import DatabaseCounters, StatementCounters
from data_layer.database.statements import NamedQuery
from data_layer.database.transaction import POSITION_SQL
from data_layer.errors import DatabaseError, InvalidValueError
from data_layer.observability.log import get_log

log = get_log(__name__)

_REPLAYED_SQL: Final = NamedQuery(
    "replication.replayed", "SELECT pg_last_wal_replay_lsn()::text WHERE pg_is_in_recovery()"
)
_BEGIN_READ_ONLY: Final = NamedQuery("transaction.begin", "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
PRIMARY: Final = "primary"
_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 5.0
_NEVER: Final = -1
_NOBODY_YET: Final = 2**64  # A position that no replica has replayed.


class Replica:
    """One server that follows the primary, and what is known of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.replayed: int = _NEVER
        self._is_left_out = False
        self._pauses = Backoff(2 * _LOOK_SECONDS, _LONGEST_PAUSE_SECONDS, jitter=0.5)
        self._pause_until = 0.0

    async def look(self) -> None:
        """Ask how far it is, unless it has just failed."""
        if time.monotonic() < self._pause_until:
            return
        try:
            replayed = await _ask(self.database, _REPLAYED_SQL)
        except (DatabaseError, TimeoutError) as error:
            self.leave_out(str(error) or "no answer")
            return
        if replayed is None:
            self.leave_out("it is not a replica; after a failover it may be the primary")
            return
        if self.replayed == _NEVER:
            log.info("replica_used", replica=str(self.database.address))
        self.replayed, self._is_left_out = replayed, False
        self._pauses.reset()

    def leave_out(self, reason: str) -> None:
        """Do not read from it until it has been asked again, which is done less and less often."""
        if not self._is_left_out:
            log.warning("replica_left_out", replica=str(self.database.address), reason=reason)
        self.replayed, self._is_left_out = _NEVER, True
        self._pause_until = time.monotonic() + self._pauses.next()


class Replicas:
    """The replicas of one primary, watched while they are open."""

    def __init__(self, primary: Database, databases: Sequence[Database], maximum_lag: float) -> None:
        self.primary = primary
        self._replicas = [Replica(database) for database in databases]
        self._maximum_lag = maximum_lag
        self._positions: deque[tuple[float, int]] = deque()
        self._is_primary_known = False
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to watch. A replica that cannot be reached does not make this fail."""
        for replica in self._replicas:
            replica.database.prepare()
        if self._replicas:
            await self._look()
            self._watch = asyncio.create_task(self._keep_looking(), name="replicas")

    async def close(self) -> None:
        """End watching and close the connections."""
        watch, self._watch = self._watch, None
        await cancel_and_wait(watch)
        for replica in self._replicas:
            await replica.database.close()

    def reader(self, *after: str | None) -> ReplicaReader:
        """A database to read from that shows everything up to all of these positions.

        Raises:
            InvalidValueError: when one of them is not a position.
        """
        positions = (parse_position(position) for position in after if position is not None)
        return ReplicaReader(self, max(positions, default=_NEVER))

    def figures(self) -> list[dict[str, object]]:
        """For each replica: where it is, whether it is read from, and how many seconds it is behind at most."""
        return [
            {
                "address": str(replica.database.address),
                "is_used": replica in self.fresh(_NEVER),
                "lag_seconds": None if replica.replayed == _NEVER else round(self._lag(replica), 3),
            }
            for replica in self._replicas
        ]

    @property
    def databases(self) -> list[Database]:
        """The replicas' own pools, in the order of ``figures``."""
        return [replica.database for replica in self._replicas]

    def fresh(self, after: int) -> list[Replica]:
        """The replicas that may be read from, in the order in which they should be tried."""
        found = [
            replica
            for replica in self._replicas
            if replica.replayed >= after and replica.replayed != _NEVER and self._is_fresh(replica)
        ]
        random.shuffle(found)
        return found

    def owner(self, connection: AsyncConnection) -> Database:
        """The database from whose pool a connection comes."""
        databases = [replica.database for replica in self._replicas]
        return next((database for database in databases if database.owns(connection)), self.primary)

    def leave_out(self, database: Database, reason: str) -> None:
        """Do not read from this replica for a while."""
        for replica in self._replicas:
            if replica.database is database:
                replica.leave_out(reason)

    def _is_fresh(self, replica: Replica) -> bool:
        if not self._is_primary_known and self._positions:
            # Nobody can know more than the last position of a primary that has gone.
            return replica.replayed >= self._positions[-1][1]
        return self._lag(replica) <= self._maximum_lag

    def _lag(self, replica: Replica) -> float:
        shown = [noted for noted, position in self._positions if position <= replica.replayed]
        return time.monotonic() - shown[-1] if shown else float("inf")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        # The primary first: what replicas have replayed afterwards is compared with what it had before.
        await self._note_position()
        await asyncio.gather(*(replica.look() for replica in self._replicas))

    async def _note_position(self) -> None:
        now = time.monotonic()
        try:
            position = await _ask(self.primary, POSITION_SQL)
        except (DatabaseError, TimeoutError):
            position = None
        self._is_primary_known = position is not None
        if position is None:
            return
        self._positions.append((now, position))
        # One that is older than the limit stays, or else a replica far behind would have no lag at all to report.
        while len(self._positions) > 1 and self._positions[1][0] < now - 2 * self._maximum_lag:
            self._positions.popleft()


class ReplicaReader:
    """Takes connections from a fresh replica, and from the primary when there is none; for ``Transaction``."""

    is_read_only = True
    tells_position = False

    def __init__(self, replicas: Replicas, after: int) -> None:
        primary = replicas.primary
        self.begin_statements = ((_BEGIN_READ_ONLY, None), *primary.begin_statements[1:])
        self.reads_need_transaction = primary.reads_need_transaction
        self.logs_statements = primary.logs_statements
        self.observation = primary.observation
        self._replicas = replicas
        self._after = after

    async def connect(self) -> AsyncConnection:
        """A connection to the freshest server that answers.

        Raises:
            DatabaseError: when not even the primary can be had.
        """
        for replica in self._replicas.fresh(self._after):
            try:
                return await replica.database.connect()
            except DatabaseError as error:
                replica.leave_out(str(error))
        return await self._replicas.primary.connect()

    async def give_back(self, connection: AsyncConnection) -> None:
        """Take a connection back into the pool that it comes from."""
        await self._replicas.owner(connection).give_back(connection)

    def can_take_back(self, connection: AsyncConnection) -> bool:
        """Whether ``give_back`` puts this connection into a pool before it waits for anything."""
        return self._replicas.owner(connection).can_take_back(connection)

    def leave_replicas(self) -> bool:
        """Take further connections from the primary; whether they may have come from a replica so far."""
        may_have, self._after = bool(self._replicas.databases) and self._after != _NOBODY_YET, _NOBODY_YET
        return may_have

    def report_error(self, connection: AsyncConnection, error: psycopg.Error) -> None:
        """Record the error that broke a connection; its server is left out until it answers again."""
        if not was_refused(error):
            self._replicas.leave_out(self._replicas.owner(connection), "a connection broke")


def parse_position(text: str) -> int:
    """A position in PostgreSQL's log, ``16/B374D848``, as a number.

    Raises:
        InvalidValueError: when it is none.
    """
    high, _, low = text.partition("/")
    try:
        return (int(high, 16) << 32) + int(low, 16)
    except ValueError:
        raise InvalidValueError(f"{text[:40]!a} is not a position in PostgreSQL's log", field="after") from None


async def _ask(database: Database, sql: NamedQuery) -> int | None:
    """The position that a server reports, within two seconds."""
    async with asyncio.timeout(_ANSWER_SECONDS):
        connection = await database.connect()
        try:
            with database.observation.timed((sql, None)), translated():
                cursor = await driver_of(connection).execute(sql)
                row = await cursor.fetchone()
        except BaseException:
            await discard(connection)
            raise
        await database.give_back(connection)
    return None if row is None or row[0] is None else parse_position(row[0])


class ServerCounters:
    """What has been done with the primary and with its replicas since they were opened.

    Args:
        primary: what is written to.
        replicas: what is read from as well.
        observing: count; otherwise only what the pools know is known.
    """

    def __init__(self, primary: Database, replicas: Sequence[Database], *, observing: bool) -> None:
        self.databases = {PRIMARY: primary} | {_place(replica): replica for replica in replicas}
        """``primary``, whichever server that is, and the replicas by host and port."""
        self.statements = StatementCounters()
        self.by_server = {server: DatabaseCounters(self.statements) for server in self.databases}
        if observing:
            for server, database in self.databases.items():
                database.observation.add(self.by_server[server])

    @property
    def primary(self) -> DatabaseCounters:
        """Those of the primary."""
        return self.by_server[PRIMARY]

    @property
    def replicas(self) -> list[str]:
        """The names of the replicas, in the order in which they were given."""
        return [server for server in self.databases if server != PRIMARY]


def _place(database: Database) -> str:
    return f"{database.address.url.host}:{database.address.url.port}"
