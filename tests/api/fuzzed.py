"""The application behind a real server in a thread of its own, and schemathesis, which sends it requests from here.

schemathesis makes an event loop for each request of an ASGI application, and a data layer belongs to one loop.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.entities.enums import ApiScope, UserRole
from data_layer.schemas.actors import Actor
from data_layer.server.http_server import HttpServer
from tests.conftest import empty_tables
from tests.services.accounts.support import make_account


@schemathesis.check
def valid_form_is_accepted(
    _: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """What is valid by the description is not refused for its form; that it makes no sense is another matter."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code not in {400, 422}:
        return
    code = response.json().get("code")
    if code in {"request_invalid", "bad_request"}:
        raise AssertionError(f"valid by its description and refused as {code}: {response.text[:300]}")


KEY = "key"
"""Who asks with an API key of the owner."""
ROLES = {"owner": UserRole.USER, "moderator": UserRole.MODERATOR, "administrator": UserRole.ADMIN}


@dataclass
class FuzzedService:
    """Where it is, and the tokens of those who may ask."""

    url: str
    tokens: dict[str, str] = field(default_factory=dict)


@contextmanager
def fuzzed_service(settings: Settings) -> Iterator[FuzzedService]:
    """Serve until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    service = FuzzedService(f"http://127.0.0.1:{listener.getsockname()[1]}")
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with DataLayer(settings) as data:
            await empty_tables(data)
            for name, role in ROLES.items():
                user = await make_account(data, f"{name}@example.com", role=role)
                service.tokens[name] = (await data.sessions.create(user.id)).token.get_secret_value()
                if name == "owner":
                    key = await data.api_keys.create(
                        Actor.user(user.id, role), name="Fuzz", scopes=[ApiScope.READ, ApiScope.WRITE]
                    )
                    service.tokens[KEY] = key.secret.get_secret_value()
            server = HttpServer(create_app(data), listener, finish_seconds=1)
            server.start()
            ready.set()
            await asyncio.to_thread(over.wait)
            await server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fuzzed-service")
    thread.start()
    try:
        assert ready.wait(60)
        yield service
    finally:
        over.set()
        thread.join()


def findings(service: FuzzedService, role: str | None, *, examples: int, everything: bool = False) -> list[str]:
    """Send requests to every operation, and return what schemathesis finds wrong, each kind once for an operation.

    Args:
        service: where.
        role: who asks; None: nobody.
        examples: how many valid and how many invalid requests of each operation.
        everything: also try the limits of each value, and what one answer leads to.
    """
    refusals = [400, 401, 403, 404, 405, 406, 409, 412, 413, 414, 415, 422, 428, 429, 431, "5xx"]
    options: dict[str, Any] = {
        "seed": 1,
        "generation": {"max-examples": examples},
        "checks": {
            # Refused may be what cannot be done, such as fetching from an address that nobody has.
            "positive_data_acceptance": {"enabled": False},
            "negative_data_rejection": {"expected-statuses": refusals},
            # RFC 6585 has a status for a missing If-Match.
            "missing_required_header": {"expected-statuses": [400, 401, 403, 404, 422, 428]},
        },
        "phases": {
            "coverage": {"enabled": everything},
            "stateful": {"enabled": everything, "generation": {"max-examples": examples}},
        },
    }
    if role is not None:
        options["auth"] = {"openapi": {"Bearer": {"bearer": service.tokens[role]}}}
    config = SchemathesisConfig.from_dict(options)
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=config, timeout=120)
    found: dict[tuple[str, str], str] = {}
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError):
            found[event.label, "error"] = f"{event.label}: {event.value!r}"
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.ScenarioFinished) and event.status is Status.FAILURE:
            for case_id, checks in event.recorder.checks.items():
                for check in checks:
                    if check.failure_info is None:
                        continue
                    failure = check.failure_info.failure
                    case = event.recorder.cases[case_id].value
                    label = f"{case.operation.label}"
                    response = event.recorder.interactions[case_id].response
                    said = "" if response is None else f"{response.status_code} {response.content[:300]!r}"
                    found.setdefault(
                        (label, check.name),
                        f"{label}: {check.name}: {failure.title}: {failure.message[:400]}\n  "
                        f"{case.as_curl_command()[:600]}\n  {said}",
                    )
    return list(found.values())
