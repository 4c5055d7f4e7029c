"""Which server each hot statement would ask if projects and people were distributed over several.

The tables of a database are divided by hash of the key that each would have (`distribution.py`), and the services work
on it as they do elsewhere. A statement that names its key reads one partition of each table, which PostgreSQL's planner
decides and not this test: in its place stands what an engine such as Citus does with servers.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import event, make_url

from data_layer import DataLayer, Settings
from data_layer.database.driver import DriverConnection
from data_layer.database.statements import NamedQuery, StatementNames
from data_layer.entities import Entity
from data_layer.entities.enums import ApiScope, AuditAction, GenerationProvider
from data_layer.entities.triggers import NOTE_SEARCH_CHANGE
from data_layer.errors import DatabaseError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import (
    CodePiece,
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    VariantEvent,
    VariantModel,
    VariantResult,
)
from data_layer.schemas.images import NewImage
from data_layer.schemas.lineage import ReceivedGeneration, ReceivedVariant
from data_layer.schemas.projects import ProjectChanges, ProjectDraft
from data_layer.schemas.usage import NewUsage
from data_layer.testing.hash_partitions import partition_by_hash
from tests.database.distribution import (
    BY_ID_ONLY,
    BY_PERSON,
    BY_PROJECT,
    KEYS,
    NAMES_NO_PERSON,
    NEEDS_A_KEY,
    ON_ONE_SERVER,
    SERVERS,
    asked_everywhere,
    explain,
    tables_of,
)
from tests.file_content import picture
from tests.hateful_values import NOW
from tests.support import make_user

CLAUDE = VariantModel(provider=GenerationProvider.CLAUDE, name="m")

WRITTEN = """
CREATE TABLE written (transaction xid8 NOT NULL, name text NOT NULL, key uuid);
CREATE FUNCTION note_written() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO written VALUES (
        pg_current_xact_id(), TG_ARGV[0],
        ((CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END) ->> TG_ARGV[1])::uuid
    );
    RETURN NULL;
END
$body$;
"""
NOTE_WRITTEN = """
CREATE TRIGGER zz_note_written AFTER INSERT OR UPDATE OR DELETE ON {table}
FOR EACH ROW EXECUTE FUNCTION note_written('{table}', '{key}')
"""


class Sent(NamedTuple):
    """A statement, and for whom it was sent."""

    name: str
    sql: str
    parameters: Any
    person: UUID


@dataclass(frozen=True)
class Place:
    """A database whose tables are divided, and how to reach it."""

    settings: Settings
    url: str


@pytest.fixture(scope="module")
def place(migrated: Settings, servers: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The divided tables, in a database of their own."""
    given = make_url(servers[0])
    name = f"{given.database}_divided"
    url = given.set(database=name).render_as_string(hide_password=False)
    settings = migrated.replaced(database_url=url, local_storage_path=tmp_path_factory.mktemp("uploads"))

    async def prepare() -> None:
        async with DataLayer(settings, prepare=True):
            pass

    asyncio.run(prepare())
    with psycopg.connect(url) as connection:
        partition_by_hash(connection, KEYS, SERVERS)
        # A trigger knows its row by the partition's name: this function would have to be given the table's.
        searched = NOTE_SEARCH_CHANGE.create.replace("TG_TABLE_NAME", "regexp_replace(TG_TABLE_NAME, '_[0-9]$', '')")
        for statement in (searched, WRITTEN, *(NOTE_WRITTEN.format(table=table, key=KEYS[table]) for table in KEYS)):
            connection.execute(statement.encode())
    yield Place(settings, url)
    with psycopg.connect(servers[0], autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def statements_of(data: DataLayer, person: UUID) -> Iterator[list[Sent]]:
    """What is sent inside, by SQLAlchemy or past it."""
    sent: list[Sent] = []
    execute = DriverConnection.execute
    names = StatementNames()

    def remember(_connection: Any, _cursor: Any, statement: str, parameters: Any, context: Any, *_: Any) -> None:
        sent.append(Sent(names.of(context), statement, parameters, person))

    async def execute_and_remember(self: DriverConnection, query: Any, params: Any = None, **options: Any) -> Any:
        if isinstance(query, NamedQuery):
            sent.append(Sent(query.name, query, params, person))
        return await execute(self, query, params, **options)

    event.listen(data.database.engine.sync_engine, "before_cursor_execute", remember)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DriverConnection, "execute", execute_and_remember)
        yield sent
    event.remove(data.database.engine.sync_engine, "before_cursor_execute", remember)


async def work(data: DataLayer, person: UUID) -> None:
    """What requests of a person do."""
    me = Actor.user(person)
    session_id = await use_sessions(data, me, person)
    project_id = await use_projects(data, me)
    await use_finished_generations(data, me, project_id)
    await use_streams(data, me, project_id)
    await use_versions(data, me, project_id)
    await use_copies(data, me, project_id)
    await use_files(data, person, project_id)
    await use_images_and_shares(data, me, project_id)
    await use_ledger(data, me, person, project_id)
    async with data.idempotency.once(person, str(uuid4())):
        pass
    data.audit.record_soon(AuditAction.USER_LOGOUT, "Logged out", user_id=person)
    await data.audit.flush()
    await data.sessions.revoke(me, session_id)


async def use_sessions(data: DataLayer, me: Actor, person: UUID) -> UUID:
    begun = await data.sessions.create(person)
    await data.sessions.validate(begun.token.get_secret_value())
    await data.cache.flush()
    session_id = begun.session.id
    await data.sessions.validate_id(session_id)
    await data.sessions.read_data(session_id)
    await data.sessions.write_data(session_id, {"a": 1}, version=0)
    await data.sessions.extend(session_id, timedelta(minutes=1))
    await data.sessions.touch(session_id)
    await data.sessions.list(me, person)
    pair = await data.tokens.issue(begun.session)
    await data.tokens.refresh(pair.refresh_token.get_secret_value())
    key = await data.api_keys.create(me, name="a", scopes=[ApiScope.READ])
    await data.api_keys.authenticate(key.secret.get_secret_value())
    return session_id


async def use_projects(data: DataLayer, me: Actor) -> UUID:
    project = await data.projects.create(me, ProjectDraft(name="Landing page", tags=["a"]))
    await data.projects.open(me, project.id)
    await data.projects.list(me)
    await data.projects.search(me, "landing")
    await data.projects.update(me, project.id, ProjectChanges(name="Pricing page"), expected=project.revision)
    await data.projects.archive(me, project.id)
    await data.projects.unarchive(me, project.id)
    await data.projects.delete(me, project.id)
    await data.projects.restore(me, project.id)
    await data.designs.create(me, name="a", content="b")
    await data.designs.list(me)
    return project.id


async def use_finished_generations(data: DataLayer, me: Actor, project_id: UUID) -> None:
    result = VariantResult(prompt_tokens=1, cost=Decimal(1))
    variant = FinishedVariant(code="<p>", model=CLAUDE, result=result)
    await data.generations.record(me, project_id, GenerationRequest(prompt="a"), [variant])
    finished = FinishedGeneration(request=GenerationRequest(), variants=(variant,))
    await data.generations.import_many(me, project_id, [finished])
    received = ReceivedGeneration(
        key="k", source=f"of {me.user_id}", at=NOW, variants=(ReceivedVariant(index=0, code="a"),)
    )
    await data.generations.receive(me, received, project_id=project_id)
    await data.generations.find_parent(me, received, project_id=project_id)


async def use_streams(data: DataLayer, me: Actor, project_id: UUID) -> None:
    generations, request = data.generations, GenerationRequest(prompt="b")
    started = await generations.start(me, project_id, request, [CLAUDE, CLAUDE, CLAUDE])
    token = started.writer_token
    await generations.append(me, token, 0, 1, CodePiece("<p>"), VariantEvent("thinking", {}))
    await generations.renew(me, token)
    await generations.store(me, token)
    await generations.report_usage(me, token, 0, VariantResult(prompt_tokens=1, cost=Decimal(1)))
    await generations.complete(me, token, 0)
    await generations.fail(me, token, 1, "failed")
    await generations.cancel(me, started.id, 2)
    async for _ in generations.follow(me, started.id):
        pass
    await generations.select(me, started.id, 0)
    await generations.open(me, started.id)
    await generations.open_variant(me, started.variant_ids[0])
    await generations.mark_favorite(me, started.variant_ids[0])
    await generations.rate(me, started.variant_ids[0], stars=5)
    await generations.count_copy(me, started.variant_ids[0])
    taken = await generations.start(me, project_id, request, [CLAUDE])
    await generations.take_over(me, taken.id)
    await generations.cancel(me, taken.id)


async def use_versions(data: DataLayer, me: Actor, project_id: UUID) -> None:
    await data.cache.flush()
    await data.generations.history(me, project_id)
    await data.generations.version(me, project_id, 1)
    await data.generations.latest(me, project_id)
    await data.generations.diff(me, project_id, 1, 2)
    await data.generations.tree(me, project_id)


async def use_copies(data: DataLayer, me: Actor, project_id: UUID) -> None:
    await data.generations.restore(me, project_id, 1)
    await data.generations.fork(me, project_id, 1)
    await data.projects.clone(me, project_id)


async def use_files(data: DataLayer, person: UUID, project_id: UUID) -> None:
    attached_to = Attachment(project_id=project_id)
    file = await data.files.save(picture("PNG"), owner_id=person, attached_to=attached_to)
    await data.files.list(owner_id=person)
    await data.files.list(owner_id=person, attached_to=attached_to)
    await data.files.stat(file.id, owner_id=person)
    await data.files.download(file.id, owner_id=person)
    await data.files.url(file.id, owner_id=person)
    await data.files.detach(file.id, attached_to, owner_id=person)
    loose = await data.files.save(picture("GIF"), owner_id=person)
    await data.files.delete(loose.id, owner_id=person)


async def use_images_and_shares(data: DataLayer, me: Actor, project_id: UUID) -> None:
    image = await data.images.record(me, project_id, NewImage(), picture("PNG"))
    await data.images.open(me, image.id)
    await data.images.list(me, project_id)
    await data.images.download(me, image.id)
    await data.images.rate(me, image.id, stars=5)
    share = await data.shares.create(me, project_id, version=1)
    await data.shares.list(me, project_id)
    await data.shares.open(share.token.get_secret_value())
    await data.shares.revoke(me, share.share.id)


async def use_ledger(data: DataLayer, me: Actor, person: UUID, project_id: UUID) -> None:
    await data.usage.record(me, NewUsage(key="k", provider="openai", model="m", project_id=project_id))
    await data.usage.entries(me)
    await data.usage.sums(me)
    await data.usage.set_budget(SYSTEM, person, Decimal(1000), is_new=True)
    await data.usage.budget(me)
    reservation = await data.usage.reserve(me, Decimal(1))
    await data.usage.extend(me, reservation)
    await data.usage.settle(me, reservation, NewUsage(key="r", provider="openai", model="m"))


@pytest.fixture(scope="module")
def sent(place: Place) -> Sequence[Sent]:
    """What was sent for two people."""

    async def send() -> Sequence[Sent]:
        found: list[Sent] = []
        for person in (make_user(), make_user()):
            # What is collected and written in batches is written at the end, so that it is one person's here.
            async with DataLayer(place.settings) as data:
                async with data.transaction() as tx:
                    tx.add(person)
                with statements_of(data, person.id) as sent:
                    await work(data, person.id)
            found += sent
        return found

    return asyncio.run(send())


@pytest.fixture
def connection(place: Place) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(place.url, autocommit=True) as connection:
        yield connection


def where(connection: psycopg.Connection[Any], sent: Iterable[Sent]) -> Mapping[str, set[str]]:
    """The tables that each statement asks everywhere, for those that read or write a divided table."""
    found: dict[str, set[str]] = {}
    texts = {(each.name, each.sql): each.parameters for each in sent}
    for (name, sql), parameters in texts.items():
        if sql.split(None, 1)[0] in {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"}:
            plan = explain(connection, sql, parameters)
            if tables_of(plan):
                found.setdefault(name, set()).update(asked_everywhere(plan))
    return found


def test_each_table_has_a_place() -> None:
    assert sorted([*BY_PROJECT, *BY_PERSON, *NEEDS_A_KEY, *ON_ONE_SERVER]) == sorted(Entity.metadata.tables)
    for table, key in KEYS.items():
        assert key in Entity.metadata.tables[table].columns
    for table, key in NEEDS_A_KEY.items():
        assert key not in Entity.metadata.tables[table].columns


def test_each_statement_names_its_key(connection: psycopg.Connection[Any], sent: Sequence[Sent]) -> None:
    """Or stands in one of two lists: the caller cannot know the key, or does not pass it on yet."""
    found = where(connection, sent)
    assert {name for name, tables in found.items() if tables} == NAMES_NO_PERSON.keys() | BY_ID_ONLY


async def hottest(data: DataLayer, me: Actor) -> AsyncIterator[tuple[str, Awaitable[object]]]:
    """The requests that are sent most often, each to be carried out before the next one."""
    assert me.user_id
    project = await data.projects.create(me, ProjectDraft(name="Landing page"))
    request, variant = GenerationRequest(prompt="a"), FinishedVariant(code="<p>", model=CLAUDE, result=VariantResult())
    yield "save", data.generations.record(me, project.id, request, [variant])
    yield "open", data.projects.open(me, project.id)
    yield "history", data.generations.history(me, project.id)
    yield "version", data.generations.version(me, project.id, 1)
    yield "latest", data.generations.latest(me, project.id)
    yield "tree", data.generations.tree(me, project.id)
    yield "update", data.projects.update(me, project.id, ProjectChanges(name="Pricing page"), expected=None)
    yield "start", data.generations.start(me, project.id, request, [CLAUDE])
    started = await data.generations.start(me, project.id, request, [CLAUDE])
    await data.generations.append(me, started.writer_token, 0, 1, CodePiece("<p>"))
    yield "store", data.generations.store(me, started.writer_token)
    yield "session", data.sessions.create(me.user_id)
    yield "file", data.files.save(picture("PNG"), owner_id=me.user_id)
    yield "usage", data.usage.record(me, NewUsage(key="hot", provider="openai", model="m"))
    yield "sums", data.usage.sums(me)


async def test_the_hottest_requests_ask_one_server(place: Place, connection: psycopg.Connection[Any]) -> None:
    """Of each kind: one for the project, and one for its owner."""
    found: dict[str, Mapping[str, set[str]]] = {}
    person = make_user()
    async with DataLayer(place.settings) as data:
        async with data.transaction() as tx:
            tx.add(person)
        async for name, request in hottest(data, Actor.user(person.id)):
            await data.cache.flush()
            with statements_of(data, person.id) as sent:
                await request
            found[name] = where(connection, sent)
    assert [name for name, statements in found.items() if not statements] == []
    assert {name: tables for name, statements in found.items() if (tables := set().union(*statements.values()))} == {}


async def test_what_is_unique_without_the_key_is_not_inserted(place: Place) -> None:
    """The page on growth names this as one of the things that would have to change."""
    person = make_user()
    async with DataLayer(place.settings) as data:
        async with data.transaction() as tx:
            tx.add(person)
        file = await data.files.save(picture("PNG"), owner_id=person.id)
        with pytest.raises(DatabaseError, match="ON CONFLICT"):
            await data.files.publish(file.id, owner_id=person.id)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("project_id = %(project)s AND number = 1", set()),
        ("number = 1", {"generations"}),
        ("id = %(project)s", {"generations"}),
        ("project_id <> %(project)s", {"generations"}),
        ("project_id = ANY (%(projects)s)", {"generations"}),
        ("project_id = (SELECT id FROM projects WHERE id = %(project)s)", set()),
        ("project_id = (SELECT id FROM projects LIMIT 1)", {"projects"}),
        ("EXISTS (SELECT FROM projects WHERE id = project_id AND user_id = %(project)s)", {"projects"}),
        ("project_id = %(project)s AND id IN (SELECT id FROM generations WHERE number = 1)", {"generations"}),
    ],
)
def test_a_missing_key_is_noticed(connection: psycopg.Connection[Any], condition: str, expected: set[str]) -> None:
    values = {"project": uuid4(), "projects": [uuid4() for _ in range(20)]}
    plan = explain(connection, f"SELECT id FROM generations WHERE {condition}", values)
    assert asked_everywhere(plan) == expected


def people_of(connection: psycopg.Connection[Any]) -> Mapping[UUID, UUID]:
    """Whose each thing is, by its id."""
    owners: dict[UUID, UUID] = dict(connection.execute("SELECT id, user_id FROM projects").fetchall())
    for table, key in KEYS.items():
        if "id" in Entity.metadata.tables[table].columns and table != "projects":
            for thing, whose in connection.execute(f"SELECT id, {key} FROM {table}".encode()).fetchall():
                if whose is not None:
                    owners[thing] = owners.get(whose, whose)
    return owners


def strangers(connection: psycopg.Connection[Any]) -> Sequence[set[str]]:
    """The tables of each transaction that has written what belongs to more than one person."""
    owners = people_of(connection)
    people: dict[int, set[UUID]] = defaultdict(set)
    tables: dict[int, set[str]] = defaultdict(set)
    for transaction, table, key in connection.execute("SELECT transaction::text::int8, name, key FROM written"):
        if key is not None:
            people[transaction].add(owners.get(key, key))
            tables[transaction].add(table)
    return [tables[each] for each, found in people.items() if len(found) > 1]


@pytest.mark.usefixtures("sent")
def test_no_transaction_writes_what_belongs_to_two_people(connection: psycopg.Connection[Any]) -> None:
    """What the triggers write is in it."""
    [(transactions, tables)] = connection.execute(
        "SELECT count(DISTINCT transaction), count(DISTINCT name) FROM written"
    )
    assert transactions > 100
    assert tables > 15
    assert strangers(connection) == []
    with connection.transaction(force_rollback=True):
        connection.execute("UPDATE projects SET view_count = view_count + 1")
        assert strangers(connection) == [{"projects"}]


def ids_in(value: Any) -> Iterator[UUID]:
    """The ids among the values of a statement."""
    match value:
        case UUID():
            yield value
        case str() if len(value) == 36 and value.count("-") == 4:
            yield UUID(value)
        case Mapping():
            yield from ids_in(list(value.values()))
        case list() | tuple() | set():
            for each in value:
                yield from ids_in(each)


def test_no_request_of_a_person_names_what_belongs_to_another(
    connection: psycopg.Connection[Any], sent: Sequence[Sent]
) -> None:
    owners = people_of(connection)
    named = [(each, whose) for each in sent for thing in ids_in(each.parameters) if (whose := owners.get(thing))]
    assert len(named) > 500
    assert len({whose for _, whose in named}) == 2
    assert [each.name for each, whose in named if whose != each.person] == []
