"""The service with a few routes more, which begin and complete direct uploads as an application does.

``python uploading_service.py data-layer start`` is ``data-layer start`` with them. So what is uploaded over HTTP is
also decoded by the process that serves, as in an application with the library in it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request

from data_layer.api import app as application
from data_layer.cli import main
from data_layer.errors import InvalidFileError
from data_layer.layer import DataLayer

create_app = application.create_app


def create_uploading_app(data: DataLayer, faces: Iterable[APIRouter] = ()) -> FastAPI:
    """The service's application, and the routes."""
    app = create_app(data, faces)

    @app.post("/uploads")
    async def begin(content_type: str, size: int) -> dict[str, Any]:
        upload = await data.files.begin_upload(owner_id=None, content_type=content_type, size=size)
        return {"id": upload.id, "url": upload.url, "headers": upload.headers}

    @app.post("/uploads/{file_id}")
    async def complete(file_id: UUID) -> dict[str, Any]:
        try:
            view = await data.files.complete_upload(file_id, owner_id=None)
        except InvalidFileError as error:
            return {"refused": type(error).__name__}
        return {"thumbnails": len(await data.files.thumbnails(view.id, owner_id=None))}

    @app.post("/files")
    async def save(content_type: str, request: Request) -> dict[str, Any]:
        try:
            view = await data.files.save(request.stream(), owner_id=None, content_type=content_type)
        except InvalidFileError as error:
            return {"refused": type(error).__name__}
        return {"thumbnails": len(await data.files.thumbnails(view.id, owner_id=None))}

    @app.get("/objects")
    async def count_objects() -> dict[str, int]:
        return {"spared": gc.get_freeze_count(), "looked_at": len(gc.get_objects())}

    return app


if __name__ == "__main__":
    application.create_app = create_uploading_app
    sys.argv = sys.argv[1:]
    main()
