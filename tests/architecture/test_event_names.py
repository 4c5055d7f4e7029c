"""Events have static names in snake_case, so that a search for one finds all of them."""

from __future__ import annotations

import ast
import re

from .source import all_modules

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
METHODS = {"debug", "info", "warning", "error"}


def names_of_events() -> list[tuple[str, ast.expr]]:
    """The first argument of each call that logs or times, and where it is."""
    return [
        (f"{module.path}:{node.lineno}", node.args[0])
        for module in all_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and node.args and _logs(node.func)
    ]


def _logs(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id="log"), attr=attr):
            return attr in METHODS
        case ast.Name(id="timed"):
            return True
    return False


def test_names_are_static_and_in_snake_case() -> None:
    events = names_of_events()
    assert len(events) > 40, "the search finds them"
    wrong = [
        f"{place}: {ast.unparse(name)}"
        for place, name in events
        if not (isinstance(name, ast.Constant) and NAME.fullmatch(str(name.value)))
    ]
    assert not wrong, "\n".join(wrong)
