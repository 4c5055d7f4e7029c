"""The description names the headers of each answer. All tests of routes look at the answers that they get."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.api import described_headers
from tests.api.test_projects import create, owner, people

__all__ = ["owner", "people"]


@pytest.fixture
def description(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def headers_of(description: dict[str, Any], answer: dict[str, Any]) -> dict[str, bool]:
    """The headers of an answer, and whether each such answer has them."""
    components = description["components"]["headers"]
    found = {name: components[each["$ref"].rpartition("/")[2]] for name, each in answer.get("headers", {}).items()}
    return {name: bool(header.get("required")) for name, header in found.items()}


def successes(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [answer for status, answer in operation["responses"].items() if status.startswith("2")]


def test_what_takes_a_header_answers_with_the_one_that_it_is_about(description: dict[str, Any]) -> None:
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            taken = {each["name"] for each in operation.get("parameters", ())}
            for answer in successes(operation):
                found, where = headers_of(description, answer), f"{method} {path}"
                assert "If-Match" not in taken or method == "delete" or found["ETag"], where
                assert ("Idempotent-Replayed" in found) is ("Idempotency-Key" in taken), where
            if "If-Match" in taken:
                assert headers_of(description, operations.get("get", operation)["responses"].get("200", {}))["ETag"]


def test_refusals_say_what_to_do(description: dict[str, Any]) -> None:
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                found = headers_of(description, answer)
                if status in {"303", "307"}:
                    assert found["Location"], path
                if status == "401":
                    assert found["WWW-Authenticate"], path
                if status == "429":
                    assert found["Retry-After"], path
                if status == "503" and path.startswith("/v1"):
                    assert "Retry-After" in found, path


async def test_the_clients_of_the_tests_notice_what_is_not_described(
    owner: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await create(owner)
    path = f"/v1/projects/{project['id']}"
    committed = described_headers._description()
    answer = committed["paths"]["/v1/projects/{project_id}"]["get"]["responses"]["200"]
    assert "ETag" in answer["headers"]
    monkeypatch.setitem(answer, "headers", {"Location": {"$ref": "#/components/headers/RequiredLocation"}})
    with pytest.raises(AssertionError) as caught:
        await owner.get(path)
    assert "etag is sent and not described" in str(caught.value)
    assert "location is required and not sent" in str(caught.value)
