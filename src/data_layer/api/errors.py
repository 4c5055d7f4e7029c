"""Answers to requests that fail: always ``{"error": {"code": …, "message": …}}``, and nothing about the inside."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from asgi_correlation_id import correlation_id
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from data_layer.errors import (
    ContentMismatchError,
    FileNotFoundInStorageError,
    FileTooLargeError,
    InvalidFileError,
    InvalidSignatureError,
    InvalidStorageKeyError,
    StorageError,
    StorageFullError,
)
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request

log = get_log(__name__)

_STORAGE_STATUSES: tuple[tuple[type[StorageError], int], ...] = (
    (InvalidSignatureError, 403),
    (FileNotFoundInStorageError, 404),
    (InvalidStorageKeyError, 404),  # A signed URL names none of these.
    (FileTooLargeError, 413),
    (InvalidFileError, 422),
    (ContentMismatchError, 422),
    (StorageFullError, 507),
)


def add_error_handlers(app: FastAPI) -> None:
    """Have the application answer every failure in the same shape."""

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        return _answer(error.status_code, code, error.detail, error.headers)

    @app.exception_handler(StorageError)
    async def refuse_file(_: Request, error: StorageError) -> JSONResponse:
        status = next((status for kind, status in _STORAGE_STATUSES if isinstance(error, kind)), 503)
        if status < 500:
            return _answer(status, error.code, str(error))
        log.error("request_failed", code=error.code, reason=str(error))
        return _answer(status, error.code, "the storage of files is not available at the moment; try again later")

    @app.exception_handler(Exception)
    async def apologize(_: Request, __: Exception) -> JSONResponse:
        # It is logged with its traceback by the server. This answer passes by the middleware that adds the header.
        request_id = correlation_id.get() or ""
        message = f"something went wrong here; the log tells more about the request {request_id}"
        return _answer(500, "internal_error", message, {"x-request-id": request_id})


def _answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
