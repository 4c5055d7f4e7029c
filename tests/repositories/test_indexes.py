"""Every index has a query of ours that uses it; one that has none does not belong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from data_layer import DataLayer
from data_layer.database.driver import DriverConnection
from data_layer.entities import Entity
from data_layer.entities.enums import AuditCategory, AuditLevel
from data_layer.errors import NotFoundError
from data_layer.repositories.project_search import Scope, Wanted
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.audit import AuditFilter
from data_layer.schemas.usage import UsageGroup
from tests.support import ALLOW_CHANGES, REFUSE_CHANGES, make_user

SOMEONE = make_user().id
DAY = timedelta(days=1)

# Two indexes begin with user_id: only with rows is one of them better.
FILL_PROJECTS = text("""
WITH owner AS (
    INSERT INTO users (id, email, first_name, last_name) VALUES (:owner, 'a@example.com', 'A', 'B')
    RETURNING id
)
INSERT INTO projects (id, user_id, name, status)
SELECT gen_random_uuid(), owner.id, 'Project', (ARRAY['draft', 'active', 'completed', 'archived'])[1 + n % 4]
FROM owner, generate_series(1, 1000) AS n
""").bindparams(owner=SOMEONE)


async def sums(
    tx: UnitOfWork, user_id: UUID | None = None, project_id: UUID | None = None, by: UsageGroup = UsageGroup.MODEL
) -> Any:
    today = date(2026, 11, 29)
    return await tx.usage.sums(
        [by], user_id=user_id, project_id=project_id, first_day=today - 9 * DAY, last_day=today, limit=9
    )


async def audit_page(tx: UnitOfWork, **wanted: Any) -> Any:
    filter_ = AuditFilter(until=datetime(2026, 11, 29, tzinfo=UTC), **wanted)
    return await tx.audit.page(filter_, ["id"], limit=9, after=None, newest_first=True)


async def without_result(reading: Awaitable[object]) -> None:
    with suppress(NotFoundError):
        await reading


FILL_USAGE = text("""
INSERT INTO usage_entries (id, user_id, key, provider, model, outcome)
SELECT gen_random_uuid(), :owner, n, 'p', 'm', 'failed' FROM generate_series(1, 1000) AS n
""").bindparams(owner=SOMEONE)

QUERIES: dict[str, Callable[[UnitOfWork], Awaitable[Any]]] = {
    # By one column alone: PostgreSQL 18 can also skip through another index that has the second one.
    "uq_generated_codes_generation_id_variant_index": lambda tx: tx.codes.count(generation_id=SOMEONE),
    "uq_file_references_public_name": lambda tx: without_result(tx.files.public_view("name.png")),
    "uq_file_references_asset_name": lambda tx: without_result(tx.files.public_view("name.png")),
    "uq_file_references_address_hash_project_id": lambda tx: tx.files.find_asset("0" * 64),
    "ix_file_references_earlier_names": lambda tx: tx.files.projects_showing(SOMEONE, names=["name.png"], limit=9),
    "uq_file_references_public_file_id": lambda tx: tx.files.published(SOMEONE),
    "ix_idempotency_keys_created_at": lambda tx: tx.idempotency_keys.remove_old(limit=9),
    "uq_api_keys_key_hash": lambda tx: tx.api_keys.find_account("0" * 64),
    "ix_api_keys_user_id_id": lambda tx: tx.api_keys.of_user(SOMEONE, 9, None),
    "ix_second_factors_user_id_id": lambda tx: tx.second_factors.confirmed(SOMEONE),
    "uq_second_factors_credential_id": lambda tx: tx.second_factors.count(credential_id=b"id"),
    "ix_mails_next_attempt_at": lambda tx: tx.mails.claim(DAY),
    "ix_mails_user_id_id": lambda tx: tx.mails.page(user_id=SOMEONE, limit=9),
    "uq_exports_user_id": lambda tx: tx.exports.unfinished(SOMEONE),
    "ix_exports_next_attempt_at": lambda tx: tx.exports.claim(DAY, most=3),
    "ix_exports_user_id_id": lambda tx: tx.exports.list(user_id=SOMEONE, order_by="-id"),
    "ix_exports_storage_key": lambda tx: tx.stored_files.used_in_rows(["exports/a.zip"]),
    "uq_users_email": lambda tx: tx.users.find_one(email="Someone@Example.com"),
    "ix_users_role_id": lambda tx: tx.users.lock_admins(),
    "uq_users_azure_id": lambda tx: tx.users.find_one(azure_id="a"),
    "uq_users_google_id": lambda tx: tx.users.find_one(google_id="a"),
    "uq_users_github_id": lambda tx: tx.users.find_one(github_id="a"),
    "uq_user_identities_issuer_subject": lambda tx: tx.identities.find_account("https://issuer.example", "s"),
    "uq_user_identities_user_id_issuer": lambda tx: tx.identities.count(user_id=SOMEONE),
    "ix_users_preferences": lambda tx: tx.users.count(preferences={"theme": "dark"}),
    "ix_projects_user_id_status": lambda tx: tx.projects.count(user_id=SOMEONE, status="archived"),
    "ix_projects_user_id_updated_at": lambda tx: tx.projects.list(user_id=SOMEONE, order_by="-updated_at"),
    "ix_projects_updated_at_id": lambda tx: tx.projects.recent(limit=9, is_deleted=False),
    "ix_projects_deleted_at": lambda tx: tx.projects.remove_deleted(datetime.now(UTC), limit=10),
    "ix_projects_settings": lambda tx: tx.projects.count(settings={"language": "en"}),
    "ix_projects_tags": lambda tx: tx.projects.count(tags=["pricing"]),
    "ix_projects_search_vector": lambda tx: tx.projects.search("pricing page"),
    "ix_project_search_vector": lambda tx: tx.project_search.find(
        Wanted("'=pricing'", "'=pricing':AB"), Scope(is_everything=True), after=None, limit=20
    ),
    "uq_generated_codes_project_id_version_variant_index": lambda tx: tx.codes.summaries(SOMEONE),
    "uq_generations_project_id_number": lambda tx: tx.generations.find_one(project_id=SOMEONE, number=3),
    "uq_generations_external_source_external_key": lambda tx: tx.generations.find_one(
        external_source="app", external_key="key"
    ),
    "ix_generations_wanted_parent_hash": lambda tx: tx.generations.count(
        project_id=SOMEONE, wanted_parent_hash="0" * 64
    ),
    "ix_generations_created_by": lambda tx: tx.generations.count(created_by=SOMEONE),
    "uq_generation_events_code_id_sequence": lambda tx: tx.generation_events.find_one(code_id=SOMEONE, sequence=1),
    "ix_generated_codes_lease_until": lambda tx: tx.codes.count(lease_until=datetime.now(UTC)),
    "ix_generated_codes_project_id_created_at": lambda tx: tx.codes.list(project_id=SOMEONE, order_by="-created_at"),
    "ix_generated_codes_project_id_trimmed_hash": lambda tx: tx.codes.count(project_id=SOMEONE, trimmed_hash=b"0" * 32),
    "ix_generated_codes_project_id_body": lambda tx: tx.code_bodies.count_orphans(),
    "ix_generated_codes_unpacked": lambda tx: tx.code_bodies.unpacked(None, 9),
    "ix_code_bodies_project_id_base": lambda tx: tx.code_bodies.count_orphans(),
    "ix_generated_codes_parent_id": lambda tx: tx.codes.count(parent_id=SOMEONE),
    "ix_generated_codes_status": lambda tx: tx.codes.count(status="pending"),
    "ix_generated_codes_provider": lambda tx: tx.codes.count(provider="claude"),
    "ix_generated_codes_code_stack": lambda tx: tx.codes.count(code_stack="svg"),
    "ix_generated_codes_metrics": lambda tx: tx.codes.count(metrics={"tokens": 1}),
    "ix_generated_images_project_id": lambda tx: tx.images.count(project_id=SOMEONE),
    "uq_usage_entries_user_id_key": lambda tx: tx.usage.find_one(user_id=SOMEONE, key="k"),
    "ix_usage_entries_user_id_id": lambda tx: tx.usage.list(user_id=SOMEONE, order_by="-id"),
    "ix_usage_entries_project_id_id": lambda tx: tx.usage.list(project_id=SOMEONE, order_by="-id"),
    "ix_usage_days_day": lambda tx: sums(tx, by=UsageGroup.PROJECT),
    "ix_usage_totals_day": sums,
    "ix_usage_days_project_id_day": lambda tx: sums(tx, project_id=SOMEONE),
    "uq_budgets_user_id_currency": lambda tx: tx.budgets.state(SOMEONE, "USD"),
    "ix_budget_reservations_budget_id": lambda tx: tx.budgets.state(SOMEONE, "USD"),
    "uq_shares_token_hash": lambda tx: tx.shares.open("0" * 64),
    "ix_shares_project_id_id": lambda tx: tx.shares.list(project_id=SOMEONE),
    "ix_shares_code_id": lambda tx: tx.shares.count(code_id=SOMEONE),
    "ix_design_systems_user_id_id": lambda tx: tx.designs.list(user_id=SOMEONE),
    "uq_sessions_session_id": lambda tx: tx.sessions.find_one(session_id="hash"),
    "ix_sessions_user_id_status": lambda tx: tx.sessions.count(user_id=SOMEONE, status="active"),
    "ix_sessions_expires_at": lambda tx: tx.sessions.list(order_by="expires_at"),
    "uq_refresh_tokens_token_hash": lambda tx: tx.refresh_tokens.find_one(token_hash="hash"),
    "ix_refresh_tokens_session_id": lambda tx: tx.refresh_tokens.count(session_id=SOMEONE),
    "ix_refresh_tokens_expires_at": lambda tx: tx.refresh_tokens.list(order_by="expires_at"),
    "ix_audit_logs_user_id_id": lambda tx: tx.audit.list(user_id=SOMEONE, order_by="-id"),
    "ix_audit_logs_action_id": lambda tx: tx.audit.list(action="user_login", order_by="-id"),
    "ix_audit_logs_level_id": lambda tx: audit_page(tx, levels=(AuditLevel.CRITICAL,)),
    "ix_audit_logs_category_id": lambda tx: audit_page(tx, categories=(AuditCategory.SECURITY,)),
    "ix_audit_logs_resource_type_resource_id": lambda tx: tx.audit.count(resource_type="project", resource_id="1"),
    "ix_audit_logs_correlation_id": lambda tx: tx.audit.count(correlation_id="c"),
    "ix_audit_logs_context": lambda tx: tx.audit.count(context={"a": 1}),
    "uq_stored_files_key": lambda tx: tx.stored_files.known(["files/a"]),
    "uq_stored_files_owner_id_sha256_content_type": lambda tx: tx.files.find_same(SOMEONE, "0" * 64, "image/png"),
    "ix_stored_files_parent_id": lambda tx: tx.stored_files.count(parent_id=SOMEONE),
    "ix_stored_files_unreferenced": lambda tx: tx.stored_files.unreferenced(older_than=DAY, after=None, limit=9),
    "ix_stored_files_thumbnails_pending": lambda tx: tx.stored_files.without_thumbnails(older_than=DAY, limit=9),
    "ix_stored_files_unfinished": lambda tx: tx.stored_files.half_deleted(older_than=DAY, limit=9),
    "ix_file_references_file_id": lambda tx: tx.files.count(file_id=SOMEONE),
    "ix_file_references_owner_id_id": lambda tx: tx.files.views(owner_id=SOMEONE),
    "ix_file_references_project_id": lambda tx: tx.files.count(project_id=SOMEONE),
    "ix_file_references_code_id": lambda tx: tx.files.count(code_id=SOMEONE),
    "ix_file_references_image_id": lambda tx: tx.files.count(image_id=SOMEONE),
    "ix_file_references_expires_at": lambda tx: tx.files.count_expired(),
}


async def test_each_index_has_a_query_here(data: DataLayer) -> None:
    async with data.transaction() as tx:
        names = await tx.execute(
            text(
                "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND indexname NOT LIKE 'pk_%' "
                "AND tablename = ANY(:tables)"
            ).bindparams(tables=list(Entity.metadata.tables))
        )
    assert set(names.scalars()) == set(QUERIES)


def name_in_plan(index: str) -> str:
    """Of a partitioned table each partition has its part of the index, under a name that PostgreSQL gave it."""
    if not index.startswith("ix_audit_logs_"):
        return index
    return f"{index.replace('ix_audit_logs', 'audit_logs_default')}_idx"


async def test_each_query_uses_its_index(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with data.transaction() as tx:
        await forget_earlier_tests(tx)
        await tx.execute(FILL_PROJECTS)
        await tx.execute(FILL_USAGE)
        await tx.execute(text("ANALYZE projects, usage_entries"))
        # With a handful of rows PostgreSQL rightly reads whole tables; here only what it could do counts.
        await tx.execute(text("SET LOCAL enable_seqscan = off"))
        await tx.execute(text("SET LOCAL enable_sort = off"))
        for index in QUERIES:
            [(statement, parameters)] = await statements_of(data, tx, index, monkeypatch)
            plan = await (await tx.orm()).run_sync(partial(explain, statement=statement, parameters=parameters))
            assert name_in_plan(index) in plan, (index, plan)


async def forget_earlier_tests(tx: UnitOfWork) -> None:
    """Give the tables no pages and no statistics: with those of earlier tests two indexes may seem equally good."""
    tables = ", ".join(Entity.metadata.tables)
    await tx.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in (ALLOW_CHANGES, f"TRUNCATE {tables}", REFUSE_CHANGES):
        await tx.execute(text(statement))
    await tx.execute(text("SET LOCAL session_replication_role = origin"))
    await tx.execute(
        text("DELETE FROM pg_statistic WHERE starelid::regclass::text = ANY(:tables)").bindparams(
            tables=list(Entity.metadata.tables)
        )
    )


async def statements_of(
    data: DataLayer, tx: UnitOfWork, index: str, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, Any]]:
    """What the query for an index sends, by SQLAlchemy or past it."""
    statements: list[tuple[str, Any]] = []
    execute = DriverConnection.execute

    def remember(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    async def execute_and_remember(self: DriverConnection, statement: str, parameters: Any = None) -> Any:
        statements.append((statement, tuple(parameters)))
        return await execute(self, statement, parameters)

    event.listen(data.database.engine.sync_engine, "before_cursor_execute", remember)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(DriverConnection, "execute", execute_and_remember)
            await QUERIES[index](tx)
    finally:
        event.remove(data.database.engine.sync_engine, "before_cursor_execute", remember)
    return statements


def explain(session: Session, *, statement: str, parameters: Any) -> str:
    plan = session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
    return "\n".join(plan)
