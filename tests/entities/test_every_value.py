"""Any value in any field of any entity: stored and read back equal, or refused with an error that names the field."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import string
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from itertools import count, product
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, select, text
from sqlalchemy.dialects.postgresql import INET
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import (
    AuditLog,
    Budget,
    DesignSystem,
    Entity,
    FileReference,
    GeneratedCode,
    GeneratedImage,
    Generation,
    GenerationEvent,
    Project,
    RefreshToken,
    Session,
    Share,
    StoredFile,
    UsageEntry,
    User,
)
from data_layer.entities.enums import (
    AuditAction,
    AuditCategory,
    GenerationProvider,
    ImageProvider,
    StorageKind,
    UsageOutcome,
)
from data_layer.errors import DataLayerError, InvalidValueError, MissingReferenceError
from tests.support import made, make_code, make_project, make_user

NOW = datetime(2026, 11, 29, 4, 20, tzinfo=UTC)
CURRENCIES = product(string.ascii_uppercase, repeat=3)


class Text(str):
    """A text of a subclass, as libraries hand out."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


def nested(levels: int) -> Any:
    value: Any = "inside"
    for _ in range(levels):
        value = {"a": value}
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


CORNERS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400),
    *(0.0, -0.0, 0.5, -0.5, 1e16, 1.2345678901234567e19, 1e23, 1e308, 5e-324, math.nan, math.inf, -math.inf),
    *("", " ", "a", "ä" * 100, "x" * 256, "\0", "a\0b", "\ud800", "\U0001f600", "data:image/png;base64,AA", Text("a")),
    *("a@example.com", "127.0.0.1", "::1", "::ffff:1.2.3.4", "fe80::1%eth0", "1.2.3.4/8", "active", "1024x1024"),
    *(b"", b"bytes", Decimal(1), Decimal("NaN"), 1j, object(), date(2026, 1, 1), timedelta(1)),
    *(datetime(2026, 1, 1), NOW, NOW.astimezone(timezone(timedelta(hours=-12)))),  # noqa: DTZ001  (without a zone)
    *(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
    *(UUID(int=0), uuid4(), str(uuid4()), AuditAction.USER_LOGIN, StorageKind.LOCAL, ipaddress.ip_address("::1")),
    *({}, [], (), set(), frozenset(), {"a": 1}, ["a"], ["a", 1], [{}], [None], ("a",), {"a"}),
    *({1: "a", "1": "b"}, {None: 1}, {"a": {1}}, {"a": (1,)}, {"a": math.nan}, {"a": [math.inf]}, {"a": NOW}),
    *({"a\0": 1}, {"a": "\0"}, {"\ud800": 1}, {"a": ["\udfff"]}, {"a": 2**64}, {"a": 10**5000}, {"a": 1e23}),
    *({"a": 1.2345678901234567e19}, {"a": -0.0}, {"a": 5e-324}, {"a": b"b"}, {"a": Decimal(1)}, {Text("k"): Text("v")}),
    *(nested(50), nested(98), nested(101), nested(2000), cyclic(), [["a"]], "x" * 6_000_000, {"a": "x" * 6_000_000}),
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.uuids()
times = st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates() | st.timedeltas()
keys = st.text() | st.integers() | st.booleans() | st.none()
anything = st.recursive(
    scalars | times | st.decimals() | st.integers(0, len(CORNERS) - 1).map(lambda number: CORNERS[number]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


class Rows:
    """Builds a valid row of each kind, whose parents are stored."""

    def __init__(self, user: User, project: Project, code: GeneratedCode, session: Session, file: StoredFile) -> None:
        owner = {"owner_id": user.id}
        numbers = count()
        self.kinds: dict[type[Entity], Callable[..., Entity]] = {
            User: make_user,
            Project: lambda **values: make_project(**{"user_id": user.id} | values),
            GeneratedCode: lambda **values: (
                make_code(project, **values)
                if "project_id" not in values
                else made(GeneratedCode, values, code="x", provider=GenerationProvider.OPENAI, model="m")
            ),
            Generation: lambda **values: made(Generation, values, project_id=project.id),
            GenerationEvent: lambda **values: made(
                GenerationEvent, values, code_id=code.id, sequence=next(numbers), kind="k"
            ),
            GeneratedImage: lambda **values: made(
                GeneratedImage,
                values,
                project_id=project.id,
                prompt="p",
                provider=ImageProvider.DALLE3,
                model="m",
                size="1024x1024",
            ),
            Session: lambda **values: made(
                Session, values, session_id=uuid4().hex, user_id=user.id, expires_at=NOW + timedelta(days=3650)
            ),
            AuditLog: lambda **values: made(
                AuditLog, values, action=AuditAction.USER_LOGIN, category=AuditCategory.AUTHENTICATION, description="d"
            ),
            DesignSystem: lambda **values: made(DesignSystem, values, user_id=user.id, name="n", content="c"),
            Share: lambda **values: made(Share, values, project_id=project.id, token_hash=uuid4().hex),
            Budget: lambda **values: made(
                Budget,
                values,
                user_id=user.id,
                currency="".join(next(CURRENCIES)),
                monthly_limit=Decimal(1),
            ),
            UsageEntry: lambda **values: made(
                UsageEntry,
                values,
                user_id=user.id,
                key=uuid4().hex,
                provider="openai",
                model="m",
                outcome=UsageOutcome.COMPLETED,
            ),
            RefreshToken: lambda **values: made(
                RefreshToken, values, token_hash=uuid4().hex, session_id=session.id, expires_at=NOW
            ),
            StoredFile: lambda **values: StoredFile(
                **owner
                | {"backend": StorageKind.LOCAL, "key": uuid4().hex, "content_type": "image/png"}
                | {"size": 1, "original_size": 1}
                | values
            ),
            FileReference: lambda **values: FileReference(**owner | {"file_id": file.id} | values),
        }


KINDS = [
    *(
        User,
        Project,
        Generation,
        GenerationEvent,
        GeneratedCode,
        GeneratedImage,
        DesignSystem,
        Session,
        AuditLog,
        RefreshToken,
    ),
    *(StoredFile, FileReference, UsageEntry, Budget, Share),
]


@pytest.fixture
async def rows(data: DataLayer) -> Rows:
    user = make_user()
    project = make_project(user)
    session = Session(session_id=uuid4().hex, user_id=user.id, expires_at=NOW + timedelta(days=3650))
    file = StoredFile(
        owner_id=user.id, backend=StorageKind.LOCAL, key="k", content_type="image/png", size=1, original_size=1
    )
    code = make_code(project)
    async with data.transaction() as tx:
        for entity in (user, project, code, session, file):
            tx.add(entity)
    return Rows(user, project, code, session, file)


def fields_of(kind: type[Entity]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init]


def same(kind: type[Entity], name: str, stored: Any, given: Any) -> bool:
    """Whether what was read is what was given; addresses have several spellings, and None leaves it to a default."""
    column = inspect(kind).column_attrs[name].columns[0]
    if isinstance(column.type, INET) and given is not None:
        address = ipaddress.ip_address(str(given).partition("%")[0])
        return ipaddress.ip_address(str(stored)) in {address, getattr(address, "ipv4_mapped", None)}
    if column.info.get("format") == "email":
        return bool(stored.lower() == str.__str__(given).lower())
    if given is None and not column.nullable:
        return stored is not None
    return bool(stored == given)


async def store(data: DataLayer, entity: Entity) -> None:
    async with data.transaction() as tx:
        tx.add(entity)


async def read(data: DataLayer, entity: Entity, name: str) -> Any:
    """The value of a column as it is stored, also of one that is not loaded with its row."""
    kind: Any = type(entity)
    async with data.transaction() as tx:
        found = await tx._session.get(kind, entity.id)
        loaded = name not in inspect(found).unloaded
        return (
            getattr(found, name)
            if loaded
            else (await tx.execute(select(getattr(kind, name)).where(kind.id == entity.id))).scalar_one()
        )


def refused(error: DataLayerError, name: str) -> bool:
    """Whether an error is of a kind that says which field is to blame."""
    column = name.removesuffix("_")
    return getattr(error, "field", None) in {name, column} or name in str(error)


async def refusal(work: Callable[[], Coroutine[Any, Any, None]]) -> DataLayerError | None:
    """The typed error of a piece of work; any other error is a failure of the test."""
    try:
        await work()
    except DataLayerError as error:
        return error
    return None


async def take_public_names_back(data: DataLayer) -> None:
    """An object has one, and all these files share an object."""
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE file_references SET public_name = NULL"))


async def try_value(data: DataLayer, make: Callable[..., Entity], kind: type[Entity], name: str, value: Any) -> None:
    made: list[Entity] = []
    await take_public_names_back(data)

    async def work() -> None:
        made.append(make(**{name: value}))
        await store(data, made[0])

    error = await refusal(work)
    if error is not None:
        assert refused(error, name), (name, repr(value)[:100], error)
        return
    found = await read(data, made[0], name)
    assert same(kind, name, found, value), (name, repr(value)[:100], found)
    assert same(kind, name, found, getattr(made[0], name)), (name, repr(value)[:100], found)


async def try_corners(data: DataLayer, make: Callable[..., Entity], kind: type[Entity], name: str) -> None:
    """Each corner in a row of its own: all at once where the database takes them, for speed, else one by one."""
    made: list[tuple[Any, Entity]] = []
    for value in CORNERS:
        try:
            made.append((value, make(**{name: value})))
        except DataLayerError:
            await try_value(data, make, kind, name, value)

    async def work() -> None:
        async with data.transaction() as tx:
            for _, entity in made:
                tx.add(entity)

    if await refusal(work) is None:
        for value, entity in made:
            found = await read(data, entity, name)
            assert same(kind, name, found, value), (name, repr(value)[:100], found)
    else:
        for value, _ in made:
            await try_value(data, make, kind, name, value)


@pytest.mark.parametrize("kind", KINDS)
async def test_corners_in_new_rows(data: DataLayer, rows: Rows, kind: type[Entity]) -> None:
    for name in fields_of(kind):
        await try_corners(data, rows.kinds[kind], kind, name)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {AuditLog, UsageEntry}])
async def test_corners_in_stored_rows(data: DataLayer, rows: Rows, kind: Any) -> None:
    entity = rows.kinds[kind]()
    await store(data, entity)
    for name in fields_of(kind):
        before = await read(data, entity, name)
        for value in CORNERS if name != "id" else ():
            error = await refusal(partial(change, data, entity, name, value))
            if error is None:
                before = await read(data, entity, name)
                assert same(kind, name, before, value), (name, repr(value)[:100])
            else:
                assert refused(error, name), (name, repr(value)[:100], error)
        assert await read(data, entity, name) == before


async def change(data: DataLayer, entity: Entity, name: str, value: Any) -> None:
    kind: Any = type(entity)
    async with data.transaction() as tx:
        setattr(await tx._session.get(kind, entity.id), name, value)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(chosen=st.data())
async def test_anything_in_new_rows(data: DataLayer, rows: Rows, kind: type[Entity], chosen: st.DataObject) -> None:
    name = chosen.draw(st.sampled_from(fields_of(kind)))
    await try_value(data, rows.kinds[kind], kind, name, chosen.draw(anything))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_only_the_database_fills_in_cannot_be_assigned(rows: Rows, kind: type[Entity]) -> None:
    entity = rows.kinds[kind]()
    for field in dataclasses.fields(kind):
        if not field.init:
            with pytest.raises(InvalidValueError) as raised:
                setattr(entity, field.name, 1)
            assert raised.value.field == field.name


async def test_the_ids_of_others_are_checked_by_the_database(data: DataLayer) -> None:
    with pytest.raises(MissingReferenceError):
        await store(data, make_project(user_id=uuid7()))
