"""Receivers of spans on the loopback interface. It has no tests."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Receiver:
    """An HTTP server that keeps what is sent to it; ``answer`` gives status and body."""

    def __init__(self, answer: Callable[[bytes], tuple[int, bytes]] = lambda _: (200, b"")) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body))
                status, content = answer(body)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def otlp_names(self) -> list[tuple[str, str]]:
        """Service and span name of everything that came with OTLP."""
        found = []
        for path, _, body in list(self.requests):
            assert path == "/v1/traces"
            message = ExportTraceServiceRequest.FromString(body)
            for resource_spans in message.resource_spans:
                pairs = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
                for scope_spans in resource_spans.scope_spans:
                    assert scope_spans.scope.name == "data_layer"
                    found += [(pairs["service.name"], span.name) for span in scope_spans.spans]
        return found

    def azure_names(self) -> list[tuple[str, str]]:
        """Instrumentation key and name of everything that came for Application Insights."""
        items = [item for _, _, body in list(self.requests) for item in json.loads(body)]
        return [
            (item["iKey"], item["data"]["baseData"]["name"])
            for item in items
            if item["data"]["baseType"] != "MetricData"
        ]


def take_all(body: bytes) -> tuple[int, bytes]:
    """What Application Insights says when it has taken everything."""
    count = len(json.loads(body))
    return 200, json.dumps({"itemsReceived": count, "itemsAccepted": count, "errors": []}).encode()
