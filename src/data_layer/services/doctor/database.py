"""Whether PostgreSQL can be reached and logged in to, and in which order it is looked at."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from data_layer.errors import DatabaseMissingError
from data_layer.repositories.diagnostics.server import read_identity, read_server
from data_layer.services.doctor import database_activity, database_schema, database_server, database_topology
from data_layer.services.doctor.checks import Check, Verdict, failed, nothing_yet, ok, unknown_place
from data_layer.services.doctor.network import reach, some_suffice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from data_layer.database.address import DatabaseAddress
    from data_layer.services.doctor.database_patient import DatabasePatient

    Locate = Callable[[], Awaitable[DatabaseAddress | Verdict]]

PART = "database"
_START_SECONDS = 60.0


def database_checks(patient: DatabasePatient, locate: Locate | None) -> list[Check]:
    """The checks of PostgreSQL, those first that others need.

    Args:
        patient: what is found out is kept there.
        locate: says where it is, after starting it if it is embedded; or that there is none yet. None: the settings do
            not say where it is.
    """
    address, login, schema = ("address",), ("login",), ("schema",)

    def check(name: str, look: Callable[[DatabasePatient], Awaitable[Verdict | list[Verdict]]], *needs: str) -> Check:
        return Check(PART, name, partial(look, patient), needs)

    start = Check(PART, "server", partial(_locate, patient, locate), time_limit=_limit_of_start(patient))
    return [
        start,
        check("address", _reach, "server"),
        check("login", _log_in, *address),
        check("primary", database_server.judge_role_of_server, *login),
        check("version", database_server.judge_version, *login),
        check("tls", database_server.judge_encryption, *login),
        check("role", database_server.judge_role, *login),
        check("durability", database_server.judge_durability, *login),
        check("encoding", database_server.judge_encoding, *login),
        check("connections", database_server.judge_connections, *login),
        check("time_limits", database_server.judge_timeouts, *login),
        check("clock", database_server.judge_clock, *login),
        check("extensions", database_server.judge_extensions, *login),
        check("pooler", database_topology.judge_pooler, *login),
        check("direct_address", database_topology.judge_direct_address, *login),
        check("replicas", database_topology.judge_replicas, *login),
        check("schema", database_schema.judge_schema, *login),
        check("rights", database_schema.judge_rights, *schema),
        check("migration_rights", database_schema.judge_migration_rights, *schema),
        check("audit_months", database_schema.judge_audit_months, *schema),
        check("transaction_age", database_activity.judge_ages, *login),
        check("long_transactions", database_activity.judge_transactions, *login),
        check("locks", database_activity.judge_locks, *login),
        check("replication_slots", database_activity.judge_slots, *login),
        check("size", database_activity.judge_size, *login),
    ]


def _limit_of_start(patient: DatabasePatient) -> float | None:
    return max(_START_SECONDS, patient.time_limit) if patient.settings.uses_embedded_database else None


async def _locate(patient: DatabasePatient, locate: Locate | None) -> Verdict:
    if locate is None:
        return unknown_place("PostgreSQL")
    found = await locate()
    if isinstance(found, Verdict):
        return found
    patient.use(found)
    kind = "embedded PostgreSQL" if patient.settings.uses_embedded_database else "the settings name"
    return ok(f"{kind} {patient.database.address}")


async def _reach(patient: DatabasePatient) -> list[Verdict]:
    seconds = min(patient.settings.db_connect_timeout, patient.time_limit)
    setting = "DB_HOST and DB_PORT" if patient.settings.database_url is None else "DATABASE_URL"
    return some_suffice(await reach(patient.places, setting, seconds))


async def _log_in(patient: DatabasePatient) -> Verdict:
    try:
        identity = await read_identity(patient.database)
    except DatabaseMissingError:
        if not patient.settings.uses_embedded_database:
            raise
        return nothing_yet("the embedded server does not have the database yet; the next start makes it")
    facts = await read_server(patient.database)
    patient.introduce(facts, identity)
    if facts.is_read_only and not facts.is_standby:
        return failed(
            f"{facts.user} is logged in, but may only read: default_transaction_read_only is on",
            f'ALTER ROLE "{facts.user}" RESET default_transaction_read_only, or the same for the database or server',
        )
    return ok(f"{facts.user} is logged in to the database {facts.database}")
