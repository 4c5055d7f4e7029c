"""The texts of services that the console translates: what the doctor says, and what entries of the audit trail say.

Both are read from the source, so a new one only needs its translation. What cannot be read there, such as an f-string,
is refused: no translator could know it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "data_layer"
_PLACE = re.compile(r"%\((\w+)\)s")
_RESULTS = frozenset({"ok", "warning", "failed", "nothing_yet"})
_SPOKEN = ("services/doctor/*.py", "layer/doctor.py")
_RECORDING = ("services/**/*.py", "web/**/*.py", "recorder/**/*.py", "hosted/**/*.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class UntranslatableError(Exception):
    """A text that is only known when it is said."""


@dataclass(frozen=True, slots=True, order=True)
class Said:
    """A text, and the file that it is in."""

    text: str
    path: str


def of_doctor() -> set[Said]:
    """The templates of what the doctor says.

    Raises:
        UntranslatableError: one is not a literal, or its places are not what is filled in.
    """
    found = set()
    for path, tree in _modules(*_SPOKEN):
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else None
            # ``masked`` and the helpers of ``checks.py`` hand on what others have written.
            if name in _RESULTS and not any(keyword.arg is None for keyword in call.keywords):
                texts = [text for argument in call.args for text in _literals(argument, path)]
                _compare(texts, {str(keyword.arg) for keyword in call.keywords}, path, call)
            elif name == "Text" and isinstance(call.args[0], ast.Constant | ast.IfExp):
                texts = list(_literals(call.args[0], path))
                if len(call.args) == 1 or isinstance(call.args[1], ast.Dict):
                    keys = call.args[1].keys if len(call.args) > 1 and isinstance(call.args[1], ast.Dict) else []
                    _compare(texts, {str(key.value) for key in keys if isinstance(key, ast.Constant)}, path, call)
            else:
                continue
            found |= {Said(text, path) for text in texts}
    return found


def _literals(value: ast.expr, path: str) -> Iterator[str]:
    if isinstance(value, ast.IfExp):
        yield from _literals(value.body, path)
        yield from _literals(value.orelse, path)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    else:
        raise UntranslatableError(f"{path}:{value.lineno}: {ast.unparse(value)} is not a literal")


def _compare(texts: list[str], values: set[str], path: str, call: ast.Call) -> None:
    places = {place for text in texts for place in _PLACE.findall(text)}
    if places != values:
        raise UntranslatableError(f"{path}:{call.lineno}: the places {places} are filled with {values}")


def of_audit_trail() -> set[Said]:
    """The descriptions of entries of the audit trail.

    Raises:
        UntranslatableError: one is not a literal.
    """
    modules = _modules(*_RECORDING)
    takers = {
        "user_action": _Taker(None, "description", 2),
        "admin_action": _Taker(None, "description", 2),
        "security_event": _Taker(None, "description", 1),
        "system_event": _Taker(None, "description", 1),
        "data_action": _Taker(None, "description", 4),
        "make_row": _Taker(None, "description", 1),
    }
    known = -1
    found: set[Said] = set()
    while len(takers) != known:
        known = len(takers)
        for path, tree in modules:
            found |= _Descriptions(path, tree, takers).found()
    return found


@dataclass(frozen=True, slots=True)
class _Taker:
    """A function that takes a description: as which parameter. ``path``: of private ones the module."""

    path: str | None
    parameter: str
    position: int


class _Descriptions:
    """The descriptions in one module; functions that hand on a parameter become takers themselves."""

    def __init__(self, path: str, tree: ast.Module, takers: dict[str, _Taker]) -> None:
        self._path, self._tree, self._takers = path, tree, takers
        self._found: set[Said] = set()

    def found(self) -> set[Said]:
        """Those that are literals, and those that variables hold."""
        self._look(self._tree, ())
        return self._found

    def _look(self, node: ast.AST, functions: tuple[Function, ...]) -> None:
        if isinstance(node, Function):
            functions = (*functions, node)
        if isinstance(node, ast.Call):
            self._call(node, functions)
        for child in ast.iter_child_nodes(node):
            self._look(child, functions)

    def _call(self, call: ast.Call, functions: tuple[Function, ...]) -> None:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        taker = self._takers.get(_key(name, self._path))
        if taker is None:
            return
        positional = [each for argument in call.args for each in _expanded(argument)]
        value = next((keyword.value for keyword in call.keywords if keyword.arg == taker.parameter), None)
        if value is None and len(positional) > taker.position:
            value = positional[taker.position]
        if value is not None:
            self._value(value, functions)

    def _value(self, value: ast.expr, functions: tuple[Function, ...]) -> None:
        match value:
            case ast.Constant(value=str(text)):
                self._found.add(Said(text, self._path))
            case ast.Constant(value=None):
                pass
            case ast.IfExp(body=one, orelse=other):
                self._value(one, functions)
                self._value(other, functions)
            case ast.BoolOp(values=values):
                for each in values:
                    self._value(each, functions)
            case ast.Name(id=name):
                self._variable(name, value, functions)
            case ast.Subscript(value=ast.Name(id=name)):
                self._variable(name, value, functions)
            case ast.Dict(values=values):
                for each in values:
                    self._value(each, functions)
            case _:
                raise UntranslatableError(f"{self._path}:{value.lineno}: {ast.unparse(value)} is not a literal")

    def _variable(self, name: str, value: ast.expr, functions: tuple[Function, ...]) -> None:
        for function in reversed(functions):
            names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
            keywords = [each.arg for each in function.args.kwonlyargs]
            if name in {*names, *keywords}:
                own = [each for each in names if each not in {"self", "cls"}]
                position = own.index(name) if name in own else 10**6
                taker = _Taker(self._path, name, position)
                self._takers.setdefault(_key(function.name, self._path), taker)
                return
            if self._assigned(name, function, functions):
                return
        if not self._assigned(name, self._tree, functions):
            raise UntranslatableError(f"{self._path}:{value.lineno}: {name} is not a literal")

    def _assigned(self, name: str, scope: ast.AST, functions: tuple[Function, ...]) -> bool:
        assigned = [
            node.value
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
        ]
        for value in assigned:
            self._value(value, functions)
        return bool(assigned)


def _key(name: str, path: str) -> str:
    """Private functions of different modules may have one name."""
    return f"{path}:{name}" if name.startswith("_") else name


def _expanded(argument: ast.expr) -> list[ast.expr]:
    if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple):
        return list(argument.value.elts)
    return [argument]


def _modules(*patterns: str) -> list[tuple[str, ast.Module]]:
    paths = sorted({path for pattern in patterns for path in PACKAGE.glob(pattern)})
    return [(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]
