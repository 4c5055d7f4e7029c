"""Under which account PostgreSQL runs, which refuses to be root and to have no name."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_layer.embedded.folders import account_name, nobody
from data_layer.embedded.program import run_program
from data_layer.errors import EmbeddedServerError

if TYPE_CHECKING:
    from pathlib import Path

SAME = "same"


@dataclass(frozen=True, slots=True)
class _Candidate:
    identity: str
    description: str
    needs_ownership: bool


async def choose_identity(folder: Path, sockets: Path, postgres: Path) -> str:
    """The identity, as ``launch.py`` takes it, under which ``postgres`` can work in the folder.

    An ordinary account stays itself. Root bears the number of ``nobody`` in a user namespace, which leaves every file
    root's own; where namespaces are refused, ``nobody`` itself runs the server and is given the folder.

    Raises:
        EmbeddedServerError: neither is possible here.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return SAME
    refusals = []
    for candidate in _candidates(folder):
        place = folder.parent if candidate.needs_ownership else folder
        status, said = await run_program([str(postgres), "--version"], folder=place, identity=candidate.identity)
        if status == 0:
            if candidate.needs_ownership:
                _hand_over(folder, sockets)
            return candidate.identity
        refusals.append(f"{candidate.description}: {said.strip() or f'exit status {status}'}")
    raise EmbeddedServerError(
        f"PostgreSQL does not run as {account_name(os.geteuid())}, and nothing else is possible in {folder} "
        f"({'; '.join(refusals)}). Run this as an ordinary user with a name, or set DB_HOST to a server of your own, "
        "or move the project to a folder that other accounts may enter."
    )


def _candidates(folder: Path) -> list[_Candidate]:
    uid, gid = nobody()
    account = _Candidate(f"account:{uid}:{gid}", "as the account nobody", needs_ownership=True)
    if folder.stat().st_uid != os.geteuid():
        return [account]
    found = []
    if sys.platform == "linux":
        found.append(_Candidate(f"namespace:{uid}:{gid}", "in a user namespace", needs_ownership=False))
    if os.geteuid() == 0:
        found.append(account)
    return found


def _hand_over(folder: Path, sockets: Path) -> None:
    uid, gid = nobody()
    for top in (folder, sockets):
        os.chown(top, uid, gid)
        for parent, folders, files in os.walk(top):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)  # noqa: PTH118 (os.walk gives text)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
