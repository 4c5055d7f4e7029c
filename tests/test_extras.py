"""What an extra installs is needed only where it is used, and its absence is said with what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_layer import Settings
from data_layer.errors import MissingExtraError
from data_layer.extras import require_extra
from tests.file_content import picture

SERVICE = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "asgi_correlation_id")
IMAGES = ("PIL",)

HIDE = """
import sys
for name in {names}:
    sys.modules[name] = None  # Importing it fails, as if it were not installed.
"""

LIBRARY = """
import asyncio
from data_layer import AuditAction, AuditLog, DataLayer, Settings, User
from data_layer.errors import MissingExtraError

PICTURE = {picture}


async def main():
    async with DataLayer(Settings()) as data:
        user = User(email="ada@example.com", first_name="Ada", last_name="Example")
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(AuditLog.user_action(AuditAction.USER_REGISTER, user.id, "User registered"))
        await data.cache.set("user", {{"name": "Ada"}}, ttl=60)
        assert await data.cache.get("user") == {{"name": "Ada"}}
        await data.storage.upload(PICTURE, "any/bytes.png", "image/png")
        assert await data.storage.download("any/bytes.png") == PICTURE
        pdf = await data.files.save(b"%PDF-1.4\\n%%EOF\\n", owner_id=user.id, allowed_types=["application/pdf"])
        assert await data.files.delete(pdf.id, owner_id=user.id)
        try:
            await data.files.save(PICTURE, owner_id=user.id)
        except MissingExtraError as error:
            print(error)
        assert (await data.health()).overall


asyncio.run(main())
"""


def run(program: str, *, without: tuple[str, ...], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(names=without) + program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_an_extra_that_is_there_is_no_error() -> None:
    require_extra("images", "storing an image", "PIL", "pytest")


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.below"])
def test_an_extra_that_is_missing_is_named(module: str) -> None:
    with pytest.raises(MissingExtraError) as caught:
        require_extra("images", "storing an image", "pytest", module)
    assert str(caught.value) == (
        f"storing an image needs {module}, which is not installed; run: pip install 'data-layer[images]'"
    )


def test_the_library_works_without_what_serves_http_and_decodes_images(settings: Settings, tmp_path: Path) -> None:
    assert settings.database.database_url
    assert settings.redis.redis_url
    finished = run(
        LIBRARY.format(picture=picture()),
        without=(*SERVICE, *IMAGES),
        DATABASE_URL=settings.database.database_url.get_secret_value(),
        REDIS_URL=settings.redis.redis_url.get_secret_value(),
        REDIS_KEY_PREFIX=settings.redis.redis_key_prefix,
        LOCAL_STORAGE_PATH=str(tmp_path),
        ENVIRONMENT="testing",
    )
    assert finished.returncode == 0, finished.stderr
    assert "pip install 'data-layer[images]'" in finished.stdout


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "asgi_correlation_id"])
@pytest.mark.parametrize("command", ["dev", "start"])
def test_the_service_says_what_it_needs(command: str, missing: str, tmp_path: Path) -> None:
    program = f"import sys; sys.argv = ['data-layer', {command!r}]; from data_layer.cli import main; main()"
    finished = run(program, without=(missing,), DATA_FOLDER=str(tmp_path / "data"))
    assert finished.returncode == 1
    assert f"serving HTTP needs {missing}, which is not installed; run: pip install 'data-layer[service]'" in (
        finished.stderr
    )
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("module", ["data_layer.api.app", "data_layer.server"])
def test_what_serves_http_cannot_be_imported_without_its_extra(module: str) -> None:
    finished = run(f"import {module}", without=SERVICE)
    assert finished.returncode != 0
    assert "MissingExtraError: serving HTTP needs" in finished.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "db --help"])
def test_other_commands_do_without_it(command: str) -> None:
    program = f"import sys; sys.argv = ['data-layer', *{command.split()}]; from data_layer.cli import main; main()"
    assert run(program, without=(*SERVICE, *IMAGES)).returncode == 0
