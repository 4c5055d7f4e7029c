"""One request of the client: what is sent, what is repeated, and what the answer becomes.

=====================================================  ================================================================
it happens                                             what follows
=====================================================  ================================================================
no answer, or 502, 503, 504                            GET, PUT and DELETE are sent again, and a POST with its
                                                       Idempotency-Key; everything else fails
429, 409 ``still_running``                             the same, after ``Retry-After``
401, and the client has a refresh token                the tokens are renewed once, and the request is sent again:
                                                       a refused request has changed nothing
a DELETE that was repeated answers 404                 it has succeeded before
=====================================================  ================================================================

Files are in memory, on the disk or open already, and read while they are sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
import time
from asyncio import to_thread
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Final, TypeVar, final
from uuid import uuid4

import httpx
from pydantic import TypeAdapter, ValidationError

from data_layer.client.authentication import Authentication, IssuedTokens, LoginTokens
from data_layer.client.base import Answer
from data_layer.concurrency import Backoff
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
    ServiceUnreachableError,
    UnexpectedAnswerError,
)

File = bytes | Path | IO[bytes]
"""What is sent as a file. One that is open must be seekable, so that it can be sent again."""

_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class FormPart:
    """A file that can be read."""

    name: str
    content: bytes | IO[bytes]

    @classmethod
    @contextmanager
    def opened(cls, file: File | None) -> Iterator[FormPart | None]:
        """Open a file for one attempt to send it, from its beginning."""
        match file:
            case None:
                yield None
            case bytes():
                yield cls("file", file)
            case Path():
                with file.open("rb") as stream:
                    yield cls(file.name, stream)
            case _:
                file.seek(0)
                yield cls(name_of(file), file)

    def form(self, body: Mapping[str, Any] | None) -> list[tuple[str, tuple[str | None, bytes | IO[bytes], str]]]:
        """The parts of a form that brings it."""
        kind = mimetypes.guess_type(self.name)[0] or "application/octet-stream"
        data = json.dumps(body or {}).encode()
        return [("data", (None, data, "application/json")), ("file", (self.name, self.content, kind))]


def name_of(file: File) -> str:
    """What a file is called."""
    if isinstance(file, Path):
        return file.name
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else "file"


@dataclass(frozen=True, slots=True)
class Measured:
    """The size of a file and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


async def measure(file: File) -> Measured:
    """Read a file once."""
    digest, size = hashlib.sha256(), 0
    async with aclosing(pieces(file)) as content:
        async for piece in content:
            digest.update(piece)
            size += len(piece)
    return Measured(size, digest.hexdigest())


async def pieces(file: File) -> AsyncGenerator[bytes]:
    """The content of a file, read in threads."""
    with FormPart.opened(file) as part:
        content = part.content if part is not None else b""
        if isinstance(content, bytes):
            yield content
            return
        while piece := await to_thread(content.read, _PIECE):
            yield piece


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


AnswerType = TypeVar("AnswerType", bound=Answer)

_REPEATED_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_REPEATED_STATUSES = frozenset({429, 502, 503, 504})
_FIRST_FAILURE = 400
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


@final
class Unset:
    """The kind of ``UNSET``."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""Not sent at all, which is something else than ``None`` where null removes a value."""


def new_key() -> str:
    """An Idempotency-Key."""
    return str(uuid4())


@dataclass(frozen=True, slots=True)
class Call:
    """A request to make.

    Attributes:
        method: of HTTP.
        path: with its values, quoted.
        query: without what is UNSET or None.
        body: a JSON object; what is UNSET in it is left out.
        file: goes with the body into a form.
        headers: more of them.
        is_repeatable: the service carries it out once, however often it comes.
        needs_login: whether the token goes with it.
        follow_redirects: to where the bytes of a file are.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    file: File | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    is_repeatable: bool = False
    needs_login: bool = True
    follow_redirects: bool = False

    @property
    def may_be_repeated(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.is_repeatable or self.method in _REPEATED_METHODS or self.headers.get("Idempotency-Key") is not None


class Patience:
    """How long a call is repeated, and the pauses in between: each twice the one before, with some chance.

    Args:
        seconds: for all attempts together, from the first failure on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, jitter=0.5)

    def renew(self) -> None:
        """Begin again: something has succeeded."""
        self._until = None
        self._backoff.reset()

    async def wait(self, at_least: float | None = None) -> bool:
        """Wait before the next attempt; False: too little time is left for it."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        pause = max(self._backoff.next(), at_least or 0.0)
        if now + pause > self._until:
            return False
        await asyncio.sleep(pause)
        return True


class Transport:
    """Sends what the resources ask for.

    Args:
        http: the connections, and the address of the service.
        authentication: the tokens.
        patience: seconds for which a request is repeated.
    """

    def __init__(self, http: httpx.AsyncClient, authentication: Authentication, patience: float) -> None:
        self.http = http
        self.authentication = authentication
        self._seconds = patience

    @property
    def patience(self) -> Patience:
        """A new measure of it."""
        return Patience(self._seconds)

    async def send(self, kind: type[AnswerType], call: Call) -> AnswerType:
        """Make a call, and read its answer.

        Raises:
            ProblemError: the service reports a failure.
            ServiceUnreachableError: it does not answer.
            UnexpectedAnswerError: the answer is not what the description of the API promises.
        """
        return read_answer(kind, call, await self.respond(call))

    async def respond(self, call: Call) -> httpx.Response:
        """Make a call, and return its answer with its body."""
        async with self.stream(call) as response:
            try:
                await response.aread()
            except httpx.TransportError as error:
                raise _unreachable(call, error) from error
            return response

    @asynccontextmanager
    async def stream(self, call: Call, *, limits: httpx.Timeout | None = None) -> AsyncIterator[httpx.Response]:
        """Make a call, and return its answer before its body has come. It closes the answer.

        The bodies of all answers but streamed ones are short, and come with their heads: what breaks in between is
        repeated as if there had been no answer.
        """
        response = await self._attempt(call, limits)
        try:
            yield response
        finally:
            await response.aclose()

    async def _attempt(self, call: Call, limits: httpx.Timeout | None) -> httpx.Response:
        patience = self.patience
        is_renewed = is_repeated = False
        while True:
            failure: ProblemError | ServiceUnreachableError
            token = await self.authentication.token(self.refresh) if call.needs_login else None
            try:
                response = await self._once(call, token, limits)
            except httpx.TransportError as error:
                failure = _unreachable(call, error)
            else:
                if response.status_code < _FIRST_FAILURE:
                    return response
                failure = await _read_problem(response)
                if failure.status == 401 and token is not None and not is_renewed:
                    is_renewed = await self.authentication.renew(token, self.refresh)
                    if is_renewed:
                        continue
                if isinstance(failure, NotFoundProblemError) and is_repeated and call.method == "DELETE":
                    return httpx.Response(204)
                if failure.status not in _REPEATED_STATUSES and failure.code != "still_running":
                    raise failure
            if not call.may_be_repeated or not await patience.wait(getattr(failure, "retry_after", None)):
                raise failure
            is_repeated = True

    async def _once(self, call: Call, token: str | None, limits: httpx.Timeout | None) -> httpx.Response:
        headers = {name: value for name, value in call.headers.items() if value is not None}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        options: dict[str, Any] = {} if limits is None else {"timeout": limits}
        body = None if call.body is None else plain({k: v for k, v in call.body.items() if v is not UNSET})
        with FormPart.opened(call.file) as part:
            if part is not None:
                options["files"] = part.form(body)
            elif body is not None:
                options["json"] = body
            request = self.http.build_request(
                call.method, call.path, params=_query(call.query), headers=headers, **options
            )
            response = await self.http.send(request, stream=True, follow_redirects=call.follow_redirects)
        if not call.follow_redirects and response.is_redirect:
            await response.aclose()
            raise UnexpectedAnswerError(f"{call.method} {call.path} leads elsewhere; check the address of the service")
        return response

    async def refresh(self, refresh_token: str) -> LoginTokens:
        """Exchange a refresh token. For a few seconds the service answers the same again, so this may be repeated."""
        call = Call(
            "POST",
            "/v1/tokens/refresh",
            body={"refresh_token": refresh_token},
            is_repeatable=True,
            needs_login=False,
        )
        return await self.tokens(call)

    async def tokens(self, call: Call) -> LoginTokens:
        """Make a call that is answered with tokens."""
        return (await self.send(IssuedTokens, call)).from_now()


def read_answer(kind: type[AnswerType], call: Call, response: httpx.Response) -> AnswerType:
    """What an answer says.

    Raises:
        UnexpectedAnswerError: it is not what the description of the API promises.
    """
    try:
        answer = kind.model_validate_json(response.content)
    except ValidationError as error:
        places = ", ".join(sorted({".".join(map(str, each["loc"])) or "the whole" for each in error.errors()}))
        raise UnexpectedAnswerError(
            f"the answer to {call.method} {call.path} does not fit {kind.__name__}: {places}; "
            "check the address of the service, and that the client is of its version"
        ) from None
    answer.remember(response.headers.get("etag"))
    return answer


def plain(value: Any) -> Any:
    """As JSON takes it; what was not given to a value is left out."""
    return _ANY.dump_python(value, mode="json", exclude_unset=True)


def _query(values: Mapping[str, Any]) -> list[tuple[str, str | int | float | bool | None]]:
    found: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in values.items():
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        found += [(name, _text(each)) for each in several if each is not None and each is not UNSET]
    return found


def _text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case date():  # And datetime.
            return value.isoformat()
        case _:
            return str(value)


async def _read_problem(response: httpx.Response) -> ProblemError:
    try:
        await response.aread()
    except httpx.TransportError:
        return problem_of(httpx.Response(response.status_code, headers=response.headers, request=response.request))
    finally:
        await response.aclose()
    return problem_of(response)


def _unreachable(call: Call, error: httpx.TransportError) -> ServiceUnreachableError:
    reason = str(error) or type(error).__name__
    return ServiceUnreachableError(
        f"no answer to {call.method} {call.path}: {reason}; check the address of the service and whether it runs"
    )
