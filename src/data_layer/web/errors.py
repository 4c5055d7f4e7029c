"""Answers to requests that fail: always problem details (RFC 9457), and nothing about the inside."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from data_layer import errors
from data_layer.errors import (
    DataLayerError,
    DeadlineExceededError,
    StillRunningError,
    StorageError,
    TooManyAttemptsError,
    TooManyRequestsError,
)
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
    (errors.InvalidLoginError, 400),
    (errors.LoginDeniedError, 403),
    (errors.EmailNotVerifiedError, 403),
    (errors.AccountInactiveError, 403),
    (errors.AccountSuspendedError, 403),
    (errors.UnverifiedIdentityError, 403),
    (errors.PermissionDeniedError, 403),
    (errors.AuthenticationError, 401),
    (errors.NotFoundError, 404),
    (errors.ChangedMeanwhileError, 412),
    (errors.ConflictError, 409),
    (errors.InvalidValueError, 422),
    (errors.FetchError, 422),
    (errors.OverloadedError, 503),
    (errors.DeadlineExceededError, 504),
    (errors.IssuerUnavailableError, 503),
    (errors.IssuerError, 502),
    (errors.MailServerError, 503),
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
_MOST_PROBLEMS = 10


PROBLEM = "application/problem+json"


class FieldProblem(Value):
    """What is wrong with one value; ``field`` is its path in the body, or its name in path, query and headers."""

    field: str
    message: str


class Problem(Value):
    """The answer to a request that failed (RFC 9457).

    ``code`` is for programs and stays; ``detail`` is for people and may change. ``fields`` says which values do not
    fit. ``current`` holds what another change has stored meanwhile.
    """

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    fields: tuple[FieldProblem, ...] = ()
    current: dict[str, Any] | None = None


_TITLES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""The names that RFC 9110 gives; older versions of Python have others, and codes are the same everywhere."""


def title_of(status: int) -> str:
    """The name of a status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def code_of(status: int) -> str:
    """The code of a failure of which nothing but the status is known."""
    return title_of(status).lower().replace(" ", "_").replace("-", "_")


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Failures of a route, for the description of the API."""
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": title_of(status), "content": content} for status in statuses}


def add_error_handlers(app: FastAPI) -> None:
    """Have the application answer every failure in the same shape."""

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        return http_failure(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def refuse_values(request: Request, error: RequestValidationError) -> Response:
        fields = _problems(error)
        detail = "; ".join(f"{each.field}: {each.message}" for each in fields)
        problem = _problem(request.scope, 422, code="request_invalid", detail=detail, fields=fields)
        return _respond(problem, None)

    @app.exception_handler(DataLayerError)
    async def refuse_work(request: Request, error: DataLayerError) -> Response:
        return failure(request.scope, error)


def http_failure(scope: Scope, error: HTTPException) -> Response:
    """The answer to what was refused because of HTTP alone."""
    code = code_of(error.status_code)
    headers = {"allow": _allowed(scope)} if error.status_code == 405 else error.headers
    return _answer(scope, error.status_code, code, error.detail, headers)


def failure(scope: Scope, error: DataLayerError) -> Response:
    """The answer to a failure of a service.

    Raises:
        DataLayerError: this one, if it has no status.
    """
    problem = problem_of(scope, error)
    return _respond(problem, failure_headers(problem.status, error))


def problem_of(scope: Scope, error: DataLayerError) -> Problem:
    """Describe a failure of a service, and log it if it is one of ours.

    Raises:
        DataLayerError: this one, if it has no status: then it is a fault of the program.
    """
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    if status is None:
        raise error
    message = str(error)
    if status >= 500:
        log.error("request_failed", code=error.code, reason=message)
        if not isinstance(error, DeadlineExceededError):
            message = _NO_STORAGE if isinstance(error, StorageError) else _UNAVAILABLE
    field: str | None = getattr(error, "field", None)
    fields = () if field is None else (FieldProblem(field=field, message=message),)
    current: dict[str, Any] | None = getattr(error, "current", None)
    return _problem(scope, status, code=error.code, detail=message, fields=fields, current=current)


def internal_error(scope: Scope) -> Response:
    """The answer where something went wrong that nobody expected; the log says more."""
    message = f"something went wrong here; the log says more about the request {scope['request_id']}"
    return _answer(scope, 500, "internal_error", message)


def refusal(scope: Scope, status: int, detail: str) -> Response:
    """The answer of a middleware to what it does not let through."""
    return _answer(scope, status, code_of(status), detail)


def failure_headers(status: int, error: DataLayerError) -> dict[str, str]:
    """What the answer to a failure of a service says beside its status: when to try again, and how to log in."""
    if isinstance(error, TooManyAttemptsError | TooManyRequestsError | StillRunningError):
        return {"retry-after": f"{error.retry_after:.0f}"} | _exceeded(error)
    if status == 503 and not isinstance(error, StorageError):
        return {"retry-after": str(_RETRY_SECONDS)}
    return {"www-authenticate": "Bearer"} if status == 401 else {}


def _exceeded(error: DataLayerError) -> dict[str, str]:
    """The limit of one kind of requests, beside that of the address, which the middleware adds."""
    limit: tuple[str, int, int] | None = getattr(error, "limit", None)
    if limit is None:
        return {}
    name, most, window = limit
    seconds = getattr(error, "retry_after", window)
    return {"ratelimit-policy": f'"{name}";q={most};w={window}', "ratelimit": f'"{name}";r=0;t={seconds:.0f}'}


def _allowed(scope: Scope) -> str:
    """The methods of all routes that have this path: the framework names those of the first one."""
    found: set[str] = set()
    for route in scope["app"].routes:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(found))


def _problems(error: RequestValidationError) -> tuple[FieldProblem, ...]:
    """What is wrong with each value, without the value: it may be a password."""
    return tuple(
        FieldProblem(
            field=".".join(map(str, problem["loc"][1:]))[:100] or str(problem["loc"][0]), message=problem["msg"][:200]
        )
        for problem in error.errors()[:_MOST_PROBLEMS]
    )


def _answer(scope: Scope, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return _respond(_problem(scope, status, code=code, detail=detail), headers)


def _problem(scope: Scope, status: int, **values: Any) -> Problem:
    return Problem(title=title_of(status), status=status, request_id=scope["request_id"], **values)


def _respond(problem: Problem, headers: Mapping[str, str] | None) -> Response:
    never_stored = {"cache-control": "no-store"}
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, never_stored | dict(headers or {}), media_type=PROBLEM)
