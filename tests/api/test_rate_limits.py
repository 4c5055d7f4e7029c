"""Limits of all requests, over HTTP: who is limited, and what the answers say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from tests.services.accounts.support import make_account

from .test_people import client_of

pytestmark = pytest.mark.usefixtures("data", "one_window")  # Empty tables and an empty cache.

ME, POLICY, LIMIT = "/v1/accounts/me", "ratelimit-policy", "ratelimit"


@asynccontextmanager
async def limited(settings: Settings, **limits: int) -> AsyncIterator[tuple[DataLayer, dict[str, str]]]:
    """A data layer with these limits, and the header of somebody who has logged in there."""
    async with DataLayer(settings.replaced(**limits)) as data:
        user = await make_account(data, f"{uuid4()}@example.com")
        token = (await data.sessions.create(user.id)).token.get_secret_value()
        yield data, {"authorization": f"Bearer {token}"}


def remaining(answer: httpx.Response) -> tuple[str, int]:
    found = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers[LIMIT])
    assert found, answer.headers[LIMIT]
    assert 1 <= int(found[3]) <= 60
    return found[1], int(found[2])


async def test_a_person_has_one_limit_wherever_the_requests_come_from(settings: Settings) -> None:
    async with (
        limited(settings, request_limit_person=4) as (few, headers),
        client_of(few) as here,
        client_of(few, "198.51.100.7") as there,
    ):
        answers = [await client.get(ME, headers=headers) for client in (here, there, here, there, here)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
        assert [remaining(answer) for answer in answers] == [("person", left) for left in (3, 2, 1, 0, 0)]
        assert {answer.headers[POLICY] for answer in answers} == {'"person";q=4;w=60'}
        refused = answers[-1]
        assert refused.json()["code"] == "too_many_requests"
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await there.post("/v1/projects", json={"name": "Shop"}, headers=headers)).status_code == 429


async def test_an_address_has_a_limit_before_anybody_is_known(settings: Settings) -> None:
    async with (
        limited(settings, request_limit_address=3) as (few, headers),
        client_of(few) as flood,
        client_of(few, "198.51.100.7") as other,
    ):
        paths = [ME, "/v1/nothing", ME, ME, "/v1/nothing", "/v1/files/x"]
        answers = [await flood.get(path, headers={"authorization": "Bearer x"}) for path in paths]
        assert [answer.status_code for answer in answers] == [401, 404, 401, 429, 429, 429]
        assert [remaining(answer) for answer in answers[:3]] == [("address", left) for left in (2, 1, 0)]
        assert answers[-1].json()["code"] == "too_many_requests"
        assert (await flood.get(ME, headers=headers)).status_code == 429
        assert (await other.get(ME, headers=headers)).status_code == 200
        assert (await flood.get("/docs")).status_code == 429
        for path in ("/livez", "/readyz", "/health"):
            answer = await flood.get(path)
            assert answer.status_code == 200
            assert not {LIMIT, POLICY} & answer.headers.keys()


async def test_the_limit_of_which_less_is_left_is_shown(settings: Settings) -> None:
    async with (
        limited(settings, request_limit_person=100, request_limit_address=10) as (few, headers),
        client_of(few) as client,
    ):
        conditions = headers | {"if-none-match": '"r1+zstd"'}
        assert remaining(await client.get(ME, headers=headers))[0] == "address"
        assert remaining(await client.get(ME, headers=conditions))[0] == "address"
    async with (
        limited(settings, request_limit_person=10, request_limit_address=100) as (few, headers),
        client_of(few) as client,
    ):
        assert remaining(await client.get(ME, headers=headers | {"if-none-match": '"r1+zstd"'}))[0] == "person"


async def test_a_limit_of_what_guesses_is_named_beside_it(settings: Settings) -> None:
    async with limited(settings, rate_limit_max=1) as (few, _), client_of(few) as client:
        answers = [await client.post("/v1/accounts/verification/confirm", json={"token": "x"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [400, 429]
        policies = answers[1].headers.get_list(POLICY)
        assert policies == ['"show_mailed_token";q=1;w=900', '"address";q=12000;w=60']


async def test_nothing_is_said_where_nothing_is_limited(settings: Settings) -> None:
    async with (
        limited(settings, request_limit_person=0, request_limit_address=0) as (free, headers),
        client_of(free) as client,
    ):
        answer = await client.get(ME, headers=headers)
        assert answer.status_code == 200
        assert not {LIMIT, POLICY} & answer.headers.keys()


@pytest.mark.parametrize("address", ["2001:db8::1", "2001:db8::2"])
async def test_addresses_of_one_network_count_together(settings: Settings, address: str) -> None:
    async with (
        limited(settings, request_limit_address=1) as (few, _),
        client_of(few, "2001:db8::ffff") as first,
        client_of(few, address) as second,
    ):
        assert (await first.get(ME)).status_code == 401
        assert (await second.get(ME)).status_code == 429


async def test_without_redis_the_limits_hold_in_each_process(settings: Settings) -> None:
    """Also those of what guesses, and the answers say where their sender stands."""
    nowhere = settings.replaced(redis_url=SecretStr("redis://127.0.0.1:1"), rate_limit_max=1)
    async with limited(nowhere, request_limit_person=2) as (alone, headers), client_of(alone) as client:
        answers = [await client.get(ME, headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert [remaining(answer) for answer in answers] == [("person", left) for left in (1, 0, 0)]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        guesses = [await client.post("/v1/accounts/verification/confirm", json={"token": "x"}) for _ in range(2)]
        assert [answer.status_code for answer in guesses] == [400, 429]
        assert guesses[1].headers.get_list(POLICY)[0] == '"show_mailed_token";q=1;w=900'
        for path in ("/livez", "/readyz"):
            assert {(await client.get(path)).status_code for _ in range(4)} == {200}
