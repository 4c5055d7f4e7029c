"""How the hosted application's calls are declared: who may make them, how large they may be, how they are answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import Any, cast
from uuid import UUID

import orjson
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import SecretStr

from data_layer.context import extend_request_context, set_patience
from data_layer.errors import InvalidTokenError
from data_layer.layer import DataLayer
from data_layer.schemas.actors import Actor
from data_layer.web.authentication import authenticate, people_of
from data_layer.web.bodies import read_body
from data_layer.web.deadlines import TRY_AGAIN, UNREPEATED, Deadline, seconds_for
from data_layer.web.rate_limits import admit

_SMALL_BODY = 256 * 1024


class Call(Request):
    """A call, and the person who makes it."""

    @property
    def data(self) -> DataLayer:
        """The services."""
        return people_of(self).data

    @property
    def actor(self) -> Actor:
        """Who makes it; only of calls of the page."""
        actor: Actor = self.scope["hosted_actor"]
        return actor

    @property
    def user_id(self) -> UUID:
        """Whose account it is made with."""
        return cast("UUID", self.actor.user_id)

    async def object(self) -> dict[str, Any]:
        """The JSON object in the body; an empty one for an empty body.

        Raises:
            HTTPException: 400 for a body that is something else.
        """
        body = await read_body(self, _SMALL_BODY)
        return read_object(body) if body.strip() else {}


Handler = Callable[[Call], Awaitable[Any]]


def read_object(body: bytes | bytearray) -> dict[str, Any]:
    """Read the JSON object in a body.

    Raises:
        HTTPException: 400 where it holds something else.
    """
    try:
        value = orjson.loads(body)
    except ValueError:
        raise HTTPException(400, "the body must be JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return value


class HostedRoutes:
    """The calls of one kind."""

    def __init__(self) -> None:
        self.routes: list[HostedRoute] = []

    def add(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        authorize: Handler,
        seconds: float | None = None,
        takes_long: bool = False,
    ) -> None:
        """Declare a call.

        Args:
            method: of HTTP.
            path: may have parameters, which the handler reads itself.
            handler: returns what becomes JSON, or the whole answer.
            authorize: lets the caller through, or raises; it is called before the body is read.
            seconds: in which it is answered or refused, apart from the time in which its body arrives; None:
                REQUEST_DEADLINE.
            takes_long: whether it may take any time.
        """
        self.routes.append(
            HostedRoute(method, path, handler, authorize=authorize, seconds=seconds, takes_long=takes_long)
        )


class HostedRoute(APIRoute):
    """A call as a route of FastAPI's, which stays out of the description of our own API; see ``HostedRoutes.add``."""

    def __init__(
        self, method: str, path: str, handler: Handler, *, authorize: Handler, seconds: float | None, takes_long: bool
    ) -> None:
        self._handler = handler
        self._authorize = authorize
        self._seconds = seconds
        self._takes_long = takes_long
        # FastAPI remembers what it is given for as long as the process runs: no handler, which holds a data layer.
        super().__init__(path, _answer, methods=[method], name=handler.__name__, include_in_schema=False)

    async def answer(self, request: Request) -> Response:
        """Let the caller through before anything of the body is read, and answer within the deadline."""
        settings = people_of(request).data.settings.service
        deadline = Deadline(self._seconds or seconds_for(settings, takes_long=self._takes_long), TRY_AGAIN)
        call = Call(request.scope, deadline.without(request.receive))
        async with deadline:
            await self._authorize(call)
            content = await self._handler(call)
        return content if isinstance(content, Response) else json_answer(content)


async def _answer(request: Request) -> Response:
    route: HostedRoute = request.scope["route"]
    return await route.answer(request)


def json_answer(content: Any, status: int = 200) -> Response:
    """An answer that nobody keeps."""
    return Response(orjson.dumps(content), status, {"cache-control": "no-store"}, media_type="application/json")


async def by_person(call: Call) -> None:
    """Let somebody through who comes with a token of the issuer, or one of ours; while much is asked, in turn.

    Raises:
        AuthenticationError: neither is accepted.
        TooManyRequestsError: this person has sent too many.
    """
    caller = await authenticate(call)
    await admit(people_of(call).rates, call.scope, caller.counted_as)
    call.scope["hosted_actor"] = caller.actor


async def by_person_first(call: Call) -> None:
    """The same for a call that nothing may keep waiting, because whatever a person does depends on it.

    Raises:
        AuthenticationError: see ``by_person``.
        TooManyRequestsError: see ``by_person``.
    """
    set_patience(UNREPEATED)
    await by_person(call)


def by_back_end(secret: SecretStr) -> Handler:
    """Return a check that accepts the secret and nothing else."""
    expected = f"Bearer {secret.get_secret_value()}".encode()

    async def authorize(call: Call) -> None:
        given = [value for name, value in call.scope["headers"] if name == b"authorization"]
        set_patience(UNREPEATED)
        # Of the same length in time whatever was sent; several headers are none.
        if not compare_digest(given[0] if len(given) == 1 else b"", expected):
            raise InvalidTokenError("the secret of the back end is not SAAS_API_SECRET")
        extend_request_context(source="hosted")

    return authorize
