"""Runs a command as root of a user namespace that allows no further one: ``without_namespaces.py all|own COMMAND…``.

``all``: every account exists in it (needs root). ``own``: only root does, who is the caller outside.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000


def main(numbers: str, *command: str) -> None:
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.read(ready[0], 1)
        proc = Path(f"/proc/{child}")
        if numbers == "own":
            (proc / "setgroups").write_text("deny", encoding="ascii")
        size = 65536 if numbers == "all" else 1
        (proc / "uid_map").write_text(f"0 {outside_uid} {size}", encoding="ascii")
        (proc / "gid_map").write_text(f"0 {outside_gid} {size}", encoding="ascii")
        os.write(go_on[1], b"x")
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    os.write(ready[1], b"x")
    os.read(go_on[0], 1)
    Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="ascii")
    os.execv(command[0], command)  # noqa: S606 (the tests choose the command)


if __name__ == "__main__":
    main(*sys.argv[1:])
