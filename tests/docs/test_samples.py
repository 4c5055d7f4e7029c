"""Every sample of the site works: code and commands run, settings are settings, SQL and JSON are accepted."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from sqlalchemy import make_url, text

from data_layer import AuditAction, DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.embedded.binaries import postgresql_binary
from data_layer.entities.enums import UserRole
from data_layer.schemas.actors import SYSTEM
from data_layer.server.http_server import HttpServer
from tests.cli.conftest import command, logging_as_before
from tests.cli.support import Commands, command_tree
from tests.services.accounts.support import make_account

from .samples import SOURCE, Sample, all_samples, samples_by_page
from .test_documents import ROOT

__all__ = ["command", "logging_as_before"]

LANGUAGES = {"python", "bash", "ini", "sql", "json", "yaml"}
NOT_RUN_AT_MOST = 9
ONLY_PARSED = {"dev", "start", "db rollback", "db reset", "storage migrate"}
"""They never end, or would change what the tests beside this one use."""
PROGRAMS = {"psql", "pg_dump", "pg_restore", "createdb", "dropdb", "openssl", "tar", "cp", "mv", "mkdir"}
SETTINGS = {name.upper() for name in Settings.fields()}
PASSWORD = "correct horse battery staple"


def identify(samples: list[Sample]) -> dict[str, Any]:
    return {"argvalues": samples, "ids": [f"{sample.page}:{sample.line}" for sample in samples]}


def in_language(language: str) -> list[Sample]:
    return [sample for page in samples_by_page(language).values() for sample in page]


def test_every_sample_is_checked_or_says_why_not() -> None:
    samples = all_samples()
    assert {sample.language for sample in samples} <= LANGUAGES
    assert len(samples) > 60
    assert len([sample for sample in samples if sample.not_run]) <= NOT_RUN_AT_MOST


# --- Python ---


@pytest.mark.parametrize("page", samples_by_page("python"))
async def test_python_runs(
    page: str, data: DataLayer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples of a page are one program; ``await`` may stand where the page has no function around it."""
    assert data.settings is settings  # Its tables are empty.
    monkeypatch.chdir(tmp_path)
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "screenshot.png").write_bytes(
        (ROOT / "src/data_layer/seed_data/screenshots/recipe-article.png").read_bytes()
    )
    if page != "how-to/python-client":
        await run_page(page)
        return
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("DATA_LAYER_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
    await make_account(data, "ada@example.com", password=PASSWORD)
    server = HttpServer(create_app(data), listener, finish_seconds=1)
    server.start()
    try:
        await run_page(page)
    finally:
        await server.close()


async def run_page(page: str) -> None:
    names: dict[str, Any] = {"__name__": "sample"}
    path = str(SOURCE / f"{page}.md")
    for sample in samples_by_page("python")[page]:
        # Lines are numbered as on the page, so that a traceback leads there.
        program = "\n" * (sample.line - 1) + sample.text
        code = compile(program, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, names)  # noqa: S307  (they are our own)
        if inspect.isawaitable(result):
            await result


def environment_of(settings: Settings) -> dict[str, str]:
    assert settings.database.database_url
    assert settings.redis.redis_url
    return {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": settings.database.database_url.get_secret_value(),
        "REDIS_URL": settings.redis.redis_url.get_secret_value(),
        "REDIS_KEY_PREFIX": settings.redis.redis_key_prefix,
        "LOCAL_STORAGE_PATH": str(settings.storage.local_storage_path),
        "BCRYPT_ROUNDS": "4",
    }


# --- Commands ---


@pytest.mark.parametrize("page", samples_by_page("bash"))
def test_commands_run(page: str, command: Commands, settings: Settings, tmp_path: Path) -> None:
    asyncio.run(populate(settings))
    for sample in samples_by_page("bash")[page]:
        lines = [shlex.split(line, comments=True) for line in sample.text.replace("\\\n", " ").splitlines()]
        exported = {name: value for words in lines if words[:1] == ["export"] for name, value in assignments(words)}
        if exported:
            assert read_settings(exported, tmp_path)
        for line, words in zip(sample.text.replace("\\\n", " ").splitlines(), lines, strict=True):
            if words and words[0] != "export":
                run_line(line, words, command, settings, tmp_path, elsewhere=bool(exported))


def run_line(
    line: str, words: list[str], command: Commands, settings: Settings, folder: Path, *, elsewhere: bool
) -> None:
    """``elsewhere``: the sample has named servers that are not there, so its commands are only parsed."""
    program = words[0].removeprefix(".venv/bin/")
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif program == "data-layer":
        if parsed(words[1:]) not in ONLY_PARSED and not elsewhere:
            command(*words[1:], typed=f"{PASSWORD}\n", BCRYPT_ROUNDS="4", DATA_FOLDER=str(folder))
    elif program == "curl":
        assert urlsplit(words[-1]).path in asyncio.run(paths_of_the_service(settings))
    else:
        assert program in PROGRAMS, f"{line!r}: nothing here can run it; mark the sample as not run, and say why"
        run_program(line, settings, folder)


async def paths_of_the_service(settings: Settings) -> set[str]:
    async with DataLayer(settings) as data:
        return set(create_app(data).openapi()["paths"])


def parsed(words: Sequence[str]) -> str:
    """The name of the command that is called; it fails if there is no such command, argument or option."""
    below: Any = command_tree()
    if words == ["--version"]:  # It prints and ends at once.
        return "--version"
    context = below.make_context("data-layer", list(words))
    names = []
    while hasattr(below, "commands"):
        name, below, rest = below.resolve_command(context, [*context._protected_args, *context.args])
        names.append(name)
        context = below.make_context(name, rest, parent=context)
    return " ".join(names)


def run_program(line: str, settings: Settings, folder: Path) -> None:
    path = f"{postgresql_binary('psql').parent}{os.pathsep}{os.environ['PATH']}"
    assert settings.database.database_url
    server = make_url(settings.database.database_url.get_secret_value())
    libpq = {"PGHOST": str(server.query.get("host", server.host)), "PGUSER": server.username or ""}
    environment = {**os.environ, **environment_of(settings), **libpq, "PATH": path}
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", line], cwd=folder, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, (line, done.stderr.decode())


async def populate(settings: Settings) -> None:
    """Whom the samples speak of: Ada, who is logged in, and an administrator."""
    async with DataLayer(settings) as data:
        for email, role in (("ada@example.com", "user"), ("grace@example.com", "admin")):
            user = await data.accounts.create(
                SYSTEM, email=email, first_name="Ada", last_name="Example", password=PASSWORD, role=UserRole(role)
            )
            await data.sessions.create(user.id)


# --- Settings ---


@pytest.mark.parametrize("sample", **identify(in_language("ini")))
def test_settings_are_settings(sample: Sample, tmp_path: Path) -> None:
    assert read_settings(dict(assignments(sample.text.splitlines())), tmp_path)


def assignments(lines: Sequence[str]) -> list[tuple[str, str]]:
    found = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    assert {name for name, _, _ in found} <= SETTINGS
    return [(name, value.strip("'\"")) for name, _, value in found]


def read_settings(values: dict[str, str], folder: Path) -> Settings:
    """As the service reads them: secrets that are left out with … filled in, and files that are named made."""
    for name, value in values.items():
        if value.startswith("/") and value.endswith((".pem", ".crt", ".key")):
            file = folder / value.rpartition("/")[2]
            file.touch()
            values[name] = str(file)
        else:
            values[name] = value.replace("…", os.urandom(32).hex())
    file = folder / "sample.env"
    file.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    return Settings(_env_file=file)


# --- What is only read ---


def test_json_and_yaml_can_be_read() -> None:
    for sample in in_language("json"):
        assert json.loads(sample.text), sample
    for sample in in_language("yaml"):
        assert list(yaml.safe_load_all(sample.text)), sample


# --- SQL; what it grants is tested in test_privileges ---


@pytest.mark.parametrize("sample", **identify([each for each in in_language("sql") if each.page == "troubleshooting"]))
async def test_sql_runs(sample: Sample, data: DataLayer) -> None:
    async with data.transaction() as tx:
        await tx.execute(text(sample.text))


# --- Names in sentences ---

HOSTED = (ROOT / "deploy" / "compose" / "hosted.yaml").read_text()
NOT_OURS = {"FORWARDED_ALLOW_IPS", "MALLOC_ARENA_MAX", *re.findall(r"\b[A-Z]+(?:_[A-Z0-9]+)+\b", HOSTED)}
"""uvicorn's, glibc's, and those of the hosted application."""


def names_in_sentences(pattern: str) -> set[tuple[str, str]]:
    """What stands in backticks outside of samples, with its page."""
    found = set()
    for page in sorted(SOURCE.rglob("*.md")):
        if "_build" not in page.parts:
            sentences = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
            found |= {(page.stem, name) for name in re.findall(rf"`({pattern})`", sentences)}
    return found


def test_settings_that_are_mentioned_exist() -> None:
    mentioned = names_in_sentences(r"[A-Z0-9]+(?:_[A-Z0-9]+)+(?:=[^`]*)?")
    assert len(mentioned) > 40
    unknown = {(page, name) for page, name in mentioned if name.partition("=")[0] not in SETTINGS | NOT_OURS}
    assert {(page, name) for page, name in unknown if not name.startswith("OTEL_")} == set()


def test_commands_that_are_mentioned_exist() -> None:
    mentioned = names_in_sentences(r"data-layer [^`]+")
    assert len(mentioned) > 20
    for page, line in mentioned:
        words = line.split()[1:]
        below: Any = command_tree()
        while hasattr(below, "commands"):
            name = words.pop(0)
            assert name in below.commands, (page, line)
            below = below.commands[name]
        actions = {words[at + 1] for at, word in enumerate(words) if word == "--action"}
        assert actions <= set(AuditAction), (page, line)
        options = {option for parameter in below.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, (page, line)


def test_codes_and_events_that_are_mentioned_exist() -> None:
    """Only where they are looked up: in the first column of the tables of symptoms."""
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    rows = re.findall(r"^\| (.+?) \|", (SOURCE / "troubleshooting.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", row)]
    assert len(names) > 50
    assert [name for name in names if f'"{name}"' not in source] == []


def test_files_that_are_mentioned_exist() -> None:
    mentioned = names_in_sentences(r"(?:deploy|src|tools|examples)/[^`]+")
    assert mentioned
    assert [(page, name) for page, name in mentioned if not (ROOT / name).exists()] == []
