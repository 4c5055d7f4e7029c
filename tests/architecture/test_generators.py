"""Who makes an asynchronous generator that holds something closes it.

Otherwise a file, a connection or a task stays open until the garbage collector comes, which closes things in any
order, and leaves what is in a cycle with a traceback for later.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from .source import Module, all_modules

HOLDS_NOTHING = {"suppress", "translated", "translated_for_operators", "translated_for_reading"}
"""Blocks after which nothing has to be closed."""
FOREIGN = {"obstore"}
"""Whose generators are not ours, and close themselves when they are forgotten."""

SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef


def inside(node: ast.AST, *, holds: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """What is in a function, but not in functions within it; each with whether something is held there."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, SCOPES):
            inner = holds or is_holding(child)
            yield child, inner
            yield from inside(child, holds=inner)


def is_holding(node: ast.AST) -> bool:
    if isinstance(node, ast.With | ast.AsyncWith):
        return any(called(item.context_expr) not in HOLDS_NOTHING for item in node.items)
    return isinstance(node, ast.Try) and bool(node.finalbody)


def called(node: ast.AST) -> str | None:
    """The last name of what is called; None where nothing is, or something of another library."""
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module))) if module in FOREIGN:
            return None
        case ast.Call(func=ast.Attribute(attr=name)):
            return name
    return None


def holders(modules: tuple[Module, ...]) -> set[str]:
    """The names of generators that hold something while they wait for whoever reads them."""
    return {
        function.name
        for module in modules
        for function in ast.walk(module.tree)
        if isinstance(function, ast.AsyncFunctionDef)
        and not any("contextmanager" in ast.unparse(decorator) for decorator in function.decorator_list)
        and any(isinstance(node, ast.Yield) and holds for node, holds in inside(function))
    }


def left_open(tree: ast.Module, names: set[str]) -> list[int]:
    """The lines where a generator with such a name is read directly, and not by ``aclosing``."""
    return [
        node.iter.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.AsyncFor) or (isinstance(node, ast.comprehension) and node.is_async))
        and called(node.iter) in names
    ]


def test_a_generator_that_holds_something_is_closed() -> None:
    names = holders(all_modules())
    assert {"follow", "pieces", "list"} <= names
    found = [f"{module.path}:{line}" for module in all_modules() for line in left_open(module.tree, names)]
    assert not found, "read these with contextlib.aclosing"


def test_only_what_is_made_at_once_is_sent_without_being_closed() -> None:
    """Starlette does not close what it sends; ``GeneratedResponse`` does."""
    found = [
        f"{module.path}:{node.lineno}"
        for module in all_modules()
        for node in ast.walk(module.tree)
        if called(node) == "StreamingResponse" and isinstance(node, ast.Call)
        for function in ast.walk(module.tree)
        if isinstance(function, ast.AsyncFunctionDef) and function.name == called(node.args[0])
    ]
    assert not found, "use data_layer.web.downloads.GeneratedResponse"


@pytest.mark.parametrize(
    ("block", "is_holder"),
    [
        ("with open() as file: yield 1", True),
        ("async with a.session(): yield 1", True),
        ("try: yield 1\n finally: close()", True),
        ("with translated(key): yield 1", False),
        ("with open() as file: pass\n yield 1", False),
        ("async def inner():\n  with open(): yield 1\n yield 1", False),
    ],
)
def test_what_holds_something(block: str, *, is_holder: bool) -> None:
    tree = ast.parse(f"async def items():\n {block}")
    function = tree.body[0]
    assert any(isinstance(node, ast.Yield) and holds for node, holds in inside(function)) == is_holder


def test_how_it_is_read() -> None:
    tree = ast.parse(
        "async def f():\n async for a in self.items(): pass\n [b async for b in items()]\n for c in items(): pass"
    )
    assert left_open(tree, {"items"}) == [2, 3]
