"""Any value in any field of any entity: stored and read back equal, or refused with an error that names the field."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import string
from collections.abc import Callable, Coroutine
from datetime import timedelta
from decimal import Decimal
from functools import partial
from itertools import count, product
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, select, text
from sqlalchemy.dialects.postgresql import INET
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import (
    ApiKey,
    AuditLog,
    Budget,
    DesignSystem,
    Entity,
    Export,
    FileReference,
    GeneratedCode,
    GeneratedImage,
    Generation,
    GenerationEvent,
    Mail,
    Project,
    RefreshToken,
    SecondFactor,
    Session,
    Share,
    StoredFile,
    UsageEntry,
    User,
    UserIdentity,
)
from data_layer.entities.enums import (
    AuditAction,
    AuditCategory,
    ExportStatus,
    FactorKind,
    GenerationProvider,
    ImageProvider,
    MailKind,
    StorageKind,
    UsageOutcome,
)
from data_layer.errors import DataLayerError, InvalidValueError, MissingReferenceError
from tests.hateful_values import CORNERS, NOW, anything
from tests.support import made, make_code, make_project, make_user

pytestmark = pytest.mark.slow

CURRENCIES = product(string.ascii_uppercase, repeat=3)


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
            ApiKey: lambda **values: made(
                ApiKey, values, user_id=user.id, name="key", prefix="dl_abcde", key_hash=uuid4().hex
            ),
            SecondFactor: lambda **values: made(
                SecondFactor, values, user_id=user.id, kind=FactorKind.TOTP, name="app", secret=b"secret"
            ),
            UserIdentity: lambda **values: made(
                UserIdentity, values, user_id=user.id, issuer=f"https://{uuid4().hex}.example", subject=uuid4().hex
            ),
            Mail: lambda **values: made(
                Mail, values, user_id=user.id, kind=MailKind.ADDRESS_TAKEN, message_id="<m@x>", expires_at=NOW
            ),
            Export: lambda **values: made(Export, values, user_id=user.id, status=ExportStatus.FAILED),
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
    *(StoredFile, FileReference, UsageEntry, Budget, Share, Mail),
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
    """Whether an error says which field is to blame: as an attribute, or as a word of its own in its message."""
    column = name.removesuffix("_")
    return getattr(error, "field", None) in {name, column} or re.search(rf"\b{column}\b", str(error)) is not None


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


def corners_of(number: int) -> list[Any]:
    """A tenth of the corners, the next field another tenth: columns of each type meet all, in a tenth of the time."""
    return CORNERS[number % 10 :: 10]


async def try_corners(
    data: DataLayer, make: Callable[..., Entity], kind: type[Entity], name: str, corners: list[Any]
) -> None:
    """Each corner in a row of its own: all at once where the database takes them, for speed, else one by one."""
    made: list[tuple[Any, Entity]] = []
    for value in corners:
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
    for number, name in enumerate(fields_of(kind)):
        await try_corners(data, rows.kinds[kind], kind, name, corners_of(number))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {AuditLog, UsageEntry}])
async def test_corners_in_stored_rows(data: DataLayer, rows: Rows, kind: Any) -> None:
    entity = rows.kinds[kind]()
    await store(data, entity)
    for number, name in enumerate(fields_of(kind)):
        before = await read(data, entity, name)
        for value in corners_of(number + 1) if name != "id" else ():
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
