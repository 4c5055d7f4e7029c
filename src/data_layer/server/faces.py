"""The application that the service serves: the API and every other face, which do not know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.api.app import create_app
from data_layer.console.app import make_console
from data_layer.hosted.router import make_router as make_hosted_router

if TYPE_CHECKING:
    from fastapi import FastAPI

    from data_layer.layer import DataLayer


def whole_application(data: DataLayer) -> FastAPI:
    """Put all faces into one application, which shares their middleware, origins and error answers."""
    faces = [make_console(data), make_hosted_router(data)]
    return create_app(data, [face for face in faces if face is not None])
