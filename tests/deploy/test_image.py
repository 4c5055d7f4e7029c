"""deploy/Dockerfile. No engine runs here, so its steps are proved one by one, as far as that goes without one."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
from packaging.requirements import Requirement

from data_layer import Settings
from data_layer.testing.free_ports import free_port
from tests.embedded.support import wait_for
from tests.service.support import PATIENCE, PAUSE, ask

from .support import DEPLOY, OTHER_VARIABLES, PROJECT, SETTINGS, image_environment, instructions, last_stage, run

DOCKERFILE = DEPLOY / "Dockerfile"
DOCKERFILES = sorted(DEPLOY.rglob("*Dockerfile"))
HERE = "tests/deploy/read_only_process.py"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    result = run("hadolint", dockerfile)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_it_runs_as_nobody_in_particular(dockerfile: Path) -> None:
    last = last_stage(dockerfile)
    names = [name for name, _ in last]
    user = dict(last)["USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "Kubernetes believes no name"
    assert names.index("USER") > max(number for number, name in enumerate(names) if name in {"RUN", "COPY"})
    assert "HEALTHCHECK" in names
    [base] = {words for name, words in instructions(dockerfile) if name == "FROM" and ":" in words}
    assert re.match(r"[a-z]+:[\w.]*\d[\w.]*-slim", base), "a tag, and no registry"


def test_the_last_stage_has_nothing_to_build_with() -> None:
    last = last_stage(DOCKERFILE)
    commands = " ".join(words for name, words in last if name == "RUN")
    assert "pip uninstall --yes setuptools wheel pip" in commands
    assert not re.search(r"apt-get|pip install|gcc", commands)
    copied = [words for name, words in last if name == "COPY"]
    assert copied == ["--from=build /opt/data-layer /opt/data-layer"]
    assert "--without-pip" in DOCKERFILE.read_text()


def test_it_says_what_it_is_and_what_must_be_writable() -> None:
    last = last_stage(DOCKERFILE)
    labels = " ".join(words for name, words in last if name == "LABEL")
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert json.loads(dict(last)["VOLUME"]) == [image_environment(DOCKERFILE)["DATA_FOLDER"]]


def test_its_variables_are_settings() -> None:
    assert image_environment(DOCKERFILE).keys() - OTHER_VARIABLES <= SETTINGS


def test_its_extras_exist_and_their_packages_are_locked() -> None:
    [given] = [words for name, words in instructions(DOCKERFILE) if words.startswith("EXTRAS=")]
    lock = (PROJECT / "requirements-service.lock").read_text()
    wheel_names = {Requirement(line.partition(" \\")[0]).name for line in lock.splitlines() if "==" in line}
    assert set(given.removeprefix("EXTRAS=").split(",")) == {"s3", "azure"}
    assert {"boto3", "azure-storage-blob", "opentelemetry-sdk", "hatchling"} <= wheel_names


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_build_sees_what_it_copies_and_nothing_else(dockerfile: Path) -> None:
    seen = (dockerfile.parent / f"{dockerfile.name}.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in seen if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for name, words in instructions(dockerfile)
        if name == "COPY" and "--from" not in words
        for source in words.split()[:-1]
    }
    assert copied == allowed
    assert "*" in seen, "all that is not named is left out, secrets among it"
    assert all((PROJECT / path).exists() for path in copied)
    assert not any(fnmatch.fnmatch(secret, path) for path in allowed for secret in (".env", ".git", ".data-layer"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project as the image gets it: built by the Dockerfile's own words, from what it copies and nothing else."""
    folder = tmp_path_factory.mktemp("image")
    for name, words in instructions(DOCKERFILE):
        if name == "COPY" and "--from" not in words:
            for source in words.split()[:-1]:
                run_plain("cp", "-r", str(PROJECT / source), str(folder))
    [command] = re.findall(r"pip (wheel [^&]*?) &&", " ".join(words for _, words in instructions(DOCKERFILE)))
    result = run("python", "-m", "pip", *shlex.split(command), cwd=folder)
    assert result.returncode == 0, result.stderr
    [file] = (folder / "wheels").glob("data_layer-*.whl")
    return zipfile.ZipFile(file)


def run_plain(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.slow
def test_everything_that_the_service_needs_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "src/data_layer"],  # noqa: S607
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    wanted = {name.removeprefix("src/") for name in tracked.stdout.splitlines()}
    assert wanted - set(wheel.namelist()) == set()
    [commands] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert b"data-layer = data_layer.cli:main" in wheel.read(commands)


@pytest.fixture
def prepared(migrated: Settings) -> dict[str, str]:
    """A migrated database, and everything else that production asks for."""
    assert migrated.database.database_url
    assert migrated.redis.redis_url
    return {
        "DATABASE_URL": migrated.database.database_url.get_secret_value(),
        "REDIS_URL": migrated.redis.redis_url.get_secret_value(),
        "REDIS_KEY_PREFIX": "test-image",
        "SESSION_SECRET": token_hex(32),
        "JWT_SECRET": token_hex(32),
    }


@pytest.mark.slow
@pytest.mark.timeout(300)  # A whole start and end, on a machine that may be very busy.
def test_it_starts_and_ends_with_nothing_writable_but_its_two_places(prepared: dict[str, str], tmp_path: Path) -> None:
    """The image's command with the image's variables; whatever opens, makes or removes a file elsewhere ends it."""
    data, temporary, elsewhere = (tmp_path / name for name in ("data", "tmp", "elsewhere"))
    for folder in (data, temporary, elsewhere):
        folder.mkdir()
    image = image_environment(DOCKERFILE)
    moved = {name: value.replace(image["DATA_FOLDER"], str(data)) for name, value in image.items() if name != "PATH"}
    port = free_port()
    environment = (
        os.environ
        | moved
        | prepared
        | {"TMPDIR": str(temporary), "HOST": "127.0.0.1", "PORT": str(port), "METRICS_PORT": str(free_port())}
        | {
            "SHUTDOWN_DELAY": "0",
            "WRITABLE": f"{data}:{temporary}",
            "PYTHONPATH": str(PROJECT),
        }
    )
    environment.pop("SSL_CERT_FILE")  # Where Debian keeps them.
    command = json.loads(dict(last_stage(DOCKERFILE))["CMD"])
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, PROJECT / HERE, *command], cwd=elsewhere, env=environment, stdout=output, stderr=output
        )
    try:
        check = re.search(r"CMD (\[.*\])", dict(last_stage(DOCKERFILE))["HEALTHCHECK"])
        assert check
        program, *arguments = json.loads(check[1])

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return ask(f"http://127.0.0.1:{port}/readyz").is_success
            except httpx.TransportError:
                return False

        assert wait_for(is_ready, PATIENCE, pause=PAUSE), log.read_text()
        assert run(program, *arguments, env=environment).returncode == 0, "the check says that it is healthy"
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "read-only" not in log.read_text()
    assert list(elsewhere.iterdir()) == []
    assert run(program, *arguments, env=environment).returncode == 1, "the check notices when nothing answers"


def test_without_settings_it_says_what_is_missing(tmp_path: Path) -> None:
    image = {name: value for name, value in image_environment(DOCKERFILE).items() if name != "PATH"}
    result = run("data-layer", "start", cwd=tmp_path, env=os.environ | image)
    assert result.returncode == 1
    assert all(name in result.stderr for name in ("DB_HOST", "REDIS_HOST", "SESSION_SECRET", "JWT_SECRET"))
    assert "Traceback" not in result.stderr
