"""``data-layer users keys``: API keys of people, for operators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from data_layer.cli.output import AsJson, counted, print_json, print_table, read_settings, run, say
from data_layer.config import Settings
from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from data_layer.schemas.api_keys import ApiKeyView, NewApiKey

_COLUMNS = ("Id", "Name", "Begins", "Scopes", "Made", "Last use", "Ends")

commands = typer.Typer(help="API keys, with which programs act for people.", no_args_is_help=True)

User = Annotated[str, typer.Argument(help="The id or the e-mail address of the person.")]


@commands.command("list")
def list_keys(user: User, *, as_json: AsJson = False) -> None:
    """List the API keys of a person, the newest first; those that have ended for 90 days more."""
    keys = run(_list(read_settings(as_json=as_json), user), as_json=as_json)
    if as_json:
        print_json(keys)
    elif not keys:
        say("This person has no API keys. Make one with: data-layer users keys create")
    else:
        print_table(counted(len(keys), "API key"), _COLUMNS, [_cells(key) for key in keys])


@commands.command()
def create(
    user: User,
    *,
    name: Annotated[str, typer.Option(help="By which the person knows the key.")],
    scope: Annotated[
        list[str],
        typer.Option(help="What the key is good for: read, write, generate, admin; can be given several times."),
    ],
    expires_in: Annotated[
        int | None, typer.Option(min=1, max=3650, help="After how many days the key ends. Default: never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key for a person. The key is printed once and cannot be had again."""
    lifetime = None if expires_in is None else timedelta(days=expires_in)
    new = run(_create(read_settings(as_json=as_json), user, name, scope, lifetime), as_json=as_json)
    secret = new.secret.get_secret_value()
    if as_json:
        print_json({"secret": secret, "api_key": new.key.model_dump(mode="json")})
    else:
        say(f"Made the API key {new.key.id} with the scopes {', '.join(new.key.scopes)}:")
        say(secret)


@commands.command()
def revoke(key: Annotated[UUID, typer.Argument(help="The id of the key.")], *, as_json: AsJson = False) -> None:
    """End an API key for good; within two seconds, everywhere."""
    was_in_force = run(_revoke(read_settings(as_json=as_json), key), as_json=as_json)
    if as_json:
        print_json({"revoked": was_in_force})
    else:
        say("The key is revoked." if was_in_force else "The key was revoked before.")


def _cells(key: ApiKeyView) -> tuple[object, ...]:
    if key.revoked_at is not None:
        ends = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    else:
        ends = f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never"
    used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
    return (key.id, key.name, key.prefix, ", ".join(key.scopes), f"{key.created_at:%Y-%m-%d %H:%M}", used, ends)


async def _list(settings: Settings, user: str) -> Sequence[ApiKeyView]:
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    async with DataLayer(settings) as data:
        return await data.api_keys.list(SYSTEM, (await data.accounts.find(SYSTEM, user)).id)


async def _create(
    settings: Settings, user: str, name: str, scopes: Sequence[str], expires_in: timedelta | None
) -> NewApiKey:
    from data_layer.context import request_context
    from data_layer.entities.enums import ApiScope
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    unknown = [scope for scope in scopes if scope not in list(ApiScope)]
    if unknown:
        raise InvalidValueError(f"--scope must be one of: {', '.join(ApiScope)}", field="scope")
    chosen = [ApiScope(scope) for scope in scopes]
    async with DataLayer(settings) as data:
        with request_context(source="cli"):
            owner = await data.accounts.find(SYSTEM, user)
            return await data.api_keys.create(
                SYSTEM, name=name, scopes=chosen, expires_in=expires_in, owner_id=owner.id
            )


async def _revoke(settings: Settings, key: UUID) -> bool:
    from data_layer.context import request_context
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    async with DataLayer(settings) as data:
        with request_context(source="cli"):
            return await data.api_keys.revoke(SYSTEM, key)
