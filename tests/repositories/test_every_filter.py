"""Any value in any filter, order, limit or id of any repository: the right rows, or an error that names the filter."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, get_type_hints
from uuid import uuid4

import pytest
from sqlalchemy import inspect as mapped
from sqlalchemy import select

from data_layer import DataLayer
from data_layer.errors import DataLayerError, InvalidValueError, NotFoundError
from data_layer.repositories.repository import ReadRepository, Repository
from data_layer.repositories.unit_of_work import UnitOfWork
from tests.entities.test_every_value import Rows, rows, same  # noqa: F401  (a fixture)
from tests.hateful_values import CORNERS, shown

pytestmark = pytest.mark.slow

REPOSITORIES: dict[str, type[ReadRepository[Any]]] = {
    name: kind
    for name, member in vars(UnitOfWork).items()
    if isinstance(member, cached_property)
    and inspect.isclass(kind := get_type_hints(member.func).get("return"))
    and issubclass(kind, ReadRepository)
}


async def answer_of(data: DataLayer, repository: str, method: str, /, *args: Any, **values: Any) -> Any:
    """What a repository returns, or the typed error with which it refuses; any other error is a failure."""
    try:
        async with data.transaction() as tx:
            return await getattr(getattr(tx, repository), method)(*args, **values)
    except DataLayerError as error:
        return error


def test_the_repositories_are_found() -> None:
    assert {"users", "projects", "codes", "sessions", "audit", "files", "usage"} <= REPOSITORIES.keys()


@pytest.mark.parametrize("repository", REPOSITORIES)
async def test_every_value_in_every_filter(data: DataLayer, rows: Rows, repository: str) -> None:  # noqa: F811
    kind = REPOSITORIES[repository].entity
    async with data.transaction() as tx:
        tx.add(rows.kinds[kind]())
    problems = []
    for number, name in enumerate(mapped(kind).column_attrs.keys()):
        # All of them in every column would take minutes; so each meets a seventh, and the next one another one.
        for value in CORNERS[number % 7 :: 7]:
            for wanted in (value, [value]) if number % 2 else (value,):
                place = f"{repository}({name}={shown(wanted)})"
                problems += [f"{place}: {problem}" async for problem in problems_of(data, repository, name, wanted)]
    assert not problems, "\n".join([f"{len(problems)} problems", *problems[:60]])


async def problems_of(data: DataLayer, repository: str, name: str, wanted: Any) -> Any:
    """What is wrong with what three methods answer to one filter."""
    kind: Any = REPOSITORIES[repository].entity
    answers = {}
    for method in ("find_one", "list", "count"):
        try:
            answers[method] = await answer_of(data, repository, method, **{name: wanted})
        except Exception as raw:  # noqa: BLE001  (what the test looks for)
            yield f"{method}: {type(raw).__name__}: {raw}"[:300]
            return
    errors = [answer for answer in answers.values() if isinstance(answer, DataLayerError)]
    if errors:
        for error in errors:
            if not isinstance(error, InvalidValueError) or error.field not in {name, name.removesuffix("_")}:
                yield f"{type(error).__name__} of {getattr(error, 'field', None)}: {error}"[:300]
        if len(errors) < len(answers):
            yield f"not refused by all: {answers}"[:300]
        return
    found = answers["list"]
    if answers["count"] != len(found) or (answers["find_one"] is None) != (not found):
        yield f"{answers['count']}, {len(found)}, {answers['find_one']}"
    for row in found:
        async with data.transaction() as tx:
            stored = (await tx.execute(select(getattr(kind, name)).where(kind.id == row.id))).scalar_one()
        if not fits(kind, name, stored, wanted):
            yield f"{shown(stored)} does not fit"


def fits(kind: Any, name: str, stored: Any, wanted: Any) -> bool:
    """Whether a row that was found is one that was looked for."""
    if isinstance(wanted, list | tuple | set | frozenset) and stored is None:
        return None in wanted
    if stored is None or wanted is None:
        return stored is wanted
    if isinstance(stored, Mapping):
        return dict(stored) == dict(stored) | dict(wanted)
    if isinstance(stored, Collection) and not isinstance(stored, str):
        return set(wanted) <= set(stored)
    if isinstance(wanted, list | tuple | set | frozenset):
        return any(one is not None and same(kind, name, stored, one) for one in wanted)
    return same(kind, name, stored, wanted)


@pytest.mark.parametrize("repository", REPOSITORIES)
async def test_a_row_is_found_by_what_each_column_holds(data: DataLayer, rows: Rows, repository: str) -> None:  # noqa: F811
    kind: Any = REPOSITORIES[repository].entity
    entity = rows.kinds[kind]()
    async with data.transaction() as tx:
        tx.add(entity)
    columns = mapped(kind).column_attrs.keys()
    async with data.transaction() as tx:
        values = (
            await tx.execute(select(*(getattr(kind, name) for name in columns)).where(kind.id == entity.id))
        ).one()
    for name, value in zip(columns, values, strict=True):
        answers = [await answer_of(data, repository, "list", **{name: value})]
        if value is not None and not isinstance(value, Mapping | tuple | list):
            answers.append(await answer_of(data, repository, "list", **{name: [value, value]}))
        for found in answers:
            if isinstance(found, InvalidValueError) and name == "search_vector":
                continue
            assert not isinstance(found, DataLayerError), (name, found)
            assert entity.id in {row.id for row in found}, (name, value)


@pytest.mark.parametrize("repository", REPOSITORIES)
async def test_every_order_limit_and_id(data: DataLayer, repository: str) -> None:
    calls: dict[tuple[str, str], set[type[Any]]] = {
        ("list", "order_by"): {InvalidValueError},
        ("list", "limit"): {InvalidValueError},
        ("list", "after"): {InvalidValueError},
        ("get", "entity_id"): {InvalidValueError, NotFoundError},
        ("get", "lock"): {InvalidValueError},
    }
    problems = []
    for (method, argument), expected in calls.items():
        for value in CORNERS:
            others = {"entity_id": uuid4()} if argument == "lock" else {}
            try:
                answer = await answer_of(data, repository, method, **others, **{argument: value})
            except Exception as error:  # noqa: BLE001  (what the test looks for)
                answer = error
            is_fine = not isinstance(answer, BaseException) or type(answer) in expected | {NotFoundError}
            if isinstance(answer, InvalidValueError) and answer.field != argument:
                is_fine = False
            if not is_fine:
                problems.append(f"{method}({argument}={shown(value)}): {type(answer).__name__}: {answer}"[:300])
    assert not problems, "\n".join([f"{len(problems)} problems", *problems[:60]])


@pytest.mark.parametrize("repository", [name for name, kind in REPOSITORIES.items() if issubclass(kind, Repository)])
async def test_every_amount_of_every_counter(data: DataLayer, repository: str) -> None:
    kind = REPOSITORIES[repository].entity
    counters = [name for name, each in mapped(kind).column_attrs.items() if each.columns[0].info.get("counter")]
    problems = []
    for counter in [*counters[:1], "id", "\0"]:
        for value in CORNERS:
            try:
                answer = await answer_of(data, repository, "increment", uuid4(), counter, amount=value)
            except Exception as error:  # noqa: BLE001  (what the test looks for)
                answer = error
            if type(answer) not in {InvalidValueError, NotFoundError}:
                problems.append(f"{counter} + {shown(value)}: {type(answer).__name__}: {answer}"[:300])
    assert not problems, "\n".join([f"{len(problems)} problems", *problems[:60]])
