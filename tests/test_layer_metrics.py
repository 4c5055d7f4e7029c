"""Everything that the parts count is reported, under names that Prometheus likes, in a number of series that stays."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import timedelta

import pytest
from pydantic import SecretStr

from data_layer import AuditAction, DataLayer, Settings, StorageKind
from data_layer.errors import DuplicateError, FileNotFoundInStorageError, InvalidSessionError, PoolTimeoutError
from data_layer.observability.metrics.snapshots import Series, Snapshot, render
from data_layer.services.sessions.hashing import make_token
from data_layer.testing.storage_servers import RcloneServer
from tests.storage_servers import bucket_settings
from tests.support import make_code, make_project, make_user, until

CONVENTION = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
NO_BASE_UNITS = {"ms", "milliseconds", "minutes", "kilobytes", "megabytes", "percent", "mb", "kb"}


def metric(data: DataLayer, family: str, **labels: str) -> float:
    """The sum of the samples with these labels: of a histogram how often something was measured."""
    found = data.metrics.snapshot()[f"data_layer_{family}"]
    wanted = {"_count"} if found.type == "histogram" else {"_total", ""}
    return sum(
        value
        for (name, pairs), value in found.samples.items()
        if name.removeprefix(found.name) in wanted and labels.items() <= dict(pairs).items()
    )


def series(snapshot: Snapshot) -> set[Series]:
    return {sample for family in snapshot.values() for sample in family.samples}


async def work(data: DataLayer, number: int) -> None:
    """What a user does, with names, keys and words of its own."""
    user, cache_key, storage_key = make_user(), f"user:{number}", f"images/{number}.txt"
    project = make_project(user)
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)
        tx.add(make_code(project))
    async with data.transaction() as tx:
        assert await tx.users.find_one(email=user.email)
    await data.cache.set(cache_key, "x" * 5000, 60)
    await data.cache.get(cache_key)
    await data.cache.get(cache_key)
    await data.cache.get(f"missing:{number}")
    await data.storage.upload(b"content", storage_key, "text/plain")
    await data.storage.download(storage_key)
    with suppress(FileNotFoundInStorageError):
        await data.storage.download(f"missing/{number}")
    token = (await data.sessions.create(user.id)).token.get_secret_value()
    await data.sessions.validate(token)
    with suppress(InvalidSessionError):
        await data.sessions.validate(make_token())
    data.audit.record_soon(AuditAction.USER_LOGIN, f"User {number} logged in", user_id=user.id)
    with suppress(DuplicateError):
        async with data.transaction() as tx:
            tx.add(make_user(email=user.email))
    await data.audit.flush()


async def test_users_and_keys_make_no_series(data: DataLayer) -> None:
    await work(data, 0)
    before = series(data.metrics.snapshot())
    for number in range(1, 12):
        await work(data, number)
    after = series(data.metrics.snapshot())
    # What runs in the background may have used another statement for the first time.
    new = {name: dict(labels) for name, labels in after - before}
    assert all(name.startswith("data_layer_database_statement_") for name in new), new
    assert all(re.fullmatch(r"[a-z_.]+", labels["statement"]) for labels in new.values()), new
    assert before <= after
    values = {value for _, labels in after for _, value in labels}
    assert not [value for value in values if " " in value or "@" in value], "neither SQL nor addresses"


async def test_names_follow_the_convention(data: DataLayer) -> None:
    await work(data, 0)
    for name, family in data.metrics.snapshot().items():
        assert CONVENTION.fullmatch(name), name
        assert name.startswith(("data_layer_", "process_", "python_")), name
        assert family.documentation.strip(), name
        assert not NO_BASE_UNITS & set(name.split("_")), name
        assert family.type not in name.split("_"), f"{name}: the type is no part of the name"
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), name
        if family.type == "histogram":
            assert name.endswith(("_seconds", "_bytes")), f"{name}: the unit is missing"
        for _, labels in family.samples:
            assert all(CONVENTION.fullmatch(label) for label, _ in labels), labels


async def test_reads_of_the_cache_by_who_had_the_value(data: DataLayer) -> None:
    await until(lambda: metric(data, "cache_near_answering") == 1)
    await data.cache.set("key", "x" * 5000, 60)
    await data.cache.get("key")
    await data.cache.get("key")
    await data.cache.get("key")
    await data.cache.get("nothing")
    by_result = {result: metric(data, "cache_reads", result=result) for result in ("near_hit", "far_hit", "miss")}
    assert by_result == {"near_hit": 2, "far_hit": 1, "miss": 1}
    assert metric(data, "cache_round_trip_seconds") >= 3
    assert metric(data, "cache_compression_saved_bytes") > 4000
    assert metric(data, "cache_near_entries") == 1
    assert metric(data, "cache_breaker_state", state="closed") == 1
    assert metric(data, "cache_breaker_state") == 1


async def test_a_broken_cache_shows(settings: Settings) -> None:
    nowhere = settings.replaced(redis_url=SecretStr("redis://127.0.0.1:1"))
    async with DataLayer(nowhere) as data:
        for _ in range(10):
            with suppress(Exception):
                await data.cache.get("key")
        assert metric(data, "cache_failures") >= 5
        assert metric(data, "cache_breaker_state", state="closed") == 0
        assert metric(data, "cache_breaker_state") == 1


async def test_operations_of_the_storage(data: DataLayer) -> None:
    before = metric(data, "storage_operation_seconds", operation="upload")
    await data.storage.upload(b"content", "a.txt", "text/plain")
    await data.storage.download("a.txt")
    assert metric(data, "storage_operation_seconds", backend="local", operation="upload") == before + 1
    assert metric(data, "storage_operation_seconds", operation="download") == 1
    assert metric(data, "storage_operation_seconds", operation="copy") == 0, "it is there before it happens"
    assert metric(data, "storage_bytes", backend="local", direction="in") == 7
    assert metric(data, "storage_bytes", direction="out") == 7
    with suppress(Exception):
        await data.storage.signed_url("a.txt", expires_in=timedelta(days=365))
    errors = metric(data, "storage_errors", operation="signed_url")
    with pytest.raises(Exception, match=r"."):
        await data.storage.upload(b"content", "../a.txt", "text/plain")
    assert metric(data, "storage_errors") == errors + 1


async def test_the_second_storage_is_counted_too(settings: Settings, rclone_server: RcloneServer) -> None:
    update = {"storage_second_backend": "s3"} | bucket_settings(rclone_server)
    async with DataLayer(settings.replaced(**update)) as data:
        second = data.files._backends.of(StorageKind.S3)
        await second.upload(b"content", "a.txt", "text/plain")
        assert metric(data, "storage_operation_seconds", backend="s3", operation="upload") == 1
        assert metric(data, "storage_bytes", backend="s3", direction="in") == 7


async def test_sessions_by_who_answered(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    token = (await data.sessions.create(user.id)).token.get_secret_value()

    async def validate_until(result: str) -> None:
        async with asyncio.timeout(30):
            await data.sessions.validate(token)
            while not metric(data, "session_validations", result=result):
                await asyncio.sleep(0.01)
                await data.sessions.validate(token)

    await validate_until("database")
    await validate_until("near")
    assert metric(data, "session_copies") >= 1
    data.sessions._copies.near.clear()
    await validate_until("redis")
    for refused in (make_token(), "nonsense"):
        with pytest.raises(InvalidSessionError):
            await data.sessions.validate(refused)
    assert metric(data, "session_validations", result="refused") == 2


async def test_audit_entries_by_what_became_of_them(data: DataLayer) -> None:
    data.audit.record_soon(AuditAction.USER_LOGIN, "User logged in")
    assert metric(data, "audit_entries_waiting") == 1
    await data.audit.flush()
    assert metric(data, "audit_entries", outcome="written") == 1
    assert metric(data, "audit_entries") == 1
    assert metric(data, "audit_entries_waiting") == 0


async def test_statements_by_their_names(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    for _ in range(3):
        async with data.transaction() as tx:
            assert await tx.users.get(user.id)
    with pytest.raises(DuplicateError):
        async with data.transaction() as tx:
            tx.add(make_user(email=user.email))
    assert metric(data, "database_statement_seconds", statement="users.select") == 3
    assert metric(data, "database_statement_seconds", statement="users.insert") == 2
    assert metric(data, "database_statement_errors", statement="users.insert", code="duplicate") == 1
    assert metric(data, "database_statement_errors") == 1


ENDS = ("committed", "rolled_back")


async def test_transactions_by_their_end(data: DataLayer) -> None:
    before = {outcome: metric(data, "database_transactions", outcome=outcome) for outcome in ENDS}
    async with data.transaction() as tx:
        tx.add(make_user())
    with pytest.raises(ZeroDivisionError):
        async with data.transaction() as tx:
            tx.add(make_user())
            await tx.flush()
            _ = 1 / 0
    after = {outcome: metric(data, "database_transactions", outcome=outcome) for outcome in ENDS}
    assert {outcome: after[outcome] - before[outcome] for outcome in after} == {"committed": 1, "rolled_back": 1}


async def test_the_pool_and_those_who_wait_for_it(settings: Settings) -> None:
    small = settings.replaced(db_max_connections=1, db_min_connections=1, db_pool_timeout=1.5)
    async with DataLayer(small) as data:

        async def read() -> None:
            async with data.transaction() as tx:
                await tx.users.find_one(email="nobody@example.com")

        async with data.transaction() as tx:
            await tx.users.find_one(email="nobody@example.com")
            assert metric(data, "database_pool_connections", server="primary", state="in_use") == 1
            assert metric(data, "database_pool_max_connections") == 1
            waits = metric(data, "database_pool_wait_seconds")
            waiting = asyncio.create_task(read())
            await until(lambda: metric(data, "database_pool_waiting") == 1)
            with pytest.raises(PoolTimeoutError):
                await waiting
        assert metric(data, "database_pool_waiting") == 0
        assert metric(data, "database_pool_timeouts") == 1
        assert metric(data, "database_pool_wait_seconds") == waits + 1
        assert metric(data, "database_pool_connections", state="in_use") == 0


async def test_a_replica_that_is_gone_shows(settings: Settings) -> None:
    async with DataLayer(settings.replaced(db_replica_hosts="127.0.0.1:1")) as data:
        assert metric(data, "database_replica_used", server="127.0.0.1:1") == 0
        (lag,) = data.metrics.snapshot()["data_layer_database_replica_lag_seconds"].samples.values()
        assert lag != lag, "nobody knows"  # noqa: PLR0124  (NaN)
        assert metric(data, "database_pool_max_connections", server="127.0.0.1:1") > 0


async def test_an_application_may_declare_before_it_opens(settings: Settings) -> None:
    data = DataLayer(settings)
    rendered = data.metrics.counter("pages_rendered", "Pages drawn.")
    assert "data_layer_database_transactions" not in data.metrics.snapshot()
    async with data:
        rendered.inc()
        content, _ = render(data.metrics.snapshot())
    assert b"\npages_rendered_total 1.0\n" in content
    assert b"\ndata_layer_workers 1.0\n" in content
    assert b'data_layer_build_info{environment="testing",' in content
