"""What every request passes through: the client's address, its context, a span, metrics and a line in the log."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from fastapi import routing
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_layer.context import request_context
from data_layer.observability.log import get_log
from data_layer.observability.metrics.http import UNMATCHED, HttpCounters
from data_layer.observability.tracing.current import current_traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from data_layer.observability.tracing.tracing import Tracing

Address = IPv4Address | IPv6Address

Headers = list[tuple[bytes, bytes]]

log = get_log(__name__)

UNIX_SOCKET = "unix"
"""Stands for a proxy that is connected by a Unix socket, and so has no address."""

_MOST_HOPS = 32
_BRACKETED = re.compile(r"\[([^\]]*)\](:\d+)?")
_WITH_PORT = re.compile(r"([0-9.]+):\d+")
_SCHEMES = frozenset({"http", "https"})
_FORWARDING = frozenset({b"x-forwarded-for", b"forwarded"})


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


class ProxyMiddleware:
    """Puts the client's address and scheme where everything else looks for them; the outermost middleware."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies
        self._is_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else None
        headers: Headers = scope["headers"]
        if not self._proxies.trusts(peer):
            self._warn(peer, headers)
        else:
            address, scheme = self._proxies.origin(peer, headers)
            scope = {**scope, "client": None if address is None else (address, 0)}
            if scheme is not None:
                scope["scheme"] = scheme
        await self._app(scope, receive, send)

    def _warn(self, peer: str | None, headers: Headers) -> None:
        """Say once that a proxy may be in front, whose clients all count as one."""
        if not self._is_warned and any(name in _FORWARDING for name, _ in headers):
            self._is_warned = True
            log.warning("proxy_not_trusted", peer=peer, setting="TRUSTED_PROXIES")


def network_of_proxies(text: str) -> IPv4Network | IPv6Network:
    """The network that an address or a network stands for; one of mapped IPv4 addresses is one of IPv4."""
    network = ipaddress.ip_network(text, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)
    return network


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


class RequestContextMiddleware:
    """Sets address and user agent; the correlation id comes from its own middleware, the actor from authentication.

    The address is that of the peer, or what a trusted proxy says it is (TRUSTED_PROXIES).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
        with request_context(
            ip_address=client[0] if client else None,
            user_agent=agent.decode("latin-1") or None,
            source="api",
        ):
            await self._app(scope, receive, send)


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

            span.set_attribute("url.scheme", scope.get("scheme", "http"))
            try:
                await self._app(scope, receive, send_with_trace)
            finally:
                _name_span(span, method, scope)


def _note_answer(span: Span, message: Message) -> None:
    span.set_attribute("http.response.status_code", message["status"])
    if message["status"] >= _FIRST_SERVER_ERROR:
        # Here, because OpenTelemetry is not imported while traces are off.
        from data_layer.observability.tracing.spans import set_error

        set_error(span, str(message["status"]))
    if (traceparent := current_traceparent()) is not None:
        message["headers"] = [*message.get("headers", ()), (b"traceresponse", traceparent.encode())]


def _name_span(span: Span, method: str, scope: Scope) -> None:
    # Known once the application has found it.
    route: Any = getattr(scope.get("route"), "path", None)
    if route:
        span.set_attribute("http.route", route)
        span.update_name(f"{'HTTP' if method == _OTHER_METHOD else method} {route}")


# Asked every few seconds by machines; their requests are worth a line only to someone who looks for them.
_PROBES = frozenset({"/livez", "/readyz", "/health"})


class RequestLogMiddleware:
    """Logs method, path, status, the client's address and duration; never the query, which may hold a secret."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = AnswerStatus(send)
        try:
            await self._app(scope, receive, status.send)
        finally:
            level = log.debug if scope["path"] in _PROBES else log.info
            level(
                "request_answered",
                method=scope["method"],
                path=scope["path"],
                status=status.code,
                client=scope["client"][0] if scope.get("client") else None,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )


# Newer versions of FastAPI keep an included router whole; older ones copy its routes.
_each_route: Callable[[Sequence[BaseRoute]], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)


class RequestMetricsMiddleware:
    """Counts requests by the template of the route that took them."""

    def __init__(self, app: ASGIApp, counters: HttpCounters, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._counters = counters
        self._templates = _templates(routes)
        counters.expect((path, method) for path, methods in self._templates.values() for method in methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = AnswerStatus(send)
        self._counters.in_progress += 1
        try:
            await self._app(scope, receive, status.send)
        finally:
            self._counters.in_progress -= 1
            self._counters.note(self._route(scope), status.code, time.perf_counter() - started)

    def _route(self, scope: Scope) -> tuple[str, str]:
        template = self._templates.get(scope.get("endpoint"))
        return (template[0], scope["method"]) if template else UNMATCHED


def _templates(routes: Sequence[BaseRoute]) -> dict[Any, tuple[str, frozenset[str]]]:
    """The path and the methods of each endpoint, prefixes of routers included."""
    found: dict[Any, tuple[str, frozenset[str]]] = {}
    for route in _each_route(routes):
        endpoint, path = getattr(route, "endpoint", None), getattr(route, "path_format", None)
        if endpoint is not None and path is not None:
            _, methods = found.get(endpoint, ("", frozenset()))
            found[endpoint] = (path, methods | frozenset(route.methods or ()))
    return found


class AnswerStatus:
    """Passes messages on and remembers the status: 500 where there is none, which is what clients get then."""

    def __init__(self, send: Send) -> None:
        self.code = 500
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a message on."""
        if message["type"] == "http.response.start":
            self.code = message["status"]
        await self._send(message)
