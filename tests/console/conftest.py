"""What the tests of pages share: one data layer, one application and its people for a whole file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.entities.enums import UserRole
from data_layer.schemas.actors import Actor
from data_layer.server.faces import whole_application
from data_layer.web.authentication import COOKIE
from tests.services.accounts.support import PASSWORD, make_account

LOGIN = "/console/login"


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person with a browser that is logged in."""

    actor: Actor
    client: httpx.AsyncClient

    @property
    def id(self) -> UUID:
        assert self.actor.user_id is not None
        return self.actor.user_id

    async def look(self, path: str, status: int = 200) -> str:
        """The page at an address."""
        answer = await self.client.get(path)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.headers.get('location')}"
        return answer.text

    async def send(self, path: str, **fields: str) -> str:
        """Send a form; the address that follows."""
        answer = await self.client.post(path, data=fields)
        assert answer.status_code == 303, f"{path}: {answer.status_code} {answer.text}"
        return answer.headers["location"]


@pytest.fixture
def app(data: DataLayer) -> FastAPI:
    return whole_application(data)


def browser(app: FastAPI) -> httpx.AsyncClient:
    """A browser without a network in between; it sends what browsers send of themselves."""
    headers = {"accept": "text/html", "sec-fetch-site": "same-origin"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="https://service", headers=headers)


async def visit(data: DataLayer, app: FastAPI, name: str, role: UserRole = UserRole.USER) -> Visitor:
    """Make an account, and log in as a person does."""
    user = await make_account(data, f"{name}@example.com", role=role)
    client = browser(app)
    answer = await client.post(LOGIN, data={"email": user.email, "password": PASSWORD})
    assert answer.status_code == 303
    assert COOKIE in client.cookies
    return Visitor(Actor.user(user.id, role), client)


@pytest.fixture
async def ann(data: DataLayer, app: FastAPI) -> AsyncIterator[Visitor]:
    """A person without any special role."""
    visitor = await visit(data, app, "ann")
    async with aclosing(visitor.client):
        yield visitor
