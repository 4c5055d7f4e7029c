"""What `make build` makes, installed as an application installs it: into its own environment, without this project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import data_layer

PROJECT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    [recipe] = re.findall(
        r"^build:.*\n\t@\$\(bin\)/(hatchling build) --directory dist$", read("Makefile"), re.MULTILINE
    )
    run(sys.executable, "-m", *recipe.split(), "--directory", folder, cwd=PROJECT)
    return folder


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what the quick start needs, and nothing for HTTP."""
    environment = tmp_path_factory.mktemp("clean") / "environment"
    [wheel] = built.glob("data_layer-*.whl")
    python = environment / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=built)
    run(
        *(UV, "pip", "install", "--quiet", "--python", python, f"data-layer[embedded,images] @ file://{wheel}"),
        *("--constraint", PROJECT / "requirements.lock"),
        cwd=built,
    )
    return python


def test_the_version_has_one_source(built: Path) -> None:
    assert "version = " not in read("pyproject.toml").partition("[project.urls]")[0]
    names = sorted(path.name for path in built.iterdir())
    assert names == [
        f"data_layer-{data_layer.__version__}-py3-none-any.whl",
        f"data_layer-{data_layer.__version__}.tar.gz",
    ]


def test_the_source_distribution_has_what_it_takes_to_build_and_nothing_private(built: Path) -> None:
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "src/data_layer/py.typed"} <= names
    assert any(re.fullmatch(r"src/data_layer/database/migrations/versions/0001_\w+\.py", name) for name in names)
    assert not [name for name in names if re.match(r"\.env$|\.venv|\.git/|\.data-layer|uploads/", name)]


def test_the_quick_start_runs_from_the_wheel(installed: Path, short_folder: Path) -> None:
    program = PROJECT / "examples" / "quickstart.py"
    output = run(installed, "-I", program, short_folder, cwd=short_folder)
    assert "read back               3 versions and the screenshot, byte for byte the same" in output


def test_its_commands_work_and_say_what_serving_needs(installed: Path, short_folder: Path) -> None:
    command = installed.with_name("data-layer")
    assert run(command, "--version", cwd=short_folder) == f"data-layer {data_layer.__version__}\n"
    refused = subprocess.run([command, "dev"], cwd=short_folder, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "pip install 'data-layer[service]'" in refused.stderr


def test_types_are_found_by_those_who_check_theirs(installed: Path, tmp_path: Path) -> None:
    found = run(installed, "-I", "-c", "import data_layer; print(data_layer.__file__)", cwd=tmp_path)
    package = Path(found.strip()).parent
    assert package.is_relative_to(installed.parents[1])
    assert (package / "py.typed").exists()
