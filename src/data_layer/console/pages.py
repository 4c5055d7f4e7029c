"""How a page is declared, and what all of them have in common.

``Pages`` collects the pages of one part::

    pages = Pages("/console/projects")

    @pages.get("/{project_id}")
    async def show(call: PageCall, project_id: UUID) -> Response:
        return call.page("project.html", project=await call.data.projects.open(call.actor, project_id))

A handler calls services and fills in a template. What is sent by a form ends with ``call.go``, so that loading the page
again does nothing again. Without a session the person logs in first and comes back. Errors become pages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode
from uuid import UUID

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from markupsafe import Markup

from data_layer.console import words
from data_layer.console.languages import DEFAULT, LANGUAGE_COOKIE, Language
from data_layer.console.rendering import Renderer
from data_layer.context import extend_request_context
from data_layer.entities.enums import UserRole
from data_layer.errors import (
    AuthenticationError,
    ConflictError,
    DataLayerError,
    InvalidSessionError,
    InvalidTokenError,
    InvalidValueError,
    TooManyAttemptsError,
    TooManyRequestsError,
    WeakPasswordError,
)
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.schemas.actors import Actor
from data_layer.services.own_paths import is_own_path
from data_layer.services.permissions import Permission, is_allowed
from data_layer.web.authentication import Caller, authenticate, people_of, refuse_other_sites
from data_layer.web.bodies import read_body
from data_layer.web.deadlines import Deadline, seconds_for
from data_layer.web.downloads import HEADERS, GeneratedResponse, Running
from data_layer.web.errors import failure_headers, problem_of
from data_layer.web.rate_limits import admit

log = get_log(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Any])
Result = TypeVar("Result")
Note = Callable[[str, int], None]
Work = Callable[[Note], Awaitable[Result]]

LOGIN_PATH = "/console/login"
_LARGEST_FORM = 64 * 1024
_MOST_FIELDS = 200
_PROGRESS = Markup("<!-- progress -->")  # What is escaped cannot contain it.


class PageCall(Request):
    """A request for a page, and who sends it."""

    @property
    def renderer(self) -> Renderer:
        """What makes pages."""
        renderer: Renderer = self.app.state.console
        return renderer

    @property
    def data(self) -> DataLayer:
        """The services."""
        return people_of(self).data

    @property
    def caller(self) -> Caller | None:
        """Who sends it; nobody in particular on pages that need no login."""
        return self.scope.get("caller")

    @property
    def actor(self) -> Actor:
        """Who acts; only of pages that need a login."""
        caller: Caller = self.scope["caller"]
        return caller.actor

    @property
    def user_id(self) -> UUID:
        """Whose account the request comes from."""
        caller: Caller = self.scope["caller"]
        return caller.user_id

    @property
    def session_id(self) -> UUID | None:
        """The session that the request comes in."""
        session = None if self.caller is None else self.caller.session
        return None if session is None else session.id

    @property
    def language(self) -> Language:
        """The language of the answer."""
        chosen = self.cookies.get(LANGUAGE_COOKIE)
        return self.renderer.languages.choose(chosen, self.headers.get("accept-language"))

    @property
    def is_partial(self) -> bool:
        """Whether htmx asks, for a part of a page."""
        return self.headers.get("hx-request") == "true"

    def text(self, message: str, **values: object) -> str:
        """A message in the language of the answer."""
        return self.language.text(message, **values)

    def reason_of(self, error: DataLayerError) -> str:
        """Why something was refused, in that language where it has words for it."""
        shortest = self.data.settings.security.password_min_length
        return reason_of(error, self.language, shortest_password=shortest)

    async def fields(self) -> dict[str, str]:
        """What a form has sent; of several values of a name the last one.

        Raises:
            HTTPException: 413 for more than a form of ours can hold, 415 for another type.
        """
        return dict(await self.pairs())

    async def pairs(self) -> list[tuple[str, str]]:
        """The same with every value."""
        if (sent := self.scope.get("console_form")) is None:
            self.scope["console_form"] = sent = await self._read_pairs()
        return list(sent)

    async def _read_pairs(self) -> list[tuple[str, str]]:
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await read_body(self, _LARGEST_FORM)
        if not body:
            return []
        if kind != "application/x-www-form-urlencoded":
            raise HTTPException(415)
        try:
            return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
        except ValueError:
            raise HTTPException(400) from None

    async def ask(self, question: str, answer: str, back: str) -> Response | None:
        """Return the page that asks before something that cannot be undone; None where the person has said yes.

        Args:
            question: what it asks.
            answer: what the button that says yes does.
            back: where the person goes who says no.
        """
        fields = await self.fields()
        if fields.pop("confirmed", "") == "yes":
            return None
        return self.page("ask.html", question=question, answer=answer, back=back, fields=fields)

    def page(self, template: str, code: int = 200, /, **values: Any) -> Response:
        """A page in the frame that all have."""
        return self.renderer.page(template, self.language, self._shared() | values, code)

    async def working_page(self, template: str, report: str, work: Work[Any], /, **values: Any) -> Response:
        """A page that is sent while something works, so that it shows without a script how far that is.

        A person who leaves the page ends the work. What fails at once is a page of its own.

        Args:
            template: the page; where it says ``{{ progress }}`` a line comes every second, and then the report.
            report: the part of a page that shows ``result``.
            work: given what it calls with what is being done, for people, and a number.
            values: for the page.
        """
        content = self.renderer.content(template, self.language, self._shared() | {"progress": _PROGRESS, **values})
        before, after = content.split(_PROGRESS.encode())
        pieces = self._while_working(before, work, report, after)
        first = await anext(pieces)
        return GeneratedResponse(pieces, first=first, media_type="text/html; charset=utf-8", headers=HEADERS)

    async def _while_working(self, before: bytes, work: Work[Any], report: str, after: bytes) -> AsyncGenerator[bytes]:
        step: dict[str, object] = {"what": "", "number": 0}
        running = Running(lambda: work(lambda what, number: step.update(what=what, number=number)), "console")
        has_begun = False
        async with aclosing(running.seconds()) as seconds:
            async for _ in seconds:
                yield (b"" if has_begun else before) + self.renderer.content("progress.html", self.language, step)
                has_begun = True
        try:
            values = {"result": running.result(), "problem": None}
        except DataLayerError as error:
            if not has_begun:
                raise
            values = {"result": None, "problem": problem_of(self.scope, error).detail}
        yield (b"" if has_begun else before) + self.renderer.content(report, self.language, values) + after

    def _shared(self) -> dict[str, Any]:
        role = None if self.caller is None else self.actor.role
        return {
            "is_logged_in": self.caller is not None,
            "role": role,
            "is_moderator": role in {UserRole.MODERATOR, UserRole.ADMIN},
            "may": self._may,
            "path": self.url.path,
            # Nobody can come back to the address that a form was sent to.
            "here": _address_of(self) if self.method in {"GET", "HEAD"} else "",
            "done": self.query_params.get("done"),
            "done_id": _uuid_text(self.query_params.get("id")),
        }

    def go(self, path: str, done: str | None = None, thing: UUID | None = None) -> Response:
        """Go on with another page after something was done.

        Args:
            path: a path of the console.
            done: what was done, as ``templates/done.html`` knows it.
            thing: to what, so that it can be undone.
        """
        values = {name: str(value) for name, value in (("done", done), ("id", thing)) if value is not None}
        path = path.removesuffix("?")
        separator = "&" if "?" in path else "?"
        return RedirectResponse(path + (separator + urlencode(values) if values else ""), 303)

    def back(
        self, fields: Mapping[str, str], otherwise: str, done: str | None = None, thing: UUID | None = None
    ) -> Response:
        """Go back to the page of the console that the form was on."""
        path = fields.get("back", "")
        return self.go(path if is_own_path(path) else otherwise, done, thing)

    def _may(self, permission: str) -> bool:
        return self.caller is not None and is_allowed(self.actor, Permission(permission))


def _address_of(call: PageCall) -> str:
    return call.url.path + (f"?{call.url.query}" if call.url.query else "")


def _uuid_text(text: str | None) -> str | None:
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        return None


class Pages:
    """The pages of one part.

    Args:
        prefix: the beginning of all paths.
        needs_login: whether they need a session.
    """

    def __init__(self, prefix: str, *, needs_login: bool = True) -> None:
        self._prefix = prefix
        self._needs_login = needs_login
        self.routes: list[PageRoute] = []

    def get(self, path: str = "", *, takes_long: bool = False) -> Callable[[Handler], Handler]:
        """Declare a page; one that takes long has no deadline (REQUEST_DEADLINE)."""
        return self._add(path, ("GET", "HEAD"), takes_long)

    def post(self, path: str = "", *, takes_long: bool = False) -> Callable[[Handler], Handler]:
        """Declare what a form does; see ``get``."""
        return self._add(path, ("POST",), takes_long)

    def _add(self, path: str, methods: tuple[str, ...], takes_long: bool) -> Callable[[Handler], Handler]:  # noqa: FBT001  (of get and post)
        def add(handler: Handler) -> Handler:
            self.routes.append(
                PageRoute(
                    self._prefix + path, handler, methods=methods, needs_login=self._needs_login, takes_long=takes_long
                )
            )
            return handler

        return add


class PageRoute(APIRoute):
    """A route that answers with pages, also where it fails."""

    def __init__(
        self, path: str, handler: Callable[..., Any], *, methods: tuple[str, ...], needs_login: bool, takes_long: bool
    ) -> None:
        self._needs_login = needs_login
        self.takes_long = takes_long
        super().__init__(path, handler, methods=list(methods), include_in_schema=False, response_model=None)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            deadline = Deadline(seconds_for(people_of(request).data.settings.service, takes_long=self.takes_long))
            call = PageCall(request.scope, deadline.without(request.receive))
            extend_request_context(source="console")
            try:
                async with deadline:
                    await self._let_in(call)
                    response = await handle(call)
            except (InvalidSessionError, InvalidTokenError):
                response = _ask_to_log_in(call)
            except HTTPException as error:
                response = error_page(call, error.status_code)
            except RequestValidationError as error:
                is_path = any(problem["loc"][0] == "path" for problem in error.errors())
                response = error_page(call, 404 if is_path else 422)
            except DataLayerError as error:
                response = _page_of(call, error)
            except Exception as error:  # noqa: BLE001  (whatever it is, the person gets a page)
                response = _crashed(call, error)
            return call.renderer.protect(response)

        return answer

    async def _let_in(self, call: PageCall) -> None:
        if self._needs_login:
            call.scope["caller"] = caller = await authenticate(call)
            await admit(people_of(call).rates, call.scope, caller.counted_as)
        else:
            refuse_other_sites(call)


def _page_of(call: PageCall, error: DataLayerError) -> Response:
    try:
        problem = problem_of(call.scope, error)
    except DataLayerError:
        return _crashed(call, error)
    detail = None if isinstance(error, AuthenticationError) or problem.status >= 500 else call.reason_of(error)
    page = error_page(call, problem.status, detail)
    page.headers.update(failure_headers(problem.status, error))
    return page


def error_page(call: PageCall, status: int, detail: str | None = None) -> Response:
    """The page for a failure; ``detail`` says why."""
    return call.page("error.html", status, status=status, detail=detail, request_id=call.scope["request_id"])


def _crashed(call: PageCall, error: Exception) -> Response:
    log.error("request_crashed", exc_info=error, path=call.url.path)
    return error_page(call, 500)


def _ask_to_log_in(call: PageCall) -> Response:
    path = _address_of(call)
    target = LOGIN_PATH
    if call.method in {"GET", "HEAD"} and not call.is_partial and path not in {"/console", "/console/"}:
        target += f"?next={quote(path, safe='')}"
    if call.is_partial:
        return Response(status_code=204, headers={"hx-redirect": target})
    return RedirectResponse(target, 303)


others = Pages("/console", needs_login=False)
"""What answers every other address below ``/console``."""


@others.get("/{rest:path}")
async def find_nothing(call: PageCall, rest: str) -> Response:
    """There is nothing at any other address."""
    del rest
    with suppress(DataLayerError):  # A logged-in person goes on from there.
        call.scope["caller"] = await authenticate(call)
    return error_page(call, 404)


def reason_of(error: DataLayerError, language: Language, *, shortest_password: int) -> str:
    """Return what a page says; what only a service has words for is marked as English.

    The words of a service are the most exact. Other languages have a sentence for each code and each field of a form
    that a person can meet.
    """
    if isinstance(error, TooManyAttemptsError | TooManyRequestsError):
        return language.text("Too many attempts. Try again in %(seconds)s seconds.", seconds=round(error.retry_after))
    if isinstance(error, AuthenticationError):
        return language.text("The password or the code is not right. Begin again.")
    if isinstance(error, WeakPasswordError) and error.reason in words.WEAK_PASSWORDS:
        return language.text(words.WEAK_PASSWORDS[error.reason], minimum=shortest_password)
    if language.code == DEFAULT:
        return str(error)
    known = words.REFUSALS.get(error.code) or (
        words.REFUSED_FIELDS.get(error.field or "") if isinstance(error, InvalidValueError | ConflictError) else None
    )
    return language.text(known) if known else Markup('<span lang="en">{}</span>').format(str(error))


Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice], text: str | None) -> Choice | None:
    """The member of an enumeration that a text names; None where it names none."""
    try:
        return kind(text or "")
    except ValueError:
        return None
