"""Which faults would the tests not notice? ``python -m tools.mutants --sample 120 --seed 1`` (``make mutants``).

Changes one place of the code at a time, in a copy of the project, and runs the tests of that area until the first one
fails. What no test notices is printed as a diff, to be read: either it makes no difference to anybody, or a test is
missing. Mutation tools that exist change annotations as well, leave out no statements, and know one command for all
tests, which here start servers and take minutes.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/data_layer")
COPIED = ("src", "tests", "tools", "docs", "deploy", "examples", "pyproject.toml", "Makefile", "README.md")
AREAS = {
    "database": ("tests/database", "tests/migrations"),
    "cache": ("tests/cache", "tests/contract/cache"),
    "services/sessions": ("tests/services/sessions", "tests/cli/test_sessions.py", "tests/test_layer_metrics.py"),
    "services/tokens.py": ("tests/services/tokens", "tests/api/test_people.py"),
    "services/files": ("tests/services/files", "tests/api/test_files.py", "tests/cli/test_storage.py"),
    "server": ("tests/server", "tests/service"),
}
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    area: str
    path: Path
    line: int
    source: str
    changed: str

    @property
    def diff(self) -> str:
        """The change, as it is read."""
        before, after = self.source.splitlines(keepends=True), self.changed.splitlines(keepends=True)
        return "".join(difflib.unified_diff(before, after, str(self.path), str(self.path), n=2))


@dataclass(frozen=True)
class Outcome:
    """What the tests said of a change."""

    mutant: Mutant
    result: str
    seconds: float


def mutants_of(area: str, path: Path) -> Iterator[Mutant]:
    """Every change that this tool knows of a file."""
    source = (ROOT / path).read_text()
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    encoded = source.encode()
    for node, replacement in changes(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        changed = (encoded[:begin] + replacement.encode() + encoded[end:]).decode()
        with suppress(SyntaxError):  # Such as a walrus without its parentheses.
            compile(changed, str(path), "exec", dont_inherit=True)
            yield Mutant(area, path, node.lineno, source, changed)


def changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The nodes below this one that can be changed, each with what takes its place."""
    for child in children_of(node):
        if isinstance(child, ast.stmt):
            yield from ((child, text) for text in statement_changes(child))
        elif isinstance(child, ast.expr):
            yield from ((child, f"({ast.unparse(new)})") for new in expression_changes(child))
        yield from changes(child)


def children_of(node: ast.AST) -> Iterator[ast.AST]:
    """What is worth a change: no annotations, formatted texts, limits that somebody chose, or first values."""
    is_constructor = isinstance(node, ast.FunctionDef) and node.name == "__init__"
    left_out = (ast.Assign, ast.AnnAssign) if is_constructor or isinstance(node, ast.Module) else (ast.JoinedStr,)
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Expr) and ast.unparse(child).startswith(("log.", "logger.")):
                continue
            is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if isinstance(child, ast.AST) and not isinstance(child, left_out) and not is_for_types:
                yield child


def statement_changes(node: ast.stmt) -> Iterator[str]:
    """What may stand instead of a statement."""
    match node:
        case ast.Expr(value=ast.Constant()):  # A docstring.
            return
        case ast.Expr():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield "pass"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "return None"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"


def expression_changes(node: ast.expr) -> Iterator[ast.expr]:
    """What may stand instead of an expression."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED:
            yield with_field(node, "ops", [SWAPPED[type(operator)]()])
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator) if type(operator) in SWAPPED:
            yield with_field(node, "op", SWAPPED[type(operator)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=other):
            yield from (body, other)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Call(keywords=keywords):
            for keyword in keywords:
                yield with_field(node, "keywords", [each for each in keywords if each is not keyword])


def with_field(node: ast.expr, name: str, value: object) -> ast.expr:
    """A copy of a node with another value in one field."""
    new = copy.copy(node)
    setattr(new, name, value)
    return new


def chosen(sample: int, seed: int, areas: Sequence[str]) -> list[Mutant]:
    """As many of each area."""
    dice = random.Random(seed)  # noqa: S311  (repeatable)
    mutants = []
    for area in areas:
        place = ROOT / PACKAGE / area
        paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
        known = [path.relative_to(ROOT) for path in paths if "versions" not in path.parts]
        found = [mutant for path in known for mutant in mutants_of(area, path)]
        mutants += dice.sample(found, min(len(found), max(1, sample // len(areas))))
    dice.shuffle(mutants)
    return mutants


def files_of_tests(area: str, path: Path | None = None) -> list[str]:
    """The files of tests of an area; first those that have most to do with the changed file."""
    files = [file for place in AREAS[area] for file in sorted((ROOT / place).rglob("test_*.py"))]
    files += [ROOT / place for place in AREAS[area] if place.endswith(".py")]
    if path is not None:
        source = (ROOT / path).read_text()
        names = {path.stem, *re.findall(r"^ *(?:async def|def|class) ([A-Za-z]\w{3,})", source, re.MULTILINE)}
        pattern = re.compile(rf"\b({'|'.join(sorted(names))})\b")

        def closeness(file: Path) -> tuple[bool, int]:
            return path.stem in file.stem, len(set(pattern.findall(file.read_text())))

        files.sort(key=closeness, reverse=True)
    return [str(file.relative_to(ROOT)) for file in files]


@contextmanager
def copies(number: int) -> Iterator[queue.Queue[Path]]:
    """Copies of the project, to be taken and given back."""
    with tempfile.TemporaryDirectory(prefix="m-", ignore_cleanup_errors=True) as folder:
        free: queue.Queue[Path] = queue.Queue()
        for index in range(number):
            place = Path(folder, str(index))
            for name in COPIED:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, place / name, symlinks=True)
                else:
                    shutil.copy(ROOT / name, place / name)
            free.put(place)
        yield free


def run_tests(place: Path, files: Sequence[str], limit: float, marker: str) -> str:
    """What became of the tests: passed, failed, or timed out."""
    temporary = place / "t"
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(place / "src"), "TMPDIR": str(temporary)}
    options = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "-m", marker)
    with (place / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *files],
            cwd=place,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = -1
            os.killpg(process.pid, signal.SIGKILL)  # It was not waited for yet, so the number is still its own.
            process.wait()
    end_all_in(place)
    shutil.rmtree(temporary, ignore_errors=True)
    if status in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:  # Where nothing ran, nothing noticed.
        return "survived"
    if status == -1:
        return "timed out"
    if status not in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}:  # The latter: an import failed.
        return f"not tried, pytest ended with {status}"
    blamed = re.search(r"^(?:FAILED|ERROR) (\S+)", (place / "output").read_text(errors="replace"), re.MULTILINE)
    return f"noticed by {blamed[1] if blamed else 'all'}"


def end_all_in(place: Path) -> None:
    """Servers of tests that could not clean up."""
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if entry.readlink().is_relative_to(place):
                os.kill(int(entry.parent.name), signal.SIGKILL)


def tried(mutant: Mutant, free: queue.Queue[Path], given: argparse.Namespace) -> Outcome:
    """What the tests say of a change."""
    place = free.get()
    target = place / mutant.path
    began = time.monotonic()
    try:
        replace(target, mutant.changed)
        result = run_tests(place, files_of_tests(mutant.area, mutant.path)[: given.closest], given.limit, given.marker)
    finally:
        replace(target, mutant.source)
        free.put(place)
    return Outcome(mutant, result, time.monotonic() - began)


def replace(target: Path, text: str) -> None:
    """Write the file; one compiled from the same size in the same second would be taken for this one's."""
    target.write_text(text)
    for compiled in target.parent.glob(f"__pycache__/{target.stem}.*"):
        compiled.unlink()


def check_unchanged(area: str, free: queue.Queue[Path], given: argparse.Namespace) -> None:
    """The tests have to pass without a change: otherwise everything would seem to be noticed."""
    place = free.get()
    began = time.monotonic()
    try:
        result = run_tests(place, files_of_tests(area), given.limit, given.marker)
        if result != "survived":
            said = (place / "output").read_text()[-3000:]
            raise SystemExit(f"the tests of {area} do not pass as they are ({result}):\n{said}")
    finally:
        free.put(place)
    print(f"{area}: all pass in {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """Try a sample and print what survived."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=120, help="how many changes are tried (120)")
    parser.add_argument("--seed", type=int, default=1, help="another number, another sample (1)")
    parser.add_argument("--limit", type=float, default=900, help="seconds for the tests of one change (900)")
    parser.add_argument("--closest", type=int, help="run only so many files of tests, those closest to the changed one")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at the same time (2)")
    parser.add_argument("--marker", default="not slow", help="which tests run, as for pytest -m (not slow)")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a change first")
    parser.add_argument("areas", nargs="*", default=list(AREAS), help=f"by default all: {', '.join(AREAS)}")
    given = parser.parse_args()
    mutants = chosen(given.sample, given.seed, given.areas)
    outcomes = []
    with copies(given.jobs) as free, ThreadPoolExecutor(given.jobs) as threads:
        if not given.unchecked:
            list(threads.map(lambda area: check_unchanged(area, free, given), given.areas))
        for outcome in threads.map(lambda mutant: tried(mutant, free, given), mutants):
            outcomes.append(outcome)
            place = f"{outcome.mutant.path}:{outcome.mutant.line}"
            print(f"{len(outcomes)}/{len(mutants)} {outcome.result} {place} ({outcome.seconds:.0f} s)", flush=True)
            if outcome.result == "survived":
                print(outcome.mutant.diff, flush=True)
    for area in given.areas:
        results = Counter(outcome.result.partition(" by")[0] for outcome in outcomes if outcome.mutant.area == area)
        print(f"{area}: {', '.join(f'{number} {result}' for result, number in results.items())}")


if __name__ == "__main__":
    main()
