"""The Python client where what it is given, or what it is answered, is odd."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from data_layer.client import Client

Answers = Callable[[httpx.Request], httpx.Response]


def client_of(answers: Answers, *, patience: float = 0.0) -> Client:
    return Client("https://data.example.com", transport=httpx.MockTransport(answers), patience=patience)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a?b", "a%3Fb"),
        ("a#b", "a%23b"),
        ("ä", "%C3%A4"),
        ("...", "..."),
    ],
)
async def test_a_value_is_one_part_of_the_path(value: str, sent: str) -> None:
    asked: list[httpx.URL] = []

    def answers(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(204)

    async with client_of(answers) as client:
        await client.projects.delete(value)
    assert [(url.raw_path, url.path) for url in asked] == [(f"/v1/projects/{sent}".encode(), f"/v1/projects/{value}")]


@pytest.mark.parametrize("value", ["", ".", ".."])
async def test_a_value_that_would_lead_to_another_route_is_not_sent(value: str) -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    async with client_of(answers) as client:
        with pytest.raises(ValueError, match="cannot be part of a path"):
            await client.projects.delete(value)
