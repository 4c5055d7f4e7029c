"""The application of somebody else: found by its name, and started and stopped as its server would do it."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_layer.concurrency import cancel_and_wait
from data_layer.errors import ConfigurationError
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

log = get_log(__name__)


def load_application(name: str) -> ASGIApp:
    """Import ``MODULE:NAME``, with the working directory on the path, as uvicorn does.

    Raises:
        ConfigurationError: the application does not exist.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"{name!r} names no application; write it as MODULE:NAME, such as main:app")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        where = f"in {folder} or its environment"
        raise ConfigurationError(f"cannot load {name}: the module {error.name!r} does not exist {where}") from error
    except AttributeError:
        raise ConfigurationError(f"cannot load {name}: the module has no {attribute!r}") from None
    if not callable(found):
        raise ConfigurationError(f"cannot load {name}: it is not an application")
    return found  # type: ignore[no-any-return]


@asynccontextmanager
async def lifespan_of(application: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Start an application for the block, and stop it afterwards; yields the state that its requests see.

    One that knows no lifespan is left alone.

    Raises:
        ConfigurationError: it could not start.
    """
    state: dict[str, Any] = {}
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message | None] = asyncio.Queue()

    async def run() -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        try:
            await application(scope, incoming.get, answers.put)
        except Exception as error:  # noqa: BLE001  (so applications say that they know no lifespan)
            log.info("application_without_lifespan", reason=type(error).__name__)
        finally:
            answers.put_nowait(None)

    task = asyncio.create_task(run(), name="application-lifespan")
    try:
        await incoming.put({"type": "lifespan.startup"})
        answer = await answers.get()
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise ConfigurationError(f"the application did not start: {answer.get('message') or 'it gave no reason'}")
        yield state
        if not task.done():
            await incoming.put({"type": "lifespan.shutdown"})
            await answers.get()
    finally:
        await cancel_and_wait(task)
