"""Answers that report a failure, as errors (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx

from data_layer.errors import (
    ChangedMeanwhileProblemError,
    ConflictProblemError,
    LimitProblemError,
    LoginProblemError,
    NotFoundProblemError,
    PermissionProblemError,
    ProblemError,
    RequestProblemError,
    ServiceProblemError,
)

_KINDS: dict[int, type[ProblemError]] = {
    401: LoginProblemError,
    403: PermissionProblemError,
    404: NotFoundProblemError,
    409: ConflictProblemError,
    412: ChangedMeanwhileProblemError,
    429: LimitProblemError,
}


def problem_of(response: httpx.Response) -> ProblemError:
    """The error that an answer reports; also of a proxy, which sends something else. Its body has been read."""
    try:
        content = response.json()
    except ValueError:
        content = {}
    retry_after = response.headers.get("retry-after", "")
    return error_of(
        content if isinstance(content, dict) else {},
        response.status_code,
        request_id=response.headers.get("x-request-id", ""),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )


def error_of(
    problem: dict[str, Any], status: int, *, request_id: str = "", retry_after: float | None = None
) -> ProblemError:
    """The error that a problem describes."""
    kind = _KINDS.get(status) or (
        ServiceProblemError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else RequestProblemError
    )
    fields = {each["field"]: each["message"] for each in problem.get("fields", ())}
    return kind(
        str(problem.get("detail") or f"the service answered with status {status}"),
        status=status,
        problem_code=problem.get("code"),
        request_id=str(problem.get("request_id") or request_id),
        fields=fields,
        current=problem.get("current"),
        retry_after=retry_after,
    )
