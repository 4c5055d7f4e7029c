"""Any value in any argument of any service, and in any field of what is passed to one.

It is stored and read back equal, or refused with a typed error that names it; nothing that was taken keeps a later call
from reading. The services, their methods and their arguments are found by reflection: a new one is tried as it is.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, get_args
from uuid import UUID, uuid4
from zlib import crc32

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities.enums import ApiScope, AuthProvider, StorageKind, UserRole
from data_layer.errors import DataLayerError, InvalidValueError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.audit import AuditFilter, AuditView, ExportFormat
from data_layer.schemas.base import Input, Value
from data_layer.schemas.codes import VariantChanges
from data_layer.schemas.designs import DesignSystemChanges
from data_layer.schemas.factors import FactorProof
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import (
    CodePiece,
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    VariantEvent,
    VariantModel,
    VariantResult,
    WholeCode,
)
from data_layer.schemas.images import ImageChanges, NewImage
from data_layer.schemas.lineage import ReceivedGeneration, ReceivedVariant
from data_layer.schemas.operations import LogLevel
from data_layer.schemas.projects import ProjectChanges, ProjectDraft, ProjectFilter
from data_layer.schemas.sessions import GeoLocation
from data_layer.schemas.usage import NewUsage
from data_layer.schemas.users import ExternalIdentity, ProfileChanges
from data_layer.services.audit.recording import EventFields
from tests.architecture.test_arguments import SERVICES, UNCHECKED
from tests.file_content import picture
from tests.hateful_values import CORNERS, NOW, Text, shown
from tests.support import make_project, make_user

pytestmark = pytest.mark.slow

NOT_CALLED = {"close", "revoke_everything", "buffer_statistics", "load", "load_once"}
"""What ends the service or everybody's sessions, what has nothing to pass, and sample data, which is slow."""

MORE: dict[str, list[Any]] = {
    "timedelta": [timedelta.max, timedelta.min, timedelta(0), -timedelta(1), timedelta(microseconds=1)],
    "Actor": [Actor(), Actor.user(uuid4())],
    "int": [-(2**31), 1000, 1001],
    "Decimal": [Decimal("Infinity"), Decimal("sNaN"), Decimal("1e-30"), Decimal("1e30"), Decimal(-1), Decimal("0.5")],
    "tuple": [(1, "a"), (1, 2, 3), (2**31, 0), (True, 0), (1, None)],
}

PIECES: dict[type[Any], dict[str, Any]] = {
    CodePiece: {"text": "a"},
    WholeCode: {"code": "a"},
    VariantEvent: {"kind": "thinking", "payload": {}},
}
"""What is passed to ``append`` beside the values that refuse for themselves what does not fit."""

PLAUSIBLE: dict[type[Input], dict[str, Any]] = {
    ProjectDraft: {"name": "a"},
    ProjectChanges: {},
    ProjectFilter: {},
    ProfileChanges: {},
    ExternalIdentity: {"provider": AuthProvider.GITHUB, "subject": "1", "email": "x@example.com"},
    GenerationRequest: {},
    VariantModel: {},
    VariantResult: {},
    VariantChanges: {},
    FinishedVariant: {"code": "<p>"},
    FinishedGeneration: {"request": GenerationRequest(), "variants": (FinishedVariant(code="<p>"),)},
    NewImage: {},
    ImageChanges: {},
    ReceivedGeneration: {"key": "k", "source": "test", "at": NOW, "variants": (ReceivedVariant(index=0, code="a"),)},
    NewUsage: {"key": "k", "provider": "openai", "model": "m"},
    DesignSystemChanges: {},
    AuditFilter: {},
    GeoLocation: {},
    FactorProof: {},
    Attachment: {},
}


class Case(NamedTuple):
    """A place for a value: an argument of a method, or a field of one."""

    service: str
    method: str
    argument: str
    kind: type[Any] | None = None
    field: str | None = None

    @property
    def name(self) -> str:
        return self.field or self.argument


def methods_of(service: str) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(SERVICES[service], inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_") and name not in NOT_CALLED}


@cache
def annotations_of(method: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a method, and what each may be."""
    names = vars(sys.modules[method.__module__])
    parameters = list(inspect.signature(method).parameters.values())[1:]
    found = {
        each.name: eval(each.annotation, names) if isinstance(each.annotation, str) else each.annotation  # noqa: S307
        for each in parameters
        if each.name != "tx" and each.kind is not each.VAR_KEYWORD
    }
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        assert method.__name__ == "record_soon"
        found |= dict.fromkeys(EventFields.__annotations__, Any)
    return found


def kinds_in(annotation: Any) -> list[type[Any]]:
    """The values of ours that an argument may be, also as the items of a collection."""
    if isinstance(annotation, list):  # The arguments of a Callable.
        return []
    inner = [kind for argument in get_args(annotation) for kind in kinds_in(argument)]
    return [annotation] if annotation in PIECES or _is_input(annotation) else inner


def _is_input(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Input)


def fields_of(kind: type[Any]) -> list[str]:
    return list(kind.model_fields) if _is_input(kind) else [field.name for field in dataclasses.fields(kind)]


def cases_of(service: str) -> list[Case]:
    cases = []
    for method_name, method in methods_of(service).items():
        for argument, annotation in annotations_of(method).items():
            cases.append(Case(service, method_name, argument))
            cases += [
                Case(service, method_name, argument, kind, field)
                for kind in kinds_in(annotation)
                for field in fields_of(kind)
            ]
    return cases


CASES = [case for service in sorted(SERVICES.keys() - UNCHECKED.keys()) for case in cases_of(service)]


_WHOLE = text("""
SELECT EXISTS (SELECT FROM users WHERE id = :user_id AND status = 'active' AND role = 'user' AND locked_until IS NULL)
    AND EXISTS (SELECT FROM projects WHERE id = :project_id AND status NOT IN ('archived', 'deleted'))
    AND EXISTS (SELECT FROM sessions WHERE id = :session_id AND status = 'active')
    AND EXISTS (SELECT FROM design_systems WHERE id = :design_id)
    AND EXISTS (SELECT FROM shares WHERE id = :share_id AND revoked_at IS NULL)
    AND EXISTS (SELECT FROM generated_images WHERE id = :image_id)
    AND EXISTS (SELECT FROM file_references WHERE id = :file_id)
    AND EXISTS (SELECT FROM api_keys WHERE id = :key_id AND revoked_at IS NULL)
    AND EXISTS (SELECT FROM second_factors WHERE id = :factor_id)
    AND EXISTS (SELECT FROM mails WHERE id = :mail_id)
    AND EXISTS (SELECT FROM exports WHERE id = :export_id AND status = 'done')
    AND EXISTS (SELECT FROM generated_codes WHERE id = :code_id AND status IN ('pending', 'processing'))
""")


class World:
    """Things that exist, to call methods with. What a call has used up is made again."""

    def __init__(self, data: DataLayer) -> None:
        self.data = data
        self.values: dict[str, Any] = {}
        self.was_used = False

    async def make(self) -> None:
        self.was_used = False
        data, user = self.data, make_user()
        project = make_project(user)
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(project)
        self.user_id, self.project_id = user.id, project.id
        started = await data.generations.start(SYSTEM, project.id, GenerationRequest(), [VariantModel()])
        await data.generations.complete(SYSTEM, started.writer_token, 0, code="<p>")
        image = await data.images.record(SYSTEM, project.id, NewImage(), picture("PNG"))
        share = await data.shares.create(SYSTEM, project.id, version=1)
        session = await data.sessions.create(user.id)
        tokens = await data.tokens.issue(session.session)
        design = await data.designs.create(SYSTEM, name="a", content="b", owner_id=user.id)
        await data.accounts.request_password_reset(user.email, by_mail=True)
        factor = await data.accounts.begin_totp(SYSTEM, user.id)
        key = await data.api_keys.create(SYSTEM, name="a", scopes=[ApiScope.READ], owner_id=user.id)
        [mail] = await data.mails.list(SYSTEM, user_id=user.id)
        export = await data.exports.start(SYSTEM, user.id)
        await data.exports.make_due()
        attached_to = Attachment(project_id=project.id)
        file = await data.files.save(picture("PNG"), owner_id=user.id, attached_to=attached_to)
        self.values = {
            "user_id": user.id,
            "owner_id": user.id,
            "project_id": project.id,
            "id_or_name": str(project.id),
            "id_or_email": user.email,
            "session": session.session,
            "session_id": session.session.id,
            "access_token": tokens.access_token.get_secret_value(),
            "refresh_token": tokens.refresh_token.get_secret_value(),
            "design_id": design.id,
            "file_id": file.id,
            "attached_to": attached_to,
            "to": attached_to,
            "share_id": share.share.id,
            "mail_id": mail.id,
            "export_id": export.id,
            "key_id": key.key.id,
            "factor_id": factor.id,
            "answer": {},
            "proof": FactorProof(code="000000"),
            "secret": key.secret.get_secret_value(),
            "scopes": [ApiScope.READ],
            "level": LogLevel.INFO,
            "length": timedelta(minutes=1),
            "reservation": await data.usage.reserve(SYSTEM, Decimal(1), user_id=user.id),
            "image_id": image.id,
            "source": picture("PNG"),
            "url": f"data:image/png;base64,{b64encode(picture('PNG')).decode()}",
            "models": [VariantModel()],
            "variants": [FinishedVariant(code="<p>")],
            "generations": [FinishedGeneration(request=GenerationRequest(), variants=(FinishedVariant(code="<p>"),))],
            "pieces": (CodePiece("a"),),
            "sequence": 1000,
            "variant": 0,
            "version": (await data.sessions.read_data(session.session.id)).version,
            "reservation_id": uuid4(),
            "most": Decimal(1),
            "monthly_limit": Decimal(1000),
            "amount": Decimal(1),
            "currency": "USD",
            "provider": AuthProvider.GITHUB,
            "email": f"{uuid4()}@example.com",
            "password": f"Correct-horse-{uuid4()}",
            "new": 1,
            "old": 1,
            "target": StorageKind.LOCAL,
            "against_id": started.variant_ids[0],
            "is_good": True,
            "address": "/local-assets/a.png",
            "page": "<p>",
            "pages.opened": await data.generations.tree(SYSTEM, project.id, reason="test"),
        }
        await self.start_generation()

    async def is_whole(self) -> bool:
        """Whether no call has taken away what the next one is about; to make all of it again takes long."""
        self.was_used = False
        values = {name: self.values[name] for name in _WHOLE.compile().params}
        async with self.data.transaction() as tx:
            return bool((await tx.execute(_WHOLE.bindparams(**values))).scalar_one())

    async def start_generation(self) -> None:
        generations = self.data.generations
        started = await generations.start(SYSTEM, self.project_id, GenerationRequest(), [VariantModel()])
        await generations.append(SYSTEM, started.writer_token, 0, 1, WholeCode("<p>"))
        self.values |= {
            "generation_id": started.id,
            "code_id": started.variant_ids[0],
            "writer_token": started.writer_token,
        }

    @property
    def ids(self) -> set[Any]:
        """What names these things and nobody else's."""
        # The id of a reservation is chosen by the caller, and counts for their own budget alone.
        return {value for name, value in self.values.items() if isinstance(value, UUID) and name != "reservation_id"}

    def plausible(self, case: Case, argument: str, annotation: Any) -> Any:
        if case.method == "change_password" and argument == "new":
            return self.values["password"]
        if argument == "expected":
            return {"projects": 1}.get(case.service)
        if case.method in {"shown", "hide"} and argument == "actor":
            return Actor.user(self.user_id, UserRole.USER)  # The system has no generations.
        if (case.service, argument) == ("shares", "version"):
            return 1
        if argument == "code_id" and case.method == "fork_variant":
            return self.values["against_id"]  # It is complete.
        if f"{case.service}.{argument}" in self.values:
            return self.values[f"{case.service}.{argument}"]
        if argument in self.values:
            return self.values[argument]
        for kind in kinds_in(annotation):
            return self.build(kind)
        shown_as = str(annotation)
        kinds: dict[str, Any] = {
            "Actor": SYSTEM,
            "timedelta": timedelta(hours=1),
            "datetime": NOW,
            "bool": False,
            "int": 1,
            "bytes": b"bytes",
            "Mapping": {},
            "dict": {},
            "Sequence": [],
            "Collection": [],
            "UserRole": "user",
            "AuditAction": "user_login",
            "str": "a",
        }
        return next((value for kind, value in kinds.items() if kind in shown_as), None)

    def build(self, kind: type[Any], /, **values: Any) -> Any:
        if kind in PIECES:
            return kind(**{**PIECES[kind], **values})
        if kind is NewUsage and "key" not in values:
            values["key"] = str(uuid4())
        if kind is ReceivedGeneration:
            values = {"key": str(uuid4())} | values
        if "code_id" in values and kind is NewUsage:
            values["project_id"] = self.project_id
        if kind is Attachment and not values:
            values["project_id"] = self.project_id
        return kind(**PLAUSIBLE[kind] | values)

    async def call(self, case: Case, value: Any) -> Any:
        """Call the method of a case with a value, and return what comes, used up where it is a stream."""
        method = getattr(self.data, case.service)
        method = getattr(method, case.method)
        plain = methods_of(case.service)[case.method]
        annotations = annotations_of(plain)
        parameters = inspect.signature(plain).parameters
        if case.kind is not None and case.field is not None:
            built = self.build(case.kind, **{case.field: value})
            value = [built] if case.argument in {"models", "variants", "generations"} else built
        required = {
            name
            for name, each in parameters.items()
            if each.default is each.empty and each.kind is not each.VAR_KEYWORD and name in annotations
        }
        values = {name: self.plausible(case, name, annotations[name]) for name in required}
        for name in ("variant", "against_id", "attached_to", "owner_id", "amount", "user_id"):
            if name in annotations and name not in values and case.method != "record_soon":
                values[name] = self.values[name]
        values[case.argument] = value
        if case.method == "follow":  # It goes on as long as the generation does.
            async with aclosing(method(*_positional(parameters, values), **values)) as events:
                return await anext(events)
        return await self.use(method, parameters, values)

    async def use(self, method: Any, parameters: Any, values: dict[str, Any]) -> Any:
        if "tx" in parameters:
            async with self.data.transaction() as tx:
                return await self._finish(method(tx, *_positional(parameters, values), **values))
        return await self._finish(method(*_positional(parameters, values), **values))

    async def _finish(self, result: Any) -> Any:
        if inspect.isawaitable(result):
            return await result
        if isinstance(result, AsyncIterator):
            return [item async for item in result]
        if hasattr(result, "__aenter__"):
            async with result as entered:
                return entered
        return result

    async def read_everything(self) -> None:
        """Every reader manages whatever was stored; its errors are failures of the test."""
        data = self.data
        await data.audit.flush()
        for user in await data.accounts.list(SYSTEM, limit=1000):
            await data.designs.list(SYSTEM, owner_id=user.id)
            await data.api_keys.list(SYSTEM, user.id)
            await data.usage.entries(SYSTEM, user_id=user.id)
            await data.usage.budget(SYSTEM, user_id=user.id)
            await data.files.list(owner_id=user.id)
            for project in (await data.projects.list(SYSTEM, owner_id=user.id, reason="test")).projects:
                await data.projects.open(SYSTEM, project.id, reason="test")
                await data.projects.details(str(project.id))
                await data.shares.list(SYSTEM, project.id)
                for generation in await data.generations.history(SYSTEM, project.id, reason="test"):
                    for variant in range(len(generation.variants)):
                        place = (project.id, generation.number, variant)
                        await data.generations.version(SYSTEM, *place, reason="test")
        for session in await data.sessions.list_all(SYSTEM, limit=1000):
            await data.sessions.read_data(session.id)
        await data.projects.recent(limit=1000)
        await data.usage.sums(SYSTEM, everyone=True)
        for form in ExportFormat:
            async for _ in data.audit.export(SYSTEM, format=form, view=AuditView.FULL):
                pass


def _positional(parameters: Any, values: dict[str, Any]) -> list[Any]:
    """The arguments that can be passed by position, and those that can only be; they are taken out of the others."""
    found: list[Any] = []
    for name, each in parameters.items():
        if each.kind is each.VAR_POSITIONAL and name in values:
            value = values.pop(name)
            found += value if isinstance(value, tuple) else (value,)
        elif each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD} and name in values:
            found.append(values.pop(name))
    return found


def is_same(stored: Any, given: Any) -> bool:
    """Whether what is returned is what was given, also where white space at its ends or letter case has no meaning."""
    if isinstance(given, Text):
        given = str.__str__(given)
    if isinstance(stored, str) and isinstance(given, str):
        marked = re.sub("[\ud800-\udfff]", "\ufffd", given.replace("\0", "\u2400"))  # In code, which is never refused.
        return stored in {given, marked} or stored.lower() == " ".join(given.split()).lower()
    if isinstance(stored, float) and isinstance(given, int):
        return stored == float(given)
    if isinstance(stored, Decimal):
        return stored == round(Decimal(str(given)), 8)
    if isinstance(stored, SecretStr):
        return stored.get_secret_value() == str(given)
    return bool(stored == given or (isinstance(given, list | tuple | set) and list(stored) == list(given)))


USED_UP = {"complete", "fail", "cancel"}
"""What ends a thing, so that it does nothing when it is repeated."""

NOT_STORED = {
    ("sessions", "version"): "the one that is expected; the next one is returned",
    ("generations", "number"): "of the version that is restored; the new one has the next number",
    ("images", "name"): "an empty one takes the name away",
    ("images", "size"): "an empty one is that of the image",
    ("files", "file_name"): "as it can be shown",
    ("accounts", "identity"): "what a provider says; the account keeps its own",
    ("images", "usage"): "an entry of the ledger",
    ("generations", "model"): "a model with its provider; the name alone is returned",
}
OTHER_NAMES = {
    "patch": "preferences",
    "message": "error_message",
    "details": "error_details",
    "stars": "rating",
    "reason": "error_message",
    "source": "external_source",
    "key": "external_key",
    "name": "model",
    "variants": "code",
}
"""What a caller calls otherwise than its column."""


async def problem_of(world: World, case: Case, value: Any) -> str | None:
    place = f"{case.service}.{case.method}({case.argument}{'.' + case.field if case.field else ''}={shown(value)})"
    try:
        result = await world.call(case, value)
    except InvalidValueError as error:
        names = {case.name, case.argument, OTHER_NAMES.get(case.name, case.name)}
        # Where one value alone is wrong only beside another, the message names both.
        if error.field in names or any(re.search(rf"\b{name}\b", str(error)) for name in names):
            return None
        return f"{place}: names {error.field!r}: {error}"[:400]
    except DataLayerError:
        return None
    except Exception as error:  # noqa: BLE001  (what the test looks for)
        return f"{place}: {type(error).__name__}: {error}"[:400]
    world.was_used = True
    if case.method in USED_UP:
        await world.start_generation()
    if (
        isinstance(result, Value)
        and value is not None
        and NOT_STORED.keys().isdisjoint({(case.service, case.name), (case.service, case.argument)})
    ):
        stored = getattr(result, case.name, value)
        if not is_same(stored, value):
            return f"{place}: returns {shown(stored)}"
    return None


def corners_of(case: Case) -> list[Any]:
    """A tenth of the corners, chosen by the name of the argument: all of them in every one take seven minutes."""
    return CORNERS[crc32(f"{case.method} {case.argument} {case.name}".encode()) % 10 :: 10]


@pytest.fixture
async def world(data: DataLayer) -> World:
    world = World(data)
    await world.make()
    return world


@pytest.mark.parametrize("name", ["user_id", "role"])
def test_an_actor_is_a_user_with_a_role(name: str) -> None:
    values: dict[str, Any] = {name: "nobody"}
    with pytest.raises(InvalidValueError) as raised:
        Actor(**values)
    assert raised.value.field == name


def test_the_arguments_are_found() -> None:
    assert {"accounts", "sessions", "tokens", "files", "audit", "projects", "designs", "maintenance"} <= set(SERVICES)
    assert len({case[:2] for case in CASES}) >= 95
    assert {case.kind for case in CASES if case.kind} == {*PLAUSIBLE, *PIECES}


@pytest.mark.parametrize("kind", PLAUSIBLE)
def test_a_field_that_does_not_exist_is_refused(kind: type[Input]) -> None:
    with pytest.raises(InvalidValueError, match="extra") as raised:
        kind(**PLAUSIBLE[kind], mistyped=1)
    assert raised.value.field == "mistyped"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", sorted({case.service for case in CASES}))
async def test_every_value_in_every_argument(world: World, service: str) -> None:
    problems = []
    by_method = attrgetter("method")
    for method, cases in groupby(sorted((case for case in CASES if case.service == service), key=by_method), by_method):
        for case in cases:
            annotation = str(annotations_of(methods_of(service)[method])[case.argument])
            more = [value for kind, values in MORE.items() if kind in annotation for value in values]
            if world.was_used and (service == "tokens" or not await world.is_whole()):
                await world.make()
            problems += [await problem_of(world, case, value) for value in [*corners_of(case), *more]]
        await world.read_everything()
    found = [problem for problem in problems if problem is not None]
    assert not found, "\n".join([f"{len(found)} problems", *found[:60]])
