"""The Python client where what it is given, or what it is answered, is odd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from data_layer.client import Client, LoginTokens, Writer, transport, writing
from data_layer.client.values import SecondFactorNeeded
from data_layer.errors import (
    DataLayerError,
    SecondFactorRequiredError,
    ServiceProblemError,
    ServiceUnreachableError,
    UnexpectedAnswerError,
)

Answers = Callable[[httpx.Request], httpx.Response]


def client_of(answers: Answers, *, patience: float = 0.0, tokens: LoginTokens | None = None) -> Client:
    line = httpx.MockTransport(answers)
    return Client("https://data.example.com", transport=line, patience=patience, tokens=tokens)


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


PAGE = httpx.Response(200, html="<h1>Welcome to the hotel</h1>")
NO_TOKENS = {
    "a page": PAGE,
    "a list": httpx.Response(201, json=[]),
    "half of it": httpx.Response(201, json={"access_token": "a"}),
    "nothing": httpx.Response(204),
}
TOKENS_WITH_200 = httpx.Response(200, json={"access_token": "a", "refresh_token": "b", "expires_in": 1})


@pytest.mark.parametrize("answer", [*NO_TOKENS.values(), TOKENS_WITH_200], ids=[*NO_TOKENS, "tokens with 200"])
async def test_another_answer_to_a_login_is_unexpected(answer: httpx.Response) -> None:
    """Such as the page on which a hotel or a train wants to be paid for its network."""
    async with client_of(lambda _: answer) as client:
        with pytest.raises(UnexpectedAnswerError, match=r"POST /v1/tokens does not fit"):
            await client.log_in("ada@example.com", "x")
        assert client.tokens is None


@pytest.mark.parametrize("answer", NO_TOKENS.values(), ids=NO_TOKENS)
async def test_another_answer_to_a_second_factor_is_unexpected(answer: httpx.Response) -> None:
    async with client_of(lambda _: answer) as client:
        with pytest.raises(UnexpectedAnswerError, match=r"POST /v1/tokens/second-factor does not fit"):
            await client.finish_log_in("challenge", code="1")
        assert client.tokens is None


async def test_another_answer_to_a_renewal_is_unexpected() -> None:
    tokens = LoginTokens("a", "b", time.time())
    async with client_of(lambda _: PAGE, tokens=tokens) as client:
        with pytest.raises(UnexpectedAnswerError, match="POST /v1/tokens/refresh"):
            await client.accounts.get()
        assert client.tokens == tokens


async def test_a_challenge_is_typed() -> None:
    needed = {"challenge": "c", "methods": ["totp"], "passkey": None, "expires_in": 300}
    answer = httpx.Response(200, json={"status": "second_factor_required", **needed})
    async with client_of(lambda _: answer) as client:
        with pytest.raises(SecondFactorRequiredError) as raised:
            await client.log_in("ada@example.com", "x")
    assert raised.value.challenge == SecondFactorNeeded(**needed)


class ThreeAttempts(transport.Patience):
    """Two pauses without a length, until something succeeds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._left = 2

    def renew(self) -> None:
        self._left = 2

    async def wait(self, at_least: float | None = None) -> bool:
        del at_least
        self._left -= 1
        return self._left >= 0


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody is there", request=request)


def streamed(text: str) -> Answers:
    return lambda _: httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})


@pytest.mark.parametrize(
    ("answers", "failure"),
    [
        (unreachable, ServiceUnreachableError),
        (lambda _: httpx.Response(503), ServiceProblemError),
        (streamed(""), ServiceUnreachableError),
        (streamed('event: problem\ndata: {"status": 500}\n\n'), ServiceProblemError),
        (streamed('event: problem\ndata: {"status": "500"}\n\n'), ServiceProblemError),
        (streamed("event: problem\ndata: [1, 2]\n\n"), ServiceProblemError),
        (streamed("event: problem\ndata: broken\n\n"), ServiceProblemError),
    ],
    ids=["unreachable", "503", "empty", "problem", "status in words", "list", "no JSON"],
)
async def test_following_is_patient_once(
    answers: Answers, failure: type[DataLayerError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "Patience", ThreeAttempts)
    asked = 0

    def counted(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        # Without an end to its patience it would ask for ever.
        return answers(request) if asked < 20 else httpx.Response(204)

    async with client_of(counted) as client:
        with pytest.raises(failure):
            await anext(aiter(client.generations.follow("g")))
    assert asked == 3


class Lingering(httpx.AsyncBaseTransport):
    """Takes its time to let go of the first request; it answers all others."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_sending, self.is_letting_go, self.may_let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        del request
        self.asked += 1
        if self.asked == 1:
            self.is_sending.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.is_letting_go.set()
                await self.may_let_go.wait()
        return httpx.Response(204)


async def test_a_cancelled_writer_ends_as_cancelled() -> None:
    """Also when the cancellation comes while it waits for what it has in the background."""
    line = Lingering()

    async def write(client: Client) -> None:
        async with Writer(client.transport, uuid4(), "token", [0]) as writer:
            await writer.text(0, "<p>")
            await line.is_sending.wait()

    async with Client("https://data.example.com", transport=line) as client:
        writer = asyncio.create_task(write(client))
        await line.is_letting_go.wait()
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        line.may_let_go.set()
    assert line.asked == 1


@pytest.mark.parametrize("path", ["/events", "/lease"])
async def test_calls_of_a_writer_are_repeated_with_its_token(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "Patience", ThreeAttempts)
    monkeypatch.setattr(writing, "RENEW_SECONDS", 0.0)
    tokens: list[str | None] = []
    enough = asyncio.Event()

    def answers(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith(path):
            return httpx.Response(204)
        tokens.append(request.headers.get("Writer-Token"))
        if len(tokens) < 3:
            return httpx.Response(503)
        enough.set()
        return httpx.Response(204)

    async with client_of(answers) as client, Writer(client.transport, uuid4(), "token", [0]) as writer:
        await writer.text(0, "<p>")
        await asyncio.wait_for(enough.wait(), 60)
    assert tokens[:3] == ["token"] * 3
