"""A reader holds one function, and one file, in the head."""

from __future__ import annotations

import ast

from .source import PROJECT, all_modules

LONGEST_FUNCTION = 60
LONGEST_FILE = 400


def test_no_function_is_too_long() -> None:
    too_long = [
        f"{module.path.relative_to(PROJECT)}:{node.lineno}: {node.name} has {lines} lines"
        for module in all_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not too_long, "\n".join(too_long)


def test_no_file_is_too_long() -> None:
    sizes = {module.path.relative_to(PROJECT): len(module.path.read_text().splitlines()) for module in all_modules()}
    assert {path: lines for path, lines in sizes.items() if lines > LONGEST_FILE} == {}
