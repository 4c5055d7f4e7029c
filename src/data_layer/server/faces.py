"""The application that the service serves: the API and every other face, which do not know each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import FastAPI
from starlette.types import ASGIApp

from data_layer.api.app import create_app
from data_layer.console import app as console
from data_layer.hosted.back_end import make_router as make_hosted_router
from data_layer.layer import DataLayer
from data_layer.server.served import Served

if TYPE_CHECKING:
    from data_layer.recorder.application import RecorderOptions


def whole_application(data: DataLayer, open_project: Callable[[UUID], str] | None = None) -> FastAPI:
    """Put all faces into one application, which shares their middleware, origins and error answers.

    Args:
        data: open.
        open_project: the address at which a project is opened in the application that makes the pages.
    """
    faces = [console.router, make_hosted_router(data)]
    app = create_app(data, [face for face in faces if face is not None])
    app.state.console = console.make_renderer(data, open_project)
    return app


@asynccontextmanager
async def service_application(data: DataLayer) -> AsyncIterator[ASGIApp]:
    """Yield what the service serves."""
    yield whole_application(data)


def around_application(application: ASGIApp, options: RecorderOptions, *, largest_message: int) -> Served:
    """Serve somebody's application together with the service, and record what it does."""

    def make(data: DataLayer) -> AbstractAsyncContextManager[ASGIApp]:
        from data_layer.recorder.application import recorded
        from data_layer.recorder.projects import open_address

        return recorded(data, whole_application(data, open_address), application, options)

    return Served(make, largest_message)
