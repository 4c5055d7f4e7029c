"""A proxy in front of a server that speaks S3, without some of its features, or with some that the server lacks."""

from __future__ import annotations

import http.client
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

_NOT_PASSED_ON = frozenset({"transfer-encoding", "connection", "content-length"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as the proxy sees it."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]

    def is_about(self, parameter: str) -> bool:
        return parameter in self.query

    def has(self, header: str) -> bool:
        return header in self.headers


FEATURES: dict[str, Callable[[Asked], bool]] = {
    "delete_many": lambda asked: asked.method == "POST" and asked.is_about("delete"),
    "delete": lambda asked: asked.method == "DELETE",
    "create_only": lambda asked: asked.method == "PUT" and asked.has("if-none-match") and not asked.has(_COPY),
    "replace_only": lambda asked: asked.method == "PUT" and asked.has("if-match"),
    "copy": lambda asked: asked.method == "PUT" and asked.has(_COPY),
    "parts": lambda asked: asked.method == "POST" and asked.is_about("uploads"),
    "list_parts": lambda asked: asked.method == "GET" and asked.is_about("uploads"),
    "range": lambda asked: asked.method == "GET" and asked.has("range"),
    "list": lambda asked: asked.method == "GET" and asked.is_about("list-type"),
    "write": lambda asked: asked.method == "PUT" and len(asked.path.strip("/").split("/")) > 1,
    **{
        name: (lambda asked, name=name: asked.is_about(name))  # type: ignore[misc]
        for name in (
            *("acl", "policyStatus", "publicAccessBlock", "versioning", "lifecycle", "cors", "encryption", "tagging"),
        )
    },
}
_COPY = "x-amz-copy-source"


class S3Proxy:
    """On a free port, for a ``with`` block.

    ``refuse`` answers requests for a feature with a status and a code of S3, ``answer`` with any body, ``ignore``
    leaves out headers. ``keep_conditions`` evaluates If-None-Match and If-Match here, one request for a key at a time,
    so that they hold for every client of the proxy, however many there are.
    """

    def __init__(self, port: int, *, keep_conditions: bool = False) -> None:
        self._target = port
        self._answers: dict[str, tuple[int, bytes]] = {}
        self._ignored: set[str] = set()
        self._keeps_conditions = keep_conditions
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._spoils_listings = self._ignores_marks = False
        self.asked: Counter[str] = Counter()

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def refuse(self, feature: str, status: int, code: str) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no {feature} here</Message></Error>'
        self.answer(feature, status, text.encode())

    def answer(self, feature: str, status: int, body: bytes) -> None:
        self._answers[feature] = (status, body)

    def ignore(self, header: str) -> None:
        """Do not pass a header on, as a server does that does not know it."""
        self._ignored.add(header)

    def spoil_listings(self, *, ignore_marks: bool) -> None:
        """Say that there is more, but not where it begins; and begin where the client says, or always at the start."""
        self._spoils_listings = True
        self._ignores_marks = ignore_marks

    def respond(self, asked: Asked, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        for feature, concerns in FEATURES.items():
            if concerns(asked):
                self.asked[feature] += 1
                if feature in self._answers:
                    status, answer = self._answers[feature]
                    return status, {"content-type": "application/xml"}, answer
        if self._spoils_listings and FEATURES["list"](asked):
            return self._list_badly(asked)
        if not self._keeps_conditions or asked.method != "PUT":
            return self._forward(asked, body)
        with self._locks[asked.path]:
            if self._fails(asked):
                return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
            return self._forward(asked, body, without=("if-none-match", "if-match"))

    def _list_badly(self, asked: Asked) -> tuple[int, Mapping[str, str], bytes]:
        if self._ignores_marks:
            wanted = "&".join(part for part in asked.query["?"][0].split("&") if not part.startswith("start-after"))
            asked = replace(asked, query={"?": [wanted]})
        status, headers, content = self._forward(asked, b"")
        return status, headers, re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", content)

    def _fails(self, asked: Asked) -> bool:
        if not (asked.has("if-none-match") or asked.has("if-match")):
            return False
        kept = {name: asked.headers[name] for name in ("host", "authorization")}
        there = Asked("HEAD", asked.path, {}, kept)
        status, headers, _ = self._forward(there, b"")
        etag = headers.get("etag") if status == 200 else None
        if asked.has("if-none-match"):
            return etag is not None
        return etag != asked.headers["if-match"]

    def _forward(
        self, asked: Asked, body: bytes, *, without: tuple[str, ...] = ()
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=30)
        try:
            query = asked.path if not asked.query else f"{asked.path}?{asked.query['?'][0]}"
            headers = {
                name: value
                for name, value in asked.headers.items()
                if name not in {*without, *self._ignored, "expect", "transfer-encoding", "connection"}
            }
            connection.request(asked.method, query, body, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        if query:
            query["?"] = [parts.query]
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answered, content = self.proxy.respond(Asked(self.command, parts.path, query, headers), body)
        self.send_response_only(status)
        for name, value in answered.items():
            if name not in _NOT_PASSED_ON:
                self.send_header(name, value)
        size = answered.get("content-length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("content-length", size)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815  (the names of the library)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""
