"""Whether the tables are those of this version, and may be used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from data_layer.database.schema_state import SchemaStatus
from data_layer.errors import SchemaMismatchError
from data_layer.repositories.audit_partitions import Month
from data_layer.repositories.diagnostics.schema import (
    read_audit_months,
    read_missing_rights,
    read_ownership,
    read_schema_name,
)
from data_layer.services.doctor.checks import Verdict, failed, nothing_yet, of_error, ok, warning

if TYPE_CHECKING:
    from data_layer.services.doctor.database_patient import DatabasePatient


async def judge_schema(patient: DatabasePatient) -> Verdict:
    """Whether the tables are there, and as this version needs them."""
    name, search_path = await read_schema_name(patient.database)
    if name is None:
        return failed(
            f"{patient.facts.user} may use no schema of the search path ({search_path})",
            f'GRANT USAGE ON SCHEMA public TO "{patient.facts.user}", or set its search_path',
        )
    state = await patient.database.schema()
    if patient.settings.uses_embedded_database and state.state in {SchemaStatus.EMPTY, SchemaStatus.BEHIND}:
        return nothing_yet("the embedded database is behind this version; the next start of the service migrates it")
    try:
        state.require_current()
    except SchemaMismatchError as error:
        return of_error(error)
    return ok(f"the schema {name} is at revision {state.revision}, which this version needs")


async def judge_rights(patient: DatabasePatient) -> list[Verdict]:
    """Whether the service may read and write its tables."""
    user = patient.facts.user
    missing = await read_missing_rights(patient.database)
    if not missing:
        return [ok(f"{user} may read and write all tables")]
    return [
        failed(f"{user} lacks {rights} on {table}", f'as its owner: GRANT {rights} ON {table} TO "{user}"')
        for table, rights in missing.items()
    ]


async def judge_migration_rights(patient: DatabasePatient) -> Verdict:
    """Who can migrate, and make months of the audit trail; another role may well do both."""
    may_create, owns_tables, owns_partitions = await read_ownership(patient.database)
    user = patient.facts.user
    if may_create and owns_tables:
        return ok(f"{user} may also run migrations and maintenance")
    if not (may_create and owns_partitions):
        return ok(
            f"{user} cannot run migrations or maintenance: let the owner run `data-layer db migrate` and, monthly, "
            "`data-layer maintenance run`"
        )
    return ok(f"{user} cannot run migrations: let the owner of the tables run `data-layer db migrate`")


async def judge_audit_months(patient: DatabasePatient) -> list[Verdict]:
    """Whether the audit trail has a partition for this month and the next."""
    months, has_strays = await read_audit_months(patient.database)
    this = Month.of(datetime.now(UTC))
    missing = [str(month) for month in (this, this.plus(1)) if month not in months]
    found = []
    if missing:
        found.append(
            warning(
                f"the audit trail has no partition for {' and '.join(missing)}; entries go into the default one, and "
                "nothing is lost",
                "run: data-layer maintenance run, as the service does regularly; see why it has not",
            )
        )
    if has_strays:
        found.append(
            warning(
                "entries of the audit trail lie in its default partition, where they are never removed",
                "run: data-layer maintenance run",
            )
        )
    return found or [ok(f"partitions of the audit trail reach to {months[-1]}")]
