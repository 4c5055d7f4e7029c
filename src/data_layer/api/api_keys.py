"""API keys over HTTP: made and revoked by people in a session, never by a key."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import Field, StringConstraints

from data_layer.api.request_models import Body
from data_layer.api.response_headers import next_after
from data_layer.api.routes import Call, Routes
from data_layer.entities.enums import ApiScope
from data_layer.schemas.api_keys import ApiKeyView
from data_layer.schemas.base import Value
from data_layer.services.api_keys import LONGEST_LIFETIME

_EXAMPLE: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "example": {"name": "nightly build", "scopes": ["read", "generate"], "expires_in": 2592000}
            }
        }
    }
}


class NewKey(Body):
    """A key to make. ``expires_in`` is in seconds, ten years at most; without it the key ends when it is revoked."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    scopes: Annotated[list[ApiScope], Field(min_length=1, max_length=len(ApiScope))]
    expires_in: Annotated[int, Field(ge=1, le=int(LONGEST_LIFETIME.total_seconds()))] | None = None


class CreatedKey(Value):
    """A key that was made. ``secret`` is what a program sends as bearer token; it cannot be had again."""

    secret: str
    api_key: ApiKeyView


class KeysQuery(Body):
    """A page of keys; ``after`` is ``next`` of the page before."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: UUID | None = None


class ApiKeyPage(Value):
    """A page of keys, the newest first; those that have ended for 90 days more. ``next`` is null on the last one."""

    api_keys: tuple[ApiKeyView, ...]
    next: UUID | None


routes = Routes("/v1/accounts/me/api-keys", "API keys")


@routes.get("", summary="List the own API keys", errors=[422], next_by="after")
async def list_keys(call: Call, query: Annotated[KeysQuery, Query()]) -> ApiKeyPage:
    """``prefix`` is how a key begins, to recognise it by. ``last_used_at`` may be some seconds old."""
    found = await call.data.api_keys.list(call.actor, call.user_id, limit=query.limit, after=query.after)
    return ApiKeyPage(api_keys=found, next=next_after(found, query.limit))


@routes.post(
    "",
    summary="Make an API key",
    status_code=201,
    errors=[409],
    openapi_extra=_EXAMPLE,
    location="/v1/accounts/me/api-keys/{0.api_key.id}",
)
async def create(call: Call, body: NewKey) -> CreatedKey:
    """Scopes: ``read`` and ``write`` what the person has, ``generate`` code, ``admin`` for administrators alone.

    409 where a person has 50 keys in force.
    """
    new = await call.data.api_keys.create(
        call.actor,
        name=body.name,
        scopes=body.scopes,
        expires_in=None if body.expires_in is None else timedelta(seconds=body.expires_in),
    )
    return CreatedKey(secret=new.secret.get_secret_value(), api_key=new.key)


@routes.delete("/{key_id}", summary="Revoke an API key", status_code=204, errors=[404])
async def revoke(call: Call, key_id: UUID) -> None:
    """It is refused everywhere within two seconds. Harmless to repeat."""
    await call.data.api_keys.revoke(call.actor, key_id)
