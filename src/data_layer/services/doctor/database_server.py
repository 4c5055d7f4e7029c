"""What kind of server answers, and whether it is set up well."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from data_layer.config import SslMode
from data_layer.database.address import session_values
from data_layer.database.administration import EXTENSIONS
from data_layer.repositories.diagnostics.server import (
    read_clock_difference,
    read_collation_versions,
    read_extensions,
    read_timeouts,
)
from data_layer.services.doctor.checks import Verdict, failed, ok, warning
from data_layer.services.doctor.clocks import judge_difference

if TYPE_CHECKING:
    from data_layer.services.doctor.database_patient import DatabasePatient

# The oldest that the tests run with, and when each gets its last update (https://www.postgresql.org/support/versioning/).
_OLDEST = 15
_ENDS = {
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
_SOON = timedelta(days=180)
_KNOWS_COLLATION_VERSIONS = 150_000
_FEW = 0.9


async def judge_role_of_server(patient: DatabasePatient) -> Verdict:
    """Whether it takes writes."""
    if patient.facts.is_standby:
        return failed(
            "this server is a standby, which refuses every write",
            "name the primary in DB_HOST or DATABASE_URL, or all servers separated by commas; or promote this one",
        )
    names, followers = patient.facts.synchronous_standbys, patient.facts.followers
    if names and not followers and patient.facts.synchronous_commit not in {"off", "local"}:
        return failed(
            f"every commit waits for ever: synchronous_standby_names is {names!r} and no standby is connected",
            "bring the standby back, or empty synchronous_standby_names and reload",
        )
    return ok(f"it is the primary, followed by {followers} other servers")


async def judge_version(patient: DatabasePatient) -> Verdict:
    """Whether it is tested, and still gets updates."""
    major, version = patient.facts.version_number // 10_000, patient.facts.version.split()[0]
    if major < _OLDEST:
        return warning(
            f"PostgreSQL {version} is older than the oldest that is tested, {_OLDEST}, and gets no more updates",
            "upgrade the server",
        )
    end = _ENDS.get(major)
    if end is not None and datetime.now(UTC).date() > end - _SOON:
        return warning(f"PostgreSQL {version} gets no more updates after {end}", "plan to upgrade the server")
    return ok(f"PostgreSQL {version}" + (f", which gets updates until {end}" if end else ""))


async def judge_encryption(patient: DatabasePatient) -> Verdict:
    """Whether somebody in between could read or change what travels."""
    if all(host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"} for host, _ in patient.places):
        return ok(f"{'encrypted' if patient.identity.is_encrypted else 'not encrypted'}, and it stays on this machine")
    if not patient.identity.is_encrypted:
        return warning(
            "the connection is not encrypted: passwords and data can be read on their way",
            "set DB_SSL=verify-full, and DB_SSL_CA if the authority is your own",
        )
    if patient.ssl_mode is SslMode.VERIFY_FULL:
        return ok("encrypted, and the server's certificate and name are verified")
    if patient.ssl_mode is SslMode.VERIFY_CA:
        return warning("encrypted, but not the server's name is verified", "set DB_SSL=verify-full")
    return warning(
        f"encrypted, but with DB_SSL={patient.ssl_mode.value} nobody verifies who answers",
        "set DB_SSL=verify-full, and DB_SSL_CA if the authority is your own",
    )


async def judge_role(patient: DatabasePatient) -> list[Verdict]:
    """Whether the user may do more than is needed, or soon nothing any more."""
    facts, found = patient.facts, []
    if facts.is_superuser and not patient.settings.uses_embedded_database:
        found.append(
            warning(
                f"{facts.user} is a superuser: a hole in the application would open the whole server",
                "log in as a role of its own that owns only this database",
            )
        )
    if facts.password_ends is not None:
        found.append(
            warning(f"the login of {facts.user} ends on {facts.password_ends}", "ALTER ROLE … VALID UNTIL a later day")
        )
    own = " of the embedded server, which only this account reaches" if facts.is_superuser else ""
    return found or [ok(f"{facts.user} is {'the superuser' if facts.is_superuser else 'no superuser'}{own}")]


async def judge_durability(patient: DatabasePatient) -> list[Verdict]:
    """Whether what was committed survives a crash."""
    facts, found = patient.facts, []
    for name, is_on in (("fsync", facts.fsync), ("full_page_writes", facts.full_page_writes)):
        if not is_on:
            found.append(warning(f"{name} is off: a crash can destroy the database", f"set {name} = on, and reload"))
    if facts.synchronous_commit == "off":
        found.append(
            warning(
                "synchronous_commit is off: a crash loses the last moments of what users were told is stored",
                "set synchronous_commit = on for this role, database or server",
            )
        )
    return found or [ok(f"what is committed survives a crash (synchronous_commit = {facts.synchronous_commit})")]


async def judge_encoding(patient: DatabasePatient) -> list[Verdict]:
    """Whether all text can be stored, and indexes are sorted as they were made."""
    facts = patient.facts
    if facts.encoding != "UTF8":
        return [
            failed(
                f"the database is in {facts.encoding} and cannot store every text",
                "make one in UTF8, as `data-layer db create` does, and move the data with pg_dump",
            )
        ]
    if facts.version_number >= _KNOWS_COLLATION_VERSIONS:
        recorded, actual = await read_collation_versions(patient.database)
        if recorded is not None and actual is not None and recorded != actual:
            return [
                warning(
                    f"indexes were made with collation version {recorded} and the system now has {actual}: searches "
                    "may miss rows, and unique values come twice",
                    f'REINDEX DATABASE "{facts.database}", then ALTER DATABASE … REFRESH COLLATION VERSION',
                )
            ]
    return [ok(f"UTF8, sorted by {facts.collation}")]


async def judge_connections(patient: DatabasePatient) -> list[Verdict]:
    """Whether the pool finds its connections."""
    facts, wanted = patient.facts, patient.settings.db_max_connections + patient.settings.workers
    if patient.identity.is_pooled:
        return [ok("a pooler hands them out; its own limits count, which only its operator sees")]
    limits = {
        "max_connections": facts.max_connections - facts.reserved_connections - facts.further_reserved_connections,
        f'the limit of the role "{facts.user}"': facts.role_limit,
        f'the limit of the database "{facts.database}"': facts.database_limit,
    }
    found = [
        warning(
            f"one process may want {wanted} connections, and {name} leaves {limit}: some calls would fail under load",
            "lower DB_MAX_CONNECTIONS, or raise the limit on the server",
        )
        for name, limit in limits.items()
        if 0 <= limit < wanted
    ]
    usable = limits["max_connections"]
    if facts.connections > _FEW * usable:
        found.append(
            warning(
                f"{facts.connections} of {usable} connections are in use at this moment",
                "find out who holds them in pg_stat_activity; lower DB_MAX_CONNECTIONS, or raise max_connections",
            )
        )
    if found:
        return found
    room = f"one process takes {wanted} at most, so there is room for {usable // wanted}"
    return [ok(f"{usable} can be used and {facts.connections} are; {room}")]


async def judge_timeouts(patient: DatabasePatient) -> list[Verdict]:
    """Whether the limits that each connection asks for are in force, and no others hurt."""
    limits, found = await read_timeouts(patient.database), []
    if not patient.settings.db_pgbouncer and "statement_timeout" in session_values(patient.settings):
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
                    f"{name} is {limit['setting']} {limit['unit']} (from {limit['source']}): it ends connections that "
                    "are in order",
                    f'ALTER ROLE "{patient.facts.user}" SET {name} = 0',
                )
            )
    seconds = patient.settings.db_statement_timeout
    return found or [ok(f"a statement may take {seconds:g} s, an idle transaction {2 * seconds:g} s")]


async def judge_clock(patient: DatabasePatient) -> Verdict:
    """Whether both clocks agree."""
    difference, uncertainty = await read_clock_difference(patient.database)
    return judge_difference(difference, uncertainty, "PostgreSQL's")


async def judge_extensions(patient: DatabasePatient) -> list[Verdict]:
    """Whether what would be useful is there; nothing is needed."""
    there = await read_extensions(patient.database, list(EXTENSIONS))
    return [_judge_extension(name, there.get(name)) for name in EXTENSIONS]


def _judge_extension(name: str, is_installed: bool | None) -> Verdict:  # noqa: FBT001  (one of three answers)
    if is_installed is None:
        return ok(f"the server does not have {name}; statistics of statements are missing, nothing else")
    if is_installed:
        return ok(f"{name} is installed")
    return warning(
        f"{name} is not installed: slow statements cannot be found",
        f"CREATE EXTENSION {name}, as a superuser, with the server's shared_preload_libraries = '{name}'",
    )
