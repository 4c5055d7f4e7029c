"""The source of the library, read without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "src" / "data_layer"


@dataclass(frozen=True)
class Module:
    """One file. ``name`` is dotted, below data_layer: ``cache.keys``; data_layer itself is ``__init__``."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def part(self) -> str:
        """The package or module directly below data_layer that it belongs to."""
        return self.name.partition(".")[0]

    def imports(self) -> Iterator[tuple[str, int]]:
        """The modules of data_layer that it imports, wherever in the file, with the line; named like ``name``."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Import(names=names):
                    found = [alias.name for alias in names]
                case ast.ImportFrom(level=0, module=str(module), names=names):
                    found = [_imported(module, alias.name) for alias in names]
                case ast.ImportFrom(level=level) if level:
                    raise AssertionError(f"{self.path}:{node.lineno}: relative import; name the whole module")
                case _:
                    continue
            for name in found:
                first, _, rest = name.partition(".")
                if first == "data_layer":
                    yield rest or "__init__", node.lineno


def _imported(module: str, name: str) -> str:
    """What ``from module import name`` names: the module itself, or a module in it."""
    inside = PACKAGE.parent / Path(*module.split(".")) / name
    return f"{module}.{name}" if inside.is_dir() or inside.with_suffix(".py").is_file() else module


@cache
def all_modules() -> tuple[Module, ...]:
    return tuple(
        Module(_dotted(path), path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
        for path in sorted(PACKAGE.rglob("*.py"))
    )


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[1:] and parts[-1] == "__init__" else parts)
