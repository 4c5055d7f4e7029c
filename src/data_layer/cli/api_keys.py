"""``data-layer users keys``: API keys of people, for operators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from data_layer.cli.output import AsJson, counted, print_json, print_table, run_with_data, say
from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.schemas.api_keys import ApiKeyView, NewApiKey

_COLUMNS = ("Id", "Name", "Begins", "Scopes", "Made", "Last use", "Ends")

commands = typer.Typer(help="API keys, with which programs act for people.", no_args_is_help=True)

User = Annotated[str, typer.Argument(help="The id or the e-mail address of the person.")]


@commands.command("list")
def list_keys(user: User, *, as_json: AsJson = False) -> None:
    """List the API keys of a person, the newest first; those that have ended for 90 days more."""

    async def work(data: DataLayer) -> Sequence[ApiKeyView]:
        from data_layer.schemas.actors import SYSTEM

        return await data.api_keys.list(SYSTEM, (await data.accounts.find(SYSTEM, user)).id)

    keys = run_with_data(work, as_json=as_json)
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

    async def work(data: DataLayer) -> NewApiKey:
        from data_layer.entities.enums import ApiScope
        from data_layer.schemas.actors import SYSTEM

        if any(each not in list(ApiScope) for each in scope):
            raise InvalidValueError(f"--scope must be one of: {', '.join(ApiScope)}", field="scope")
        lifetime = None if expires_in is None else timedelta(days=expires_in)
        owner = await data.accounts.find(SYSTEM, user)
        scopes = [ApiScope(each) for each in scope]
        return await data.api_keys.create(SYSTEM, name=name, scopes=scopes, expires_in=lifetime, owner_id=owner.id)

    new = run_with_data(work, as_json=as_json)
    secret = new.secret.get_secret_value()
    if as_json:
        print_json({"secret": secret, "api_key": new.key.model_dump(mode="json")})
    else:
        say(f"Made the API key {new.key.id} with the scopes {', '.join(new.key.scopes)}:")
        say(secret)


@commands.command()
def revoke(key: Annotated[UUID, typer.Argument(help="The id of the key.")], *, as_json: AsJson = False) -> None:
    """End an API key for good; within two seconds, everywhere."""

    async def work(data: DataLayer) -> bool:
        from data_layer.schemas.actors import SYSTEM

        return await data.api_keys.revoke(SYSTEM, key)

    was_in_force = run_with_data(work, as_json=as_json)
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
