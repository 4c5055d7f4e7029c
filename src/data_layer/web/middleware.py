"""What every request passes: the application, one middleware for id, context, metrics and log, and one for its span.

Of the headers that name the client, those that trusted proxies add are believed.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, routing
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_layer.context import new_correlation_id, request_context, set_patience
from data_layer.observability.log import get_log
from data_layer.observability.metrics.counters import UNMATCHED, HttpCounters
from data_layer.observability.tracing.current import current_traceparent
from data_layer.services.rate_limits import RateLimiter
from data_layer.services.shares import SHARE_PATH
from data_layer.text_cache import cached_by_text
from data_layer.web.authentication import People
from data_layer.web.deadlines import ORDINARY
from data_layer.web.errors import internal_error
from data_layer.web.rate_limits import headers_of, refused_address

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from data_layer.observability.tracing.tracing import Tracing


Address = IPv4Address | IPv6Address
Headers = list[tuple[bytes, bytes]]

UNIX_SOCKET = "unix"
"""Stands for a proxy that is connected by a Unix socket, and so has no address."""

_MOST_HOPS = 32
_BRACKETED = re.compile(r"\[([^\]]*)\](:\d+)?")
_WITH_PORT = re.compile(r"([0-9.]+):\d+")
_SCHEMES = frozenset({"http", "https"})
_SCHEMES_OF_WEBSOCKETS = {"http": "ws", "https": "wss"}


class TrustedProxies:
    """What may be believed of the headers that proxies add.

    A proxy adds the address of its client to the right of what that client has sent, so the list is read from the
    right, for as long as the addresses are those of trusted proxies: the first other one is the client. What stands
    to the left of it anybody can have written. Only one header is read: a proxy passes on the other one as its client
    wrote it.

    Args:
        trusted: addresses and networks, and ``unix``.
        header: the one that the proxies add to: x-forwarded-for, or forwarded (RFC 7239).
    """

    def __init__(self, trusted: tuple[str, ...], header: str = "x-forwarded-for") -> None:
        self._networks = [network_of_proxies(each) for each in trusted if each != UNIX_SOCKET]
        self._trusts_sockets = UNIX_SOCKET in trusted
        self._header = header.encode()

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer is one of the proxies; None is one without an address."""
        if peer is None:
            return self._trusts_sockets
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def origin(self, peer: str | None, headers: Headers) -> tuple[str | None, str | None]:
        """The address and the scheme of the client; None for the scheme where no proxy says it."""
        if not self.trusts(peer):
            return peer, None
        hops = self._hops(headers)
        client = peer
        for hop, _ in hops[:_MOST_HOPS]:
            address = _address(hop)
            if address is None:
                break  # Unknown, or made up: the proxy that was asked by it is all that is known.
            client = str(address)
            if not self.trusts(client):
                break
        return client, self._scheme(hops, headers)

    def put_origin(self, scope: Scope) -> bool:
        """Put the client's own address and scheme into a request, if a trusted proxy has sent it; whether one has."""
        peer = scope["client"][0] if scope.get("client") else None
        if not self.trusts(peer):
            return False
        address, scheme = self.origin(peer, scope["headers"])
        scope["client"] = None if address is None else (address, 0)
        if scheme is not None:
            scope["scheme"] = _SCHEMES_OF_WEBSOCKETS[scheme] if scope["type"] == "websocket" else scheme
        return True

    def _hops(self, headers: Headers) -> list[tuple[str, str | None]]:
        """Addresses with schemes, the last proxy's first."""
        text = b",".join(value for name, value in headers if name == self._header).decode("latin-1")
        elements = [element.strip(" \t") for element in text.split(",")]
        if self._header == b"forwarded":
            return [_read_element(element) for element in reversed(elements) if element]
        return [(element, None) for element in reversed(elements) if element]

    def _scheme(self, hops: list[tuple[str, str | None]], headers: Headers) -> str | None:
        if self._header == b"forwarded":
            scheme = hops[0][1] if hops else None
        else:
            text = b",".join(value for name, value in headers if name == b"x-forwarded-proto").decode("latin-1")
            scheme = text.rpartition(",")[2].strip(" \t")
        return scheme.lower() if scheme is not None and scheme.lower() in _SCHEMES else None


def network_of_proxies(text: str) -> IPv4Network | IPv6Network:
    """The network that an address or a network stands for; one of mapped IPv4 addresses is one of IPv4."""
    network = ipaddress.ip_network(text, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)
    return network


@cached_by_text(4096)
def _address(text: str) -> Address | None:
    """An address, with or without a port or a zone; a mapped IPv4 address is one of IPv4."""
    match = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((match[1] if match else text).partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _read_element(element: str) -> tuple[str, str | None]:
    """The address and the scheme of an element of Forwarded."""
    pairs = {}
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        pairs[name.strip(" \t").lower()] = value.strip(" \t").removeprefix('"').removesuffix('"')
    return pairs.get("for", ""), pairs.get("proto")


log = get_log(__name__)

MAXIMUM_REQUEST_ID = 128
_REQUEST_ID = b"x-request-id"
_ADDED = "added_headers"
_FORWARDING = frozenset({b"x-forwarded-for", b"forwarded"})
# Asked every few seconds by machines; their requests are worth a line only to someone who looks for them.
_PROBES = frozenset({"/livez", "/readyz", "/health"})


class Application(FastAPI):
    """Calls our middlewares first, and what FastAPI's own routes need behind them.

    FastAPI would put up to three of its own before them, which answer what crashes, limit bodies and trace. Ours do
    that, and each costs every request.

    Attributes:
        people: what the routes for people work with. Not in ``state``, whose attributes Starlette finds by a function.
    """

    people: People

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the middlewares around what answers errors, the one that was added last outermost."""
        ours, self.user_middleware = self.user_middleware, []
        app: Any = super().build_middleware_stack()
        self.user_middleware = ours
        # What is inside depends on the version: some close the files of forms there, others in each route.
        while not isinstance(app, ExceptionMiddleware):
            app = app.app
        for middleware in reversed(ours):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        answer: ASGIApp = app
        return answer


class RequestMiddleware:
    """What every request gets: one middleware instead of five, because each costs every request.

    - The address and the scheme of the client, as trusted proxies say (TRUSTED_PROXIES).
    - An id: that of the client's ``X-Request-ID`` if it is a sane one, else a new one. The answer carries it.
    - A limit for its address, except for probes and static files.
    - It waits for the database as requests do whose callers repeat them; routes and probes may say otherwise.
    - A context with address, user agent and id, for everything that is recorded; authentication adds the actor.
    - A line in the log with method, path, status, address and duration. Never the query, which may hold a secret, nor
      the token of a share.
    - Metrics, by the template of the route.
    - An answer, if the application raises an exception that nobody expected, and a line with its traceback.

    Args:
        app: what is called.
        proxies: which headers to believe.
        counters: where requests are counted; None: nowhere.
        routes: whose templates name the counters.
        rates: how many requests an address may send.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        proxies: TrustedProxies,
        counters: HttpCounters | None,
        routes: Sequence[BaseRoute],
        rates: RateLimiter,
    ) -> None:
        self._app = app
        self._rates = rates
        self._proxies = proxies
        self._counters = counters
        self._is_warned = False
        self._templates = _templates(routes)
        if counters is not None:
            counters.expect((path, method) for path, methods in self._templates.values() for method in methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        self._find_origin(scope)
        client = scope["client"][0] if scope.get("client") else None
        request_id, agent = _identify(scope["headers"])
        scope["request_id"] = request_id
        # A list, because middleware inside may hand on a copy of the scope.
        scope[_ADDED] = []
        set_patience(ORDINARY)
        answer = _Answer(send, request_id, scope)
        counters = self._counters
        if counters is not None:
            counters.in_progress += 1
        with request_context(ip_address=client, user_agent=agent, source="api", correlation_id=request_id):
            try:
                if (refusal := await refused_address(self._rates, scope)) is not None:
                    await refusal(scope, receive, answer.send)
                else:
                    await self._app(scope, receive, answer.send)
            except Exception as error:
                if answer.has_begun:
                    raise  # The server closes the connection, so that the client knows that something is missing.
                log.error("request_crashed", exc_info=error, path=_loggable(scope))  # noqa: TRY400  (not a stdlib logger)
                await internal_error(scope)(scope, receive, answer.send)
            finally:
                seconds = time.perf_counter() - started
                if counters is not None:
                    counters.in_progress -= 1
                    counters.note(self._route(scope), answer.status, seconds)
                level = log.debug if scope["path"] in _PROBES else log.info_often
                level(
                    "request_answered",
                    method=scope["method"],
                    path=_loggable(scope),
                    status=answer.status,
                    client=client,
                    duration_ms=round(seconds * 1000, 2),
                )

    def _find_origin(self, scope: Scope) -> None:
        """Put the client's own address and scheme where everything else looks for them, if a proxy says them."""
        peer = scope["client"][0] if scope.get("client") else None
        if not self._proxies.put_origin(scope):
            self._warn(peer, scope["headers"])

    def _warn(self, peer: str | None, headers: Headers) -> None:
        """Say once that a proxy may be in front, whose clients all count as one."""
        if not self._is_warned and any(name in _FORWARDING for name, _ in headers):
            self._is_warned = True
            log.warning("proxy_not_trusted", peer=peer, setting="TRUSTED_PROXIES")

    def _route(self, scope: Scope) -> tuple[str, str]:
        template = self._templates.get(scope.get("endpoint"))
        return (template[0], scope["method"]) if template else UNMATCHED


class _Answer:
    """Passes messages on, and remembers the status: 500 where there is none.

    The first message gets the id of the request, where the caller stands with its limit, and what was added by others.
    """

    __slots__ = ("_request_id", "_scope", "_send", "has_begun", "status")

    def __init__(self, send: Send, request_id: str, scope: Scope) -> None:
        self._scope = scope
        self.status = 500
        self.has_begun = False
        self._send = send
        self._request_id = request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.status = message["status"]
            request_id = (_REQUEST_ID, self._request_id.encode())
            message["headers"] = [
                *message.get("headers", ()),
                request_id,
                *headers_of(self._scope),
                *self._scope[_ADDED],
            ]
        await self._send(message)


def add_to_answer(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Have whatever answers a request carry these headers, a failure too."""
    scope[_ADDED].extend(headers)


def _loggable(scope: Scope) -> str:
    path: str = scope["path"]
    return f"{SHARE_PATH}…" if path.startswith(SHARE_PATH) else path


def _identify(headers: Headers) -> tuple[str, str | None]:
    """The id of a request, and the user agent."""
    request_id = agent = None
    for name, value in headers:
        if name == b"user-agent" and agent is None:
            agent = value.decode("latin-1") or None
        elif name == _REQUEST_ID and request_id is None:
            request_id = value.decode("latin-1")
    if request_id is None or not is_request_id(request_id):
        request_id = new_correlation_id()
    return request_id, agent


def is_request_id(value: str) -> bool:
    """Whether a caller's X-Request-ID may stand in logs and columns: short, and without control characters."""
    return 0 < len(value) <= MAXIMUM_REQUEST_ID and value.isascii() and value.isprintable()


# Newer versions of FastAPI keep an included router whole; older ones copy its routes.
_each_route: Callable[[Sequence[BaseRoute]], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)


def _templates(routes: Sequence[BaseRoute]) -> dict[Any, tuple[str, frozenset[str]]]:
    """The path and the methods of each endpoint, prefixes of routers included."""
    found: dict[Any, tuple[str, frozenset[str]]] = {}
    for route in _each_route(routes):
        endpoint, path = getattr(route, "endpoint", None), getattr(route, "path_format", None)
        if endpoint is not None and path is not None:
            _, methods = found.get(endpoint, ("", frozenset()))
            found[endpoint] = (path, methods | frozenset(route.methods or ()))
    return found


# Asked every few seconds by machines, and never a part of anybody's request.
_UNTRACED = frozenset({"/livez", "/readyz", "/health", "/metrics"})
# Only these may name a span (semantic conventions, http.request.method): everything else is a client's invention.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_OTHER_METHOD = "_OTHER"
_FIRST_SERVER_ERROR = 500


class TracingMiddleware:
    """Opens the span, and names it by its route: paths and queries hold keys and signatures.

    The response names its trace in ``traceresponse`` (W3C Trace Context, level 2).
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._spans = tracing.spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD
        with self._spans.request(method, scope["headers"]) as span:

            async def send_with_trace(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note_answer(span, message)
                await send(message)

            try:
                await self._app(scope, receive, send_with_trace)
            finally:
                _name_span(span, method, scope)


def _note_answer(span: Span, message: Message) -> None:
    span.set_attribute("http.response.status_code", message["status"])
    if message["status"] >= _FIRST_SERVER_ERROR:
        # Here, because OpenTelemetry is not imported while traces are off.
        from data_layer.observability.tracing.tracing import set_error

        set_error(span, str(message["status"]))
    if (traceparent := current_traceparent()) is not None:
        message["headers"] = [*message.get("headers", ()), (b"traceresponse", traceparent.encode())]


def _name_span(span: Span, method: str, scope: Scope) -> None:
    # Known once the middleware inside and the application have found them.
    span.set_attribute("data_layer.correlation_id", scope["request_id"])
    span.set_attribute("url.scheme", scope.get("scheme", "http"))
    route: Any = getattr(scope.get("route"), "path", None)
    if route:
        span.set_attribute("http.route", route)
        span.update_name(f"{'HTTP' if method == _OTHER_METHOD else method} {route}")
