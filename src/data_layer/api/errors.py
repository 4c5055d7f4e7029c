"""Answers to requests that fail: always ``{"error": {"code": …, "message": …}}``, and nothing about the inside."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from data_layer import errors
from data_layer.errors import DataLayerError, StorageError, TooManyAttemptsError, TooManyRequestsError
from data_layer.observability.log import get_log
from data_layer.schemas.base import Value

log = get_log(__name__)

_STATUSES: tuple[tuple[type[DataLayerError], int], ...] = (
    (errors.InvalidSignatureError, 403),
    (errors.FileNotFoundInStorageError, 404),
    (errors.InvalidStorageKeyError, 404),  # A signed URL names none of these.
    (errors.FileTooLargeError, 413),
    (errors.InvalidFileError, 422),
    (errors.ContentMismatchError, 422),
    (errors.StorageFullError, 507),
    (errors.DamagedFileError, 500),  # Asking again does not repair it.
    (errors.StorageError, 503),
    (errors.TooManyAttemptsError, 429),
    (errors.TooManyRequestsError, 429),
    (errors.InvalidOneTimeTokenError, 400),
    (errors.EmailNotVerifiedError, 403),
    (errors.AccountInactiveError, 403),
    (errors.AccountSuspendedError, 403),
    (errors.UnverifiedIdentityError, 403),
    (errors.PermissionDeniedError, 403),
    (errors.AuthenticationError, 401),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.InvalidValueError, 422),
    (errors.FetchError, 422),
    (errors.OverloadedError, 503),
    (errors.DatabaseUnavailableError, 503),
    (errors.PoolTimeoutError, 503),
    (errors.StatementTimeoutError, 503),
    (errors.ConcurrentChangeError, 503),
    (errors.CommitUnknownError, 503),
    (errors.CacheError, 503),
)
"""The status for each kind of error: the first that fits. All others are failures of ours."""

_NO_STORAGE = "the storage of files is not available at the moment; try again later"
_UNAVAILABLE = "this is not available at the moment; try again in a few seconds"
_RETRY_SECONDS = 5
_PROBLEMS_TOLD = 10


class ErrorDetail(Value):
    """What went wrong: a code for programs, which stays, and words for people, which may change."""

    code: str
    message: str


class ErrorAnswer(Value):
    """The answer to a request that failed."""

    error: ErrorDetail


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Failures of a route, for the description of the API."""
    return {status: {"model": ErrorAnswer} for status in statuses}


def add_error_handlers(app: FastAPI) -> None:
    """Have the application answer every failure in the same shape."""

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        return _answer(error.status_code, code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_values(_: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(422, "request_invalid", "; ".join(_problems(error)))

    @app.exception_handler(DataLayerError)
    async def refuse_work(_: Request, error: DataLayerError) -> JSONResponse:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
        if status is None:
            raise error
        message = str(error)
        if status >= 500:
            log.error("request_failed", code=error.code, reason=message)
            message = _NO_STORAGE if isinstance(error, StorageError) else _UNAVAILABLE
        return _answer(status, error.code, message, _headers(status, error))


def internal_error(request_id: str) -> JSONResponse:
    """The answer where something went wrong that nobody expected; the log tells more."""
    message = f"something went wrong here; the log tells more about the request {request_id}"
    return _answer(500, "internal_error", message)


def _headers(status: int, error: DataLayerError) -> dict[str, str]:
    if isinstance(error, TooManyAttemptsError | TooManyRequestsError):
        return {"retry-after": f"{error.retry_after:.0f}"}
    if status == 503 and not isinstance(error, StorageError):
        return {"retry-after": str(_RETRY_SECONDS)}
    return {"www-authenticate": "Bearer"} if status == 401 else {}


def _problems(error: RequestValidationError) -> list[str]:
    """What is wrong with each value, without the value: it may be a password."""
    problems = error.errors()[:_PROBLEMS_TOLD]
    return [
        f"{'.'.join(map(str, problem['loc'][1:])) or problem['loc'][0]}: {problem['msg']}"[:200] for problem in problems
    ]


def _answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    never_stored = {"cache-control": "no-store"}
    return JSONResponse({"error": {"code": code, "message": message}}, status, never_stored | dict(headers or {}))
