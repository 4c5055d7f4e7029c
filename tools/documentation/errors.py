"""The table of errors, from the classes of ``data_layer.errors``."""

from __future__ import annotations

import inspect

from data_layer import errors
from data_layer.errors import DataLayerError


def render() -> str:
    """Each class with its code and the first paragraph of its docstring, indented below its parent."""
    lines = ["| code | class | meaning |", "| --- | --- | --- |"]
    _add(DataLayerError, 0, lines)
    return "\n".join(lines)


def _add(error: type[DataLayerError], depth: int, lines: list[str]) -> None:
    meaning = (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")
    lines.append(f"| `{error.code}` | {'&emsp;' * depth}`{error.__name__}` | {meaning} |")
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            _add(child, depth + 1, lines)
