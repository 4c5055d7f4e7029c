"""JSON columns: changes inside are stored, what cannot be stored is refused at once, and spoilt rows can be read."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities import Project
from data_layer.errors import InvalidTextError, InvalidValueError, ValueTooLongError
from data_layer.schemas.projects import ProjectFilter, ProjectOrder
from tests.support import make_project, make_user

DEEP = "[" * 300 + "]" * 300  # More than what the quick reader of JSON takes.
SETTINGS: dict[str, Any] = {"n": {"a": 1, "l": [1, {"deep": [True]}]}, "theme": "dark"}
TAGS = ["one", "two"]

CHANGES: dict[str, Callable[[Project], object]] = {
    "set": lambda p: p.settings.__setitem__("n", {"new": [1]}),
    "nested set": lambda p: p.settings["n"].__setitem__("a", 2),
    "deep append": lambda p: p.settings["n"]["l"][1]["deep"].append({"x": None}),
    "into what was put in": lambda p: p.settings.setdefault("m", {}).setdefault("a", {}).update(b=1),
    "delete": lambda p: p.settings["n"].__delitem__("a"),
    "pop": lambda p: p.settings["n"].pop("a"),
    "popitem": lambda p: p.settings.popitem(),
    "clear": lambda p: p.settings["n"].clear(),
    "setdefault": lambda p: p.settings["n"].setdefault("b", []).append(1),
    "update": lambda p: p.settings["n"].update({"b": 1}, c=2),
    "ior": lambda p: p.settings["n"].__ior__({"b": 1}),
    "list set": lambda p: p.settings["n"]["l"].__setitem__(0, {"a": 1}),
    "list slice": lambda p: p.settings["n"]["l"].__setitem__(slice(0, 1), [7, [8]]),
    "list delete": lambda p: p.settings["n"]["l"].__delitem__(0),
    "list insert": lambda p: p.settings["n"]["l"].insert(0, "first"),
    "list extend": lambda p: p.settings["n"]["l"].extend(iter([1, 2])),
    "list iadd": lambda p: p.settings["n"]["l"].__iadd__([3]),
    "list imul": lambda p: p.settings["n"]["l"].__imul__(2),
    "list pop": lambda p: p.settings["n"]["l"].pop(),
    "list remove": lambda p: p.settings["n"]["l"].remove(1),
    "list reverse": lambda p: p.settings["n"]["l"].reverse(),
    "tags append": lambda p: p.tags.append("three"),
    "tags sort": lambda p: p.tags.sort(reverse=True),
    "tags slice": lambda p: p.tags.__setitem__(slice(None), ["other"]),
}  # fmt: skip


async def stored(data: DataLayer, **values: Any) -> Project:
    user = make_user()
    project = make_project(user, **{"settings": copy.deepcopy(SETTINGS), "tags": list(TAGS)} | values)
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)
    return project


async def read(data: DataLayer, project: Project) -> Project:
    async with data.transaction() as tx:
        return await tx.projects.get(project.id)


@pytest.mark.parametrize("how", ["new", "after its commit", "read by id", "found", "locked"])
async def test_a_change_inside_is_stored(data: DataLayer, how: str) -> None:
    for name, change in CHANGES.items():
        expected = make_project(settings=copy.deepcopy(SETTINGS), tags=list(TAGS))
        change(expected)
        project = await stored(data)
        async with data.transaction() as tx:
            match how:
                case "new":
                    project = make_project(settings=copy.deepcopy(SETTINGS), tags=list(TAGS), user_id=project.user_id)
                    tx.add(project)
                case "after its commit":
                    tx.add(project)
                case "read by id":
                    project = await tx.projects.get(project.id)
                case "found":
                    [project] = await tx.projects.list(user_id=project.user_id)
                case _:
                    project = await tx.projects.get(project.id, lock=True)
            change(project)
        found = await read(data, project)
        assert (found.settings, found.tags) == (expected.settings, expected.tags), name
        assert (found.settings, found.tags) != (SETTINGS, TAGS), name


WRONG: dict[str, tuple[Callable[[Project], object], type[Exception], str]] = {
    "none": (lambda p: setattr(p, "settings", None), InvalidValueError, "settings"),
    "list": (lambda p: setattr(p, "settings", []), InvalidValueError, "settings must be a JSON object, not list"),
    "object in tags": (lambda p: setattr(p, "tags", [1, {}]), InvalidValueError, r"tags\[0\] must be text"),
    "text as tags": (lambda p: setattr(p, "tags", "ab"), InvalidValueError, "tags must be a list of texts"),
    "tag": (lambda p: cast("Any", p.tags).append({}), InvalidValueError, r"tags\[2\] must be text"),
    "tag slice": (
        lambda p: cast("Any", p.tags).__setitem__(slice(None), ["a", None]),
        InvalidValueError,
        "must be text",
    ),
    "lost key": (lambda p: setattr(p, "settings", {1: "a", "1": "b"}), InvalidValueError, "settings.1 has a key"),
    "set inside": (lambda p: p.settings["n"].__setitem__("a", {1}), InvalidValueError, "settings.n.a is set"),
    "nan inside": (lambda p: p.settings["n"]["l"].append(float("nan")), InvalidValueError, r"settings.n.l\[2\] is nan"),
    "nul": (lambda p: p.settings["n"].update(a="\0"), InvalidTextError, "settings.n.a"),
    "surrogate": (lambda p: p.settings["n"].update({"\ud800": 1}), InvalidTextError, "settings.n"),
    "integer": (lambda p: p.settings["n"].update(a=2**64), InvalidValueError, "settings.n.a .* 64 bits"),
    "itself": (lambda p: p.settings["n"].update(a=_cyclic()), InvalidValueError, "too deep"),
    "large": (lambda p: setattr(p, "settings", {"a": "x" * 6_000_000}), ValueTooLongError, "settings"),
}


def _cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(("change", "error", "message"), WRONG.values(), ids=WRONG)
async def test_what_cannot_be_stored_is_refused_at_once_and_changes_nothing(
    data: DataLayer, change: Callable[[Project], object], error: type[Exception], message: str
) -> None:
    project = await stored(data)
    async with data.transaction() as tx:
        found = await tx.projects.get(project.id)
        with pytest.raises(error, match=message) as raised:
            change(found)
        assert getattr(raised.value, "field", None) in {"settings", "tags"}
        assert (found.settings, found.tags) == (SETTINGS, TAGS)
    found = await read(data, project)
    assert (found.settings, found.tags) == (SETTINGS, TAGS)


async def test_depth_counts_from_the_column(data: DataLayer) -> None:
    project = await stored(data, settings={})
    inner = project.settings
    with pytest.raises(InvalidValueError, match="too deep"):
        for _ in range(200):
            inner["a"] = {}
            inner = inner["a"]


async def test_what_has_grown_too_large_inside_is_refused_at_the_commit(data: DataLayer) -> None:
    project = await stored(data)
    with pytest.raises(ValueTooLongError, match="settings") as raised:
        async with data.transaction() as tx:
            found = await tx.projects.get(project.id)
            for number in range(6):
                found.settings[str(number)] = "x" * 1_000_000
    assert raised.value.field == "settings"
    assert (await read(data, project)).settings == SETTINGS


async def test_rows_share_nothing(data: DataLayer) -> None:
    given = copy.deepcopy(SETTINGS)
    first, second = await stored(data, settings=given), await stored(data, settings=given)
    given["n"]["a"] = "changed outside"
    async with data.transaction() as tx:
        tx.add(first)
        tx.add(second)
        first.settings = second.settings
        first.settings["n"]["a"] = "of the first"
        second.settings["n"]["l"] = first.settings["n"]["l"]
        second.settings["n"]["l"].append("of the second")
    assert (await read(data, first)).settings["n"] == {"a": "of the first", "l": SETTINGS["n"]["l"]}
    assert (await read(data, second)).settings["n"] == {"a": 1, "l": [*SETTINGS["n"]["l"], "of the second"]}


async def test_a_copy_belongs_to_nobody(data: DataLayer) -> None:
    project = await stored(data)
    pickled = pickle.loads(pickle.dumps(project.settings))  # noqa: S301  (made here)
    for copied in (copy.deepcopy(project.settings), copy.copy(project.settings), pickled):
        assert copied == SETTINGS
    deep = copy.deepcopy(project.settings)
    deep["n"]["a"] = "elsewhere"
    assert project.settings == SETTINGS


@pytest.mark.parametrize("spoilt", ["null", "[]", "5", '"text"', '[1, null, {"a": 1}, "kept"]', DEEP])
async def test_a_row_that_was_spoilt_by_hand_can_be_read_and_mended(data: DataLayer, spoilt: str) -> None:
    project = await stored(data)
    rules = ["ck_projects_settings", "ck_projects_tags", "ck_projects_metadata"]
    async with data.transaction() as tx:
        found_rules = await tx.execute(text("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"))
        definitions = {name: definition for name, definition in map(tuple, found_rules) if name in rules}
        for rule in rules:
            await tx.execute(text(f"ALTER TABLE projects DROP CONSTRAINT {rule}"))
        await tx.execute(text(f"UPDATE projects SET settings = '{spoilt}', tags = '{spoilt}', metadata = '{spoilt}'"))
    try:
        tags = ["kept"] if "kept" in spoilt else []
        for found in (await read(data, project), *(await _listed(data))):
            assert (found.settings, found.tags, found.metadata_) == ({}, tags, {})
        async with data.transaction() as tx:
            view = await tx.projects.view(project.id)
            order = ProjectOrder.UPDATED
            _, [shown] = await tx.projects.page(
                project.user_id, ProjectFilter(), order, is_descending=True, after=None, limit=5
            )
        assert view is not None
        assert (view.settings, view.tags, view.metadata, shown.tags) == ({}, tuple(tags), {}, tuple(tags))
        async with data.transaction() as tx:
            found = await tx.projects.get(project.id)
            found.settings["a"] = 1
            found.tags.append("new")
        assert ((await read(data, project)).settings, (await read(data, project)).tags) == ({"a": 1}, [*tags, "new"])
    finally:
        async with data.transaction() as tx:
            await tx.execute(text("DELETE FROM projects"))
            for rule in rules:
                await tx.execute(text(f"ALTER TABLE projects ADD CONSTRAINT {rule} {definitions[rule]}"))


async def _listed(data: DataLayer) -> list[Project]:
    async with data.transaction() as tx:
        return list(await tx.projects.list())


@pytest.mark.parametrize("value", ["null", "[]", "5", "{}"])
async def test_the_database_keeps_the_shapes(data: DataLayer, value: str) -> None:
    project = await stored(data)
    column = "tags" if value == "{}" else "settings"
    with pytest.raises(InvalidValueError, match=column):
        async with data.transaction() as tx:
            await tx.execute(text(f"UPDATE projects SET {column} = '{value}' WHERE id = '{project.id}'"))
    with pytest.raises(InvalidValueError, match="tags"):
        async with data.transaction() as tx:
            await tx.execute(text(f"UPDATE projects SET tags = '[1]' WHERE id = '{project.id}'"))
