"""The description names the headers of each answer. All tests of routes look at the answers that they get."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from clients.schemas import resolved

from data_layer import DataLayer
from data_layer.schemas.actors import SYSTEM
from tests.api import described_headers
from tests.api.test_projects import create, owner, people
from tests.api.test_shares import project_with_page

__all__ = ["owner", "people"]


def headers_of(description: dict[str, Any], answer: dict[str, Any]) -> dict[str, bool]:
    """The headers of an answer, and whether each such answer has them."""
    found = resolved(description, answer).get("headers", {})
    return {name: bool(resolved(description, header).get("required")) for name, header in found.items()}


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


CHANGED_WITHOUT_CONDITION = {
    "PUT /v1/generations/{generation_id}/selection": "each choice takes the place of the one before; nothing is lost",
    "PUT /v1/generations/{generation_id}/lease": "fenced by the token of the writer",
    "PUT /v1/generations/{generation_id}/variants/{index}": "fenced by the token of the writer; ends once",
    "PUT /v1/variants/{variant_id}/feedback": "one person's rating, sent whole",
    "PUT /v1/images/{image_id}/rating": "one person's rating, sent whole",
    "PUT /v1/files/{key}": "the signed URL of a new file, which is sent once",
}
"""Why a change needs no If-Match. What several people can edit, or in parts, has no such reason."""


def test_what_can_be_edited_takes_the_etag_that_was_read(description: dict[str, Any]) -> None:
    """428 and 412, except on what one person alone edits, where If-Match is heeded if it is sent."""
    heeded = {"PATCH /v1/accounts/me", "PATCH /v1/accounts/me/preferences"}
    found = set()
    for path, operations in description["paths"].items():
        for method in operations.keys() & {"put", "patch"}:
            name, operation = f"{method.upper()} {path}", operations[method]
            if any(each["name"] == "If-Match" for each in operation.get("parameters", ())):
                assert "412" in operation["responses"], name
                assert ("428" in operation["responses"]) is (name not in heeded), name
            else:
                found.add(name)
    assert found == CHANGED_WITHOUT_CONDITION.keys()


LISTS_WITHOUT_PAGES = {
    "/v1/projects/{project_id}/tree": "one document, sent while it is read",
    "/v1/generations/{generation_id}": "the variants of one generation, ten at most",
    "/v1/variants/{variant_id}/diff": "one document",
    "/v1/variants/{variant_id}/replay": "one document",
    "/v1/design-systems": "a hundred at most",
    "/v1/usage": "sums, 10,000 at most",
    "/v1/accounts/me/second-factors": "a handful",
    "/v1/accounts/me/identities": "one for each provider",
    "/v1/sessions": "SESSION_LIMIT at most",
    "/v1/oidc": "those of the settings",
    "/v1/admin/users/{user_id}/second-factors": "a handful",
}
"""Answers with a list that has no pages, and why."""


def test_each_list_has_pages(description: dict[str, Any]) -> None:
    """``next`` in the body, ``Link`` in the head, a parameter that takes it, and a limit."""
    schemas, found = description["components"]["schemas"], set()
    for path, operations in description["paths"].items():
        answer = operations.get("get", {}).get("responses", {}).get("200", {})
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        fields = schemas.get(schema.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
        if not any(each.get("type") == "array" and "$ref" in str(each.get("items")) for each in fields.values()):
            continue
        if "next" in fields:
            taken = {each["name"] for each in operations["get"]["parameters"]}
            assert "limit" in taken, path
            assert taken & {"after", "before"}, path
            assert "Link" in headers_of(description, answer), path
        else:
            found.add(path)
    assert found == LISTS_WITHOUT_PAGES.keys()


@pytest.mark.parametrize("what", ["shares", "sessions", "api_keys"])
async def test_pages_lead_to_each_row_once(
    data: DataLayer, people: dict[str, httpx.AsyncClient], owner: httpx.AsyncClient, what: str
) -> None:
    if what == "shares":
        path = f"{await project_with_page(owner)}/shares"
        for _ in range(5):
            assert (await owner.post(path, json={})).status_code == 201
    elif what == "api_keys":
        path = "/v1/accounts/me/api-keys"
        for number in range(5):
            assert (await owner.post(path, json={"name": str(number), "scopes": ["read"]})).status_code == 201
    else:
        user = await data.accounts.find(SYSTEM, "owner@example.com")
        path = f"/v1/admin/users/{user.id}/sessions"
        for _ in range(4):
            await data.sessions.create(user.id)
    reader = owner if what == "api_keys" else people["moderator"]
    whole = [each["id"] for each in (await reader.get(path)).json()[what]]
    assert len(set(whole)) == 5
    seen, url, pages = [], f"{path}?limit=2", 0
    while url:
        page = await reader.get(url)
        seen += [each["id"] for each in page.json()[what]]
        following = page.json()["next"]
        url = page.links["next"]["url"] if following else ""
        assert following is None or f"after={following}" in url
        pages += 1
    assert (seen, pages) == (whole, 3)


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
