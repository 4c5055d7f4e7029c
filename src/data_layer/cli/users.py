"""``data-layer users``: so that the first administrator can be made, and an incident handled, without SQL."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from data_layer.cli import api_keys
from data_layer.cli.codes import Replaces
from data_layer.cli.output import (
    AsJson,
    Result,
    counted,
    new_file,
    print_facts,
    print_json,
    print_table,
    read_settings,
    readable_errors,
    run,
    run_with_data,
    say,
)
from data_layer.cli.sessions import list_sessions
from data_layer.config import Settings
from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.schemas.users import UserAdmin
    from data_layer.services.accounts import AccountService

_NOBODY_ANSWERS = (
    "no password was given; write it as the first line of standard input, or let the person choose one: "
    "--without-password"
)
_COLUMNS = ("Address", "Name", "Role", "Status", "Last login", "Id")

commands = typer.Typer(help="Accounts of people.", no_args_is_help=True)
commands.add_typer(api_keys.commands, name="keys")

# The names of the enumerations, which would bring the whole of SQLAlchemy into every --help.
Role = Literal["user", "moderator", "admin"]
Status = Literal["active", "inactive", "suspended", "pending"]
User = Annotated[str, typer.Argument(help="The id or the e-mail address.")]


@commands.command()
def create(
    email: Annotated[str, typer.Argument(help="The e-mail address.")],
    *,
    name: Annotated[str, typer.Option(help="First and last name. Default: what stands before the @.")] = "",
    role: Annotated[Role, typer.Option(help="The role.")] = "user",
    without_password: Annotated[
        bool, typer.Option("--without-password", help="Let the person choose one by resetting it.")
    ] = False,
    verified: Annotated[
        bool, typer.Option("--verified", help="Vouch for it that the person reads mail at the address.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an account that is open at once. The password is asked for, or is the first line of standard input."""
    settings = read_settings(as_json=as_json)
    with readable_errors(as_json=as_json):
        password = None if without_password else _read_password()
    first, _, last = (name.strip() or email.partition("@")[0]).partition(" ")

    async def work(accounts: AccountService) -> UserAdmin:
        from data_layer.entities.enums import UserRole
        from data_layer.schemas.actors import SYSTEM

        made = await accounts.create(
            SYSTEM,
            email=email,
            first_name=first,
            last_name=last.strip(),
            password=password,
            role=UserRole(role),
            email_verified=verified,
        )
        return await accounts.find(SYSTEM, str(made.id))

    user = run(_with_accounts(settings, work), as_json=as_json)
    _report(user, f"Made an account for {user.email} with the role {user.role}: {user.id}", as_json=as_json)


@commands.command("list")
def list_users(
    *,
    role: Annotated[Role | None, typer.Option(help="Only accounts with this role.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only accounts with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of accounts.")] = 50,
    after: Annotated[UUID | None, typer.Option(help="The id of the last account of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List accounts, oldest first."""

    async def work(accounts: AccountService) -> Sequence[UserAdmin]:
        from data_layer.entities.enums import UserRole, UserStatus
        from data_layer.schemas.actors import SYSTEM

        wanted_role, wanted_status = role and UserRole(role), status and UserStatus(status)
        return await accounts.list(SYSTEM, limit=limit, after=after, role=wanted_role, status=wanted_status)

    users = run(_with_accounts(read_settings(as_json=as_json), work), as_json=as_json)
    if as_json:
        print_json(users)
    elif not users:
        say("There are no such accounts. Make one with: data-layer users create")
    else:
        more = f"; for more: --after {users[-1].id}" if len(users) == limit else ""
        print_table(counted(len(users), "account") + more, _COLUMNS, [_cells(user) for user in users])


@commands.command()
def show(user: User, *, as_json: AsJson = False) -> None:
    """Show an account."""
    found = _change(user, lambda _, account: _itself(account), as_json=as_json)
    if as_json:
        print_json(found)
    else:
        _print_facts(found)


@commands.command("role")
def set_role(
    user: User, role: Annotated[Role, typer.Argument(help="The new role.")], *, as_json: AsJson = False
) -> None:
    """Give an account another role; its sessions end. The last active administrator stays one."""
    from data_layer.entities.enums import UserRole
    from data_layer.schemas.actors import SYSTEM

    new = UserRole(role)
    changed = _change(user, lambda accounts, account: accounts.set_role(SYSTEM, account.id, new), as_json=as_json)
    _report(changed, f"{changed.email} has the role {changed.role} now.", as_json=as_json)


@commands.command()
def verify(user: User, *, as_json: AsJson = False) -> None:
    """Vouch for it that the person who registered reads mail at the address; a new account is open then."""
    from data_layer.schemas.actors import SYSTEM

    changed = _change(user, lambda accounts, account: accounts.verify(SYSTEM, account.id), as_json=as_json)
    _report(changed, f"The address {changed.email} is verified, and the account {changed.status}.", as_json=as_json)


@commands.command("reset-factors")
def reset_factors(user: User, *, as_json: AsJson = False) -> None:
    """Remove the second factors of a person after they were lost; all sessions end."""

    async def work(accounts: AccountService) -> int:
        from data_layer.schemas.actors import SYSTEM

        account = await accounts.find(SYSTEM, user)
        return await accounts.reset_factors(SYSTEM, account.id)

    removed = run(_with_accounts(read_settings(as_json=as_json), work), as_json=as_json)
    if as_json:
        print_json({"removed": removed})
    else:
        say(f"Removed {counted(removed, 'second factor')}.")


@commands.command()
def export(
    user: User,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="ZIP file. Default: export-ID.zip.")] = None,
    force: Replaces = False,
    as_json: AsJson = False,
) -> None:
    """Write everything that is kept about a person to a ZIP file, for that person."""

    async def work(data: DataLayer) -> Path:
        from data_layer.schemas.actors import SYSTEM

        account = await data.accounts.find(SYSTEM, user)
        target = output or Path(f"export-{account.id}.zip")
        with new_file(target, replaces=force) as file:
            async with aclosing(data.personal_data.export(SYSTEM, account.id)) as pieces:
                async for piece in pieces:
                    file.write(piece)
        return target

    target = run_with_data(work, as_json=as_json)
    if as_json:
        print_json({"file": str(target)})
    else:
        say(f"Wrote everything about {user} to {target}")


@commands.command("password")
def set_password(user: User, *, as_json: AsJson = False) -> None:
    """Give an account another password; its sessions end. It is asked for, or the first line of standard input."""
    from data_layer.schemas.actors import SYSTEM

    with readable_errors(as_json=as_json):
        password = _read_password()
    changed = _change(
        user, lambda accounts, account: accounts.set_password(SYSTEM, account.id, password), as_json=as_json
    )
    _report(changed, f"{changed.email} has another password now, and is logged out everywhere.", as_json=as_json)


@commands.command()
def suspend(
    user: User,
    *,
    reason: Annotated[str, typer.Option(help="What the audit trail keeps as the reason.")] = "suspended by operator",
    as_json: AsJson = False,
) -> None:
    """Keep somebody out; the sessions end, within two seconds, everywhere."""
    from data_layer.schemas.actors import SYSTEM

    changed = _change(
        user, lambda accounts, account: accounts.suspend(SYSTEM, account.id, reason=reason), as_json=as_json
    )
    _report(changed, f"{changed.email} is suspended.", as_json=as_json)


@commands.command()
def unsuspend(user: User, *, as_json: AsJson = False) -> None:
    """Let somebody in again."""
    from data_layer.schemas.actors import SYSTEM

    changed = _change(user, lambda accounts, account: accounts.unsuspend(SYSTEM, account.id), as_json=as_json)
    _report(changed, f"{changed.email} is {changed.status} again.", as_json=as_json)


@commands.command()
def unlock(user: User, *, as_json: AsJson = False) -> None:
    """End the waiting after failed logins."""
    from data_layer.schemas.actors import SYSTEM

    async def work(accounts: AccountService, account: UserAdmin) -> UserAdmin:
        await accounts.unlock(SYSTEM, account.id)
        return await accounts.find(SYSTEM, str(account.id))

    changed = _change(user, work, as_json=as_json)
    _report(changed, f"{changed.email} need not wait any longer.", as_json=as_json)


@commands.command()
def sessions(
    user: User,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of sessions.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the sessions of an account; end them with: data-layer sessions revoke --user USER."""
    list_sessions(user=user, limit=limit, as_json=as_json)


@commands.command()
def delete(
    user: User,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase an account with its projects and files. Only its id stays, for the audit trail."""
    from data_layer.schemas.actors import SYSTEM

    if not yes:
        typer.confirm(f"Erase the account {user!r} with all its projects and files?", abort=True, err=True)

    async def work(accounts: AccountService, account: UserAdmin) -> UserAdmin:
        await accounts.delete(SYSTEM, account.id)
        return account

    deleted = _change(user, work, as_json=as_json)
    if as_json:
        print_json({"deleted": deleted.id})
    else:
        say(f"Erased the account {deleted.id}.")


def _read_password() -> str:
    """The password from the terminal, unseen and twice, or from standard input; never from an argument."""
    try:
        if not sys.stdin.isatty():
            return _first_line()
        password = getpass.getpass("Password: ")
        again = getpass.getpass("Once more: ")
    except EOFError:
        raise InvalidValueError(_NOBODY_ANSWERS, field="password") from None
    if again != password:
        raise InvalidValueError("the two passwords are not the same; nothing was changed", field="password")
    return password


def _first_line() -> str:
    try:
        line = sys.stdin.buffer.readline().decode()  # Whatever the locale says.
    except UnicodeDecodeError:
        raise InvalidValueError("the password on standard input is not UTF-8", field="password") from None
    except OSError as error:
        raise InvalidValueError(f"standard input cannot be read: {error.strerror}", field="password") from None
    if not line:
        raise InvalidValueError(_NOBODY_ANSWERS, field="password")
    return line.removesuffix("\n").removesuffix("\r")


async def _itself(account: UserAdmin) -> UserAdmin:
    return account


def _change(
    user: str, work: Callable[[AccountService, UserAdmin], Awaitable[UserAdmin]], *, as_json: bool
) -> UserAdmin:
    async def find_and_work(accounts: AccountService) -> UserAdmin:
        from data_layer.schemas.actors import SYSTEM

        return await work(accounts, await accounts.find(SYSTEM, user))

    return run(_with_accounts(read_settings(as_json=as_json), find_and_work), as_json=as_json)


async def _with_accounts(settings: Settings, work: Callable[[AccountService], Awaitable[Result]]) -> Result:
    from data_layer.context import request_context
    from data_layer.layer import DataLayer

    async with DataLayer(settings) as data:
        with request_context(source="cli"):
            return await work(data.accounts)


def _report(user: UserAdmin, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(user)
    else:
        say(text)


def _cells(user: UserAdmin) -> tuple[object, ...]:
    last = f"{user.last_login_at:%Y-%m-%d %H:%M}" if user.last_login_at else "never"
    return (user.email, _name(user), user.role, user.status, last, user.id)


def _name(user: UserAdmin) -> str:
    return user.display_name or f"{user.first_name} {user.last_name}".strip()


def _print_facts(user: UserAdmin) -> None:
    identities = {"azure_ad": user.azure_id, "google": user.google_id, "github": user.github_id}
    facts = {
        "Id": user.id,
        "Name": _name(user),
        "Role": user.role,
        "Status": user.status,
        "Address": "verified" if user.email_verified else "not verified",
        "Logs in by": ", ".join(
            name for name, value in {"password": user.password_changed_at, **identities}.items() if value
        ),
        "Last login": user.last_login_at and f"{user.last_login_at:%Y-%m-%d %H:%M} from {user.last_login_ip or '?'}",
        "Logins": user.login_count,
        "Failed since": user.failed_login_count,
        "Waits until": user.locked_until and f"{user.locked_until:%Y-%m-%d %H:%M:%S}",
        "Made": f"{user.created_at:%Y-%m-%d %H:%M}",
    }
    print_facts(user.email, {name: value for name, value in facts.items() if value not in {None, ""}})
