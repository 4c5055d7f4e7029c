"""Whether the names of servers are known, and whether anything listens there."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from data_layer.schemas.doctor import Outcome
from data_layer.services.doctor.checks import Verdict, failed, ok

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER = re.compile(r"\[Errno (\d+)\]")
_REASONS = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.EHOSTUNREACH: "there is no way to this host",
    errno.ENETUNREACH: "there is no way to its network",
    errno.ENOENT: "there is no such socket",
    errno.EACCES: "this user may not open the socket",
}


async def reach(places: Sequence[tuple[str, int]], setting: str, seconds: float) -> list[Verdict]:
    """Connect to each place and hang up; a host that begins with a slash is the path of a Unix socket."""
    return list(await asyncio.gather(*(_reach(host, port, setting, seconds) for host, port in places)))


async def _reach(host: str, port: int, setting: str, seconds: float) -> Verdict:
    name = host if host.startswith("/") else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    started = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            await _connect(host, port)
    except TimeoutError:
        return failed(
            f"{name} does not answer within {seconds:g} s",
            f"see whether a firewall or network policy is in between, and whether {setting} is right",
        )
    except (socket.gaierror, UnicodeError):
        return failed(f"the name {host} cannot be resolved", f"correct {setting}, or the DNS of this machine or pod")
    except OSError as error:
        reason = _REASONS.get(_number(error), error.strerror or type(error).__name__)
        return failed(f"{name} cannot be reached: {reason}", f"see that the server runs, and that {setting} is right")
    return ok(f"{name} takes connections, after {(time.perf_counter() - started) * 1000:.0f} ms")


def some_suffice(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Of servers that stand in for each other one that does not answer is no failure yet."""
    if all(verdict.outcome is Outcome.FAILED for verdict in verdicts):
        return list(verdicts)
    return [replace(one, outcome=Outcome.WARNING) if one.outcome is Outcome.FAILED else one for one in verdicts]


def _number(error: OSError) -> int:
    """The number of an error; asyncio puts those of several addresses of one host into a text."""
    found = _NUMBER.search(str(error))
    return error.errno or (int(found[1]) if found else 0)


async def _connect(host: str, port: int) -> None:
    connecting = asyncio.open_unix_connection(host) if host.startswith("/") else asyncio.open_connection(host, port)
    _, writer = await connecting
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
