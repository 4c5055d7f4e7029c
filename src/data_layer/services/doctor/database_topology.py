"""What stands between this process and PostgreSQL, and which other servers belong to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from data_layer.database.address import direct_address, replica_addresses
from data_layer.errors import DatabaseError
from data_layer.repositories.diagnostics.activity import measure_lag
from data_layer.repositories.diagnostics.server import read_identity
from data_layer.schemas.doctor import Outcome
from data_layer.services.doctor.checks import Verdict, failed, of_error, ok, warning
from data_layer.services.doctor.database_patient import places_of
from data_layer.services.doctor.network import reach

if TYPE_CHECKING:
    from data_layer.database.address import DatabaseAddress
    from data_layer.services.doctor.database_patient import DatabasePatient

_REPLICA_ADVICE = "until it is back, reads go to the others and to the primary; see its log"


async def judge_pooler(patient: DatabasePatient) -> Verdict:
    """Whether DB_PGBOUNCER says what is there."""
    is_pooled, says_so = patient.identity.is_pooled, patient.settings.db_pgbouncer
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


async def judge_direct_address(patient: DatabasePatient) -> Verdict:
    """Whether migrations and notifications find a way past the pooler."""
    settings = patient.settings
    if settings.db_direct_url is None:
        if not settings.db_pgbouncer:
            return ok("not needed without a pooler")
        return warning(
            "DB_DIRECT_URL is not set: migrations are refused, and ended sessions are heard of a second later",
            "set DB_DIRECT_URL to an address that avoids PgBouncer",
        )
    async with patient.another(direct_address(settings)) as database:
        identity = await read_identity(database)
    if identity.is_pooled:
        return failed("DB_DIRECT_URL leads through a pooler too", "name PostgreSQL itself there")
    if (identity.started_at, identity.database) != (patient.identity.started_at, patient.identity.database):
        return failed(
            "DB_DIRECT_URL leads to another server or database: migrations would change the wrong one",
            "name the server and database behind the pooler there",
        )
    if identity.is_standby:
        return failed("DB_DIRECT_URL leads to a standby, where nothing can be migrated", "name the primary there")
    return ok("it leads to the same database, without a pooler")


async def judge_replicas(patient: DatabasePatient) -> list[Verdict]:
    """Whether each replica can be read from, and how far it is behind."""
    if not patient.settings.db_replica_hosts:
        return [ok("none are named in DB_REPLICA_HOSTS")]
    addresses = replica_addresses(patient.settings)
    return list(await asyncio.gather(*(_judge_replica(patient, address) for address in addresses)))


async def _judge_replica(patient: DatabasePatient, address: DatabaseAddress) -> Verdict:
    ((host, port),) = places = places_of(address)
    name = f"the replica {host}:{port}"
    # Less than the whole check has, so that a silent one does not hide the others.
    patience = min(patient.settings.db_connect_timeout, patient.time_limit / 3)
    (reached,) = await reach(places, "DB_REPLICA_HOSTS", patience)
    if reached.outcome is Outcome.FAILED:
        return warning(f"the replica {reached.meaning}", _REPLICA_ADVICE)
    maximum = min(patient.settings.db_replica_max_lag, patient.time_limit / 3)
    try:
        async with asyncio.timeout(2 * patient.time_limit / 3), patient.another(address) as database:
            if not (await read_identity(database)).is_standby:
                return warning(f"{name} is no replica but a primary, and is not read from", "correct DB_REPLICA_HOSTS")
            if patient.facts.is_standby:
                return ok(f"{name} answers; how far it is behind only a primary could tell")
            lag = await measure_lag(patient.database, database, maximum)
    except DatabaseError as error:
        verdict = of_error(error)
        return warning(f"{name}: {verdict.meaning}", verdict.advice or _REPLICA_ADVICE)
    except TimeoutError:
        return warning(f"{name} takes connections and does not answer", _REPLICA_ADVICE)
    if lag is None:
        return warning(
            f"{name} is more than {maximum:g} s behind, and is not read from until it has caught up",
            "see whether its replay is paused, its disk slow, or a long query there holds it back",
        )
    return ok(f"{name} showed within {lag * 1000:.0f} ms what the primary had")
