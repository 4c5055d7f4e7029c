"""A reverse proxy that does what load balancers do: it follows /readyz, keeps connections, and repeats nothing."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Self

import httpx
from starlette.types import Message, Receive, Scope, Send

from data_layer.server.http_server import HttpServer
from tests.support import until

from .support import NO_AUTHORITIES

_CHECKED_EVERY_SECONDS = 0.1
_PASSED_ON = frozenset({b"accept", b"authorization", b"content-type", b"last-event-id", b"writer-token"})


class LoadBalancer:
    """Distributes requests among the backends that say they are ready, for an ``async with`` block.

    A request that a backend does not answer is answered with 502, and counted: once sent, it may have been carried out,
    so it is not sent again.
    """

    def __init__(self, backends: Sequence[str]) -> None:
        self.ready: dict[str, bool] = dict.fromkeys(backends, False)
        self.answered = Counter[str]()
        self.failures = list[str]()
        self._next = 0

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._client = httpx.AsyncClient(timeout=60, verify=NO_AUTHORITIES)
        self._checks = [asyncio.create_task(self._check(backend)) for backend in self.ready]
        self._http = HttpServer(self, listener, finish_seconds=1)
        self._http.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._client.aclose()

    async def _check(self, backend: str) -> None:
        async with httpx.AsyncClient(timeout=10, verify=NO_AUTHORITIES) as client:
            while True:
                try:
                    self.ready[backend] = (await client.get(f"{backend}/readyz")).status_code == 200
                except httpx.TransportError:
                    self.ready[backend] = False
                await asyncio.sleep(_CHECKED_EVERY_SECONDS)

    async def _choose(self) -> str:
        await until(lambda: any(self.ready.values()), 60)
        candidates = [backend for backend, ready in self.ready.items() if ready]
        self._next += 1
        return candidates[self._next % len(candidates)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        message: Message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        path = f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}"
        kind = [(name, value) for name, value in scope["headers"] if name in _PASSED_ON]
        backend = await self._choose()
        if scope["path"].endswith("/events") and scope["method"] == "GET":
            await self._stream(f"{backend}{path}", kind, send)
            return
        try:
            answer = await self._client.request(scope["method"], f"{backend}{path}", content=body, headers=kind)
            status, content = answer.status_code, answer.content
            self.answered[backend] += 1
        except httpx.TransportError as error:
            status, content = 502, b""
            self.failures.append(f"{scope['method']} {backend}{path}: {error!r}")
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _stream(self, url: str, headers: list[tuple[bytes, bytes]], send: Send) -> None:
        """Pass an answer on while it is read, decompressed; one that is cut off is a failure."""
        try:
            async with self._client.stream("GET", url, headers=headers) as answer:
                kind = answer.headers.get("content-type", "text/plain").encode()
                await send(
                    {"type": "http.response.start", "status": answer.status_code, "headers": [(b"content-type", kind)]}
                )
                async for chunk in answer.aiter_bytes():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.TransportError as error:
            self.failures.append(f"GET {url}: {error!r}")
            raise
        await send({"type": "http.response.body", "body": b""})
