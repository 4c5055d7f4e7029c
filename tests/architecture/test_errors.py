"""Programs compare the codes of errors; people read the tree."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from data_layer import errors
from data_layer.errors import DataLayerError


def classes() -> list[type[DataLayerError]]:
    return [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, DataLayerError)]


def draw(error: type[DataLayerError], indent: str = "") -> Iterator[tuple[str, str]]:
    """The lines that the tree should have below this error: what is drawn, and the code."""
    children = [child for child in error.__subclasses__() if child.__module__.startswith(errors.__name__)]
    for child in children:
        is_last = child is children[-1]
        yield f"{indent}{'└' if is_last else '├'}── {child.__name__}", child.code
        yield from draw(child, indent + ("    " if is_last else "│   "))


def test_every_error_belongs_to_the_tree() -> None:
    assert set(classes()) == {value for value in vars(errors).values() if inspect.isclass(value)}


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [vars(error)["code"] for error in classes()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_the_drawn_tree_is_the_tree() -> None:
    drawing = (errors.__doc__ or "").partition("    DataLayerError\n")[2]
    lines = [line[4:].rsplit(maxsplit=1) for line in drawing.rstrip().splitlines()]
    assert [(name.rstrip(), code) for name, code in lines] == list(draw(DataLayerError))


def test_every_error_says_what_it_means() -> None:
    assert all(vars(error).get("__doc__") for error in classes())
