"""Becomes a server program: ``launch.py IDENTITY SIGNAL PARENT FOLDER PROGRAM ARGUMENT…``.

Run by path between the guardian and a server, because these steps belong into the child process and Python cannot run
them safely between fork and exec. IDENTITY is ``same``, ``namespace:UID:GID`` (a user namespace in which this account
bears that number) or ``account:UID:GID``. SIGNAL goes to the server when PARENT, the guardian, is killed. The program
starts in FOLDER. Exit status 126 with a line on standard error: a step was refused.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_REFUSED = 126


def main(identity: str, death_signal: str, parent: str, folder: str, *command: str) -> None:
    """Take the steps and become the program."""
    kind, *numbers = identity.split(":")
    if kind == "namespace":
        _enter_namespace(*numbers)
    elif kind == "account":
        _become_account(*map(int, numbers))
    # After the identity: the kernel forgets the death signal when credentials change.
    _end_with_parent(int(death_signal), int(parent))
    os.chdir(folder)
    # Python ignores it, and a program would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 (the path comes from the wheel)


def _enter_namespace(uid: str, gid: str) -> None:
    own_uid, own_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"user namespaces are refused: {os.strerror(number)}")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {own_uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {own_gid} 1", encoding="ascii")


def _become_account(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _end_with_parent(death_signal: int, parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        raise OSError("the guardian is gone")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        sys.exit(_REFUSED)
