"""What is installed is exactly what pyproject.toml asks for, and the lock files name no place to get it from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .source import PROJECT

TO_RUN = PROJECT / "requirements.lock"
TO_SERVE = PROJECT / "requirements-service.lock"
TO_DOCUMENT = PROJECT / "requirements-docs.lock"
TO_DEVELOP = PROJECT / "requirements-dev.lock"
TO_MEASURE = PROJECT / "requirements-bench.lock"
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

BASIC = [*PYPROJECT["build-system"]["requires"], *PYPROJECT["project"]["dependencies"]]
EXTRAS_OF_THE_SERVICE = [
    one for name in ("service", "images", "azure", "s3", "otel", "azure-monitor") for one in EXTRAS[name]
]
ASKED_TO_RUN = [*BASIC, *EXTRAS["embedded"], *EXTRAS["service"], *EXTRAS["images"]]
ASKED_TO_SERVE = [*BASIC, *EXTRAS_OF_THE_SERVICE]
ASKED_TO_DOCUMENT = [*BASIC, *EXTRAS["service"], *EXTRAS["docs"]]
ASKED_TO_DEVELOP = [*ASKED_TO_RUN, *EXTRAS_OF_THE_SERVICE, *EXTRAS["docs"], *EXTRAS["dev"]]

installed_locks = pytest.mark.parametrize(
    ("lock", "asked"),
    [
        (TO_RUN, ASKED_TO_RUN),
        (TO_SERVE, ASKED_TO_SERVE),
        (TO_DOCUMENT, ASKED_TO_DOCUMENT),
        (TO_DEVELOP, ASKED_TO_DEVELOP),
    ],
    ids=["run", "serve", "document", "develop"],
)


def read_pins(lock: Path) -> dict[str, Requirement]:
    """The pins that apply to this Python: some packages have another version for another one."""
    lines = re.sub(r"\\\n", " ", lock.read_text(encoding="utf-8")).splitlines()
    pins = [Requirement(line.partition("--hash")[0]) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins if applies(pin)}


def locked_version(pin: Requirement) -> Version:
    (exact,) = pin.specifier
    return Version(exact.version)


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def needed(asked: Iterable[str]) -> Iterator[tuple[str, Requirement]]:
    """Every requirement that applies here, those of requirements included, with who asks for it."""
    seen: set[tuple[str, str]] = set()
    queue = [("pyproject.toml", Requirement(text)) for text in asked]
    while queue:
        source, requirement = queue.pop()
        yield source, requirement
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            further = (Requirement(text) for text in requires(name) or ())
            queue += [(name, one) for one in further if applies(one, extra)]


@installed_locks
def test_every_requirement_is_locked_at_a_version_that_fits(lock: Path, asked: list[str]) -> None:
    pins = read_pins(lock)
    wrong = [
        f"{source} needs {requirement}, {lock.name} has {pin or 'nothing'}; run: make lock"
        for source, requirement in needed(asked)
        if (pin := pins.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(locked_version(pin), prereleases=True)
    ]
    assert not wrong, "\n".join(wrong)


@installed_locks
def test_nothing_is_locked_that_nobody_needs(lock: Path, asked: list[str]) -> None:
    assert set(read_pins(lock)) == {canonicalize_name(requirement.name) for _, requirement in needed(asked)}


@pytest.mark.parametrize("smaller", [TO_RUN, TO_SERVE, TO_DOCUMENT], ids=["run", "serve", "document"])
@pytest.mark.parametrize("larger", [TO_DEVELOP, TO_MEASURE], ids=["develop", "measure"])
def test_what_runs_is_what_is_tested_and_measured(smaller: Path, larger: Path) -> None:
    run, pins = read_pins(smaller), read_pins(larger)
    assert {name: pin.specifier for name, pin in run.items()} == {name: pins[name].specifier for name in run}


@pytest.mark.parametrize("lock", sorted(PROJECT.glob("requirements*.lock")), ids=lambda lock: lock.name)
def test_a_lock_holds_exact_versions_and_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    comment, entry = r"#[ \w]+:?\n", r"[\w.-]+==[\w.]+( ; [ \w.<>=!'()*]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.sub(f"^({comment}|{entry})", "", text, flags=re.MULTILINE) == ""
