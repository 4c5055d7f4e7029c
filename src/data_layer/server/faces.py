"""The application that the service serves: the API and every other face, which do not know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.api.app import create_app
from data_layer.console.app import make_console

if TYPE_CHECKING:
    from fastapi import FastAPI

    from data_layer.layer import DataLayer


def whole_application(data: DataLayer) -> FastAPI:
    """Put all faces into one application, which shares their middleware, origins and error answers."""
    return create_app(data, (make_console(data),))
