"""What a view shows cannot be changed, however deep it lies, and looks like an ordinary value to everybody else."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer.cache.objects import is_immutable
from data_layer.schemas.base import FrozenList, FrozenObject, freeze_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
CHANGES = {
    FrozenObject: ("__delitem__", "__ior__", "__setitem__", "clear", "pop", "popitem", "setdefault", "update"),
    FrozenList: (
        *("__delitem__", "__iadd__", "__imul__", "__setitem__", "append", "clear", "extend", "insert", "pop"),
        *("remove", "reverse", "sort"),
    ),
}


@given(OBJECTS)
def test_it_is_equal_to_what_it_was_made_of(value: dict[str, Any]) -> None:
    frozen = freeze_object(value)
    assert frozen == value
    assert is_immutable(frozen)
    assert orjson.loads(orjson.dumps(frozen)) == orjson.loads(orjson.dumps(value))
    assert json.loads(json.dumps(frozen)) == json.loads(json.dumps(value))
    assert pickle.loads(pickle.dumps(frozen)) == value  # noqa: S301  (our own)


@given(OBJECTS)
def test_it_does_not_change_with_what_it_was_made_of(value: dict[str, Any]) -> None:
    frozen = freeze_object(value)
    before = copy.deepcopy(value)
    value["another"] = 1
    for inner in value.values():
        if isinstance(inner, list | dict):
            inner.clear()
    assert frozen == before


@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, names in CHANGES.items() for method in names])
def test_every_method_that_changes_it_is_refused(kind: type[Any], method: str) -> None:
    frozen = freeze_object({"object": {"a": 1}, "list": [1]})
    target = frozen["object" if kind is FrozenObject else "list"]
    with pytest.raises(TypeError, match="deepcopy"):
        getattr(target, method)("a", 1)
    assert frozen == {"object": {"a": 1}, "list": [1]}


def test_no_method_that_changes_a_dict_or_list_was_forgotten() -> None:
    kept = {"__getitem__", "__contains__", "copy", "fromkeys", "get", "items", "keys", "values", "count", "index"}
    for kind, names in CHANGES.items():
        public = {name for name in dir(kind.__mro__[1]) if not name.startswith("_")} - kept
        assert public <= set(names)


def test_a_deep_copy_can_be_changed() -> None:
    changeable = copy.deepcopy(freeze_object({"a": {"b": [1]}}))
    changeable["a"]["b"].append(2)
    assert changeable == {"a": {"b": [1, 2]}}
