"""Checks, their results, and the doctor that runs them; no check can hide or delay another."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from data_layer.concurrency import cancel_and_wait
from data_layer.errors import ConfigurationError, DataLayerError
from data_layer.schemas.doctor import Finding, Outcome
from data_layer.services.health import within

Findings = asyncio.Queue[tuple[Finding, ...] | None]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check came to. ``is_terminal``: there is nothing to look at, so what needs this check is skipped."""

    outcome: Outcome
    meaning: str
    advice: str | None = None
    is_terminal: bool = False
    caused_by: str | None = None


Look = Callable[[], Awaitable[CheckResult | Sequence[CheckResult]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One question.

    Attributes:
        part: The part that it belongs to.
        name: What it is about; stable, for programs.
        look: Finds out. An error of ours that it raises is a failure with the error's message.
        needs: Names of checks of the same part without whose success it cannot be made.
        time_limit: Seconds, where it needs more than usual.
    """

    part: str
    name: str
    look: Look
    needs: tuple[str, ...] = ()
    time_limit: float | None = None


def ok(meaning: str) -> CheckResult:
    """All is well."""
    return CheckResult(Outcome.OK, meaning)


def warning(meaning: str, advice: str) -> CheckResult:
    """It works, but should not stay so."""
    return CheckResult(Outcome.WARNING, meaning, advice)


def failed(meaning: str, advice: str | None = None) -> CheckResult:
    """It does not work."""
    return CheckResult(Outcome.FAILED, meaning, advice)


def nothing_yet(meaning: str) -> CheckResult:
    """All is well, and there is nothing further to look at."""
    return CheckResult(Outcome.OK, meaning, is_terminal=True)


def unknown_location(what: str) -> CheckResult:
    """The settings do not say where a part is."""
    meaning = f"the settings do not say where {what} is"
    return CheckResult(Outcome.SKIPPED, meaning, "fix them first", is_terminal=True, caused_by="settings.values")


def of_error(error: Exception) -> CheckResult:
    """The failure that an error describes; ours say what to do after a semicolon or colon."""
    if isinstance(error, ConfigurationError):
        return failed("; ".join(error.problems))
    text = str(error).strip()
    for sign in ("; ", ": see that "):
        meaning, found, advice = text.partition(sign)
        if found:
            return failed(meaning, f"see that {advice}" if sign.startswith(":") else advice)
    return failed(text)


async def examine(
    checks: Iterable[Check], *, time_limit: float, mask: Callable[[str], str]
) -> AsyncIterator[tuple[Finding, ...]]:
    """The findings of each check, as it is made.

    Args:
        checks: of one part, those that others need first.
        time_limit: seconds for each of them.
        mask: takes secrets out of a text; none should be there.
    """
    culprits: dict[str, str] = {}
    silent: dict[str, str] = {}
    for check in checks:
        reason = next((culprits[need] for need in check.needs if need in culprits), None)
        reason = reason or next((silent[need] for need in check.needs if need in silent), None)
        if reason is not None:
            culprits[check.name] = reason
            yield (_skipped(check, reason),)
            continue
        started = time.perf_counter()
        results, timed_out = await _look(check, check.time_limit or time_limit)
        seconds = round(time.perf_counter() - started, 3)
        if timed_out:
            # The others would wait for the same silent server, one after the other.
            silent |= dict.fromkeys(check.needs, check.name)
        if any(result.outcome is Outcome.FAILED or result.is_terminal for result in results):
            culprits[check.name] = check.name
        yield tuple(_finding(check, result, seconds, mask) for result in results)


async def _look(check: Check, time_limit: float) -> tuple[Sequence[CheckResult], bool]:
    found: list[CheckResult] = []

    async def look() -> None:
        results = await check.look()
        found.extend([results] if isinstance(results, CheckResult) else results)

    try:
        await within(time_limit, look())
    except TimeoutError:
        return [failed(f"no answer within {time_limit:g} s", "see whether the server or the network hangs")], True
    except DataLayerError as error:
        return [of_error(error)], False
    except OSError as error:
        return [failed(error.strerror or type(error).__name__)], False
    except Exception as error:  # noqa: BLE001  (whatever it is, the other checks must be made)
        return [failed(f"the check itself broke ({type(error).__name__})", "please report this as a bug")], False
    return found, False


def _skipped(check: Check, reason: str) -> Finding:
    return Finding(
        part=check.part,
        check=check.name,
        outcome=Outcome.SKIPPED,
        meaning=f"not looked at, because of {check.part}.{reason}",
        caused_by=f"{check.part}.{reason}",
    )


def _finding(check: Check, result: CheckResult, seconds: float, mask: Callable[[str], str]) -> Finding:
    return Finding(
        part=check.part,
        check=check.name,
        outcome=result.outcome,
        meaning=mask(result.meaning),
        advice=None if result.advice is None else mask(result.advice),
        caused_by=result.caused_by,
        seconds=seconds,
    )


class Doctor:
    """All checks of one configuration.

    Args:
        parts: the checks of each part, in the order in which they are shown.
        time_limit: seconds for each check.
        mask: takes secrets out of a text.
    """

    def __init__(self, parts: Mapping[str, Sequence[Check]], *, time_limit: float, mask: Callable[[str], str]) -> None:
        self.time_limit = time_limit
        self._parts = parts
        self._mask = mask

    @property
    def names(self) -> list[str]:
        """What will be looked at, as ``part.check``."""
        return [f"{check.part}.{check.name}" for checks in self._parts.values() for check in checks]

    async def findings(self) -> AsyncIterator[Finding]:
        """What is found, part after part, each as soon as it is known."""
        queues: list[Findings] = [asyncio.Queue() for _ in self._parts]
        pairs = zip(self._parts.values(), queues, strict=True)
        tasks = [asyncio.create_task(self._look(checks, queue)) for checks, queue in pairs]
        try:
            for queue in queues:
                while (found := await queue.get()) is not None:
                    for finding in found:
                        yield finding
        finally:
            await cancel_and_wait(*tasks)

    async def _look(self, checks: Sequence[Check], queue: Findings) -> None:
        try:
            async for found in examine(checks, time_limit=self.time_limit, mask=self._mask):
                queue.put_nowait(found)
        finally:
            queue.put_nowait(None)


_NUMBER = re.compile(r"\[Errno (\d+)\]")
_REASONS = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.EHOSTUNREACH: "there is no way to this host",
    errno.ENETUNREACH: "there is no way to its network",
    errno.ENOENT: "there is no such socket",
    errno.EACCES: "this user may not open the socket",
}


async def reach(places: Sequence[tuple[str, int]], setting: str, seconds: float) -> list[CheckResult]:
    """Connect to each place and hang up; a host that begins with a slash is the path of a Unix socket."""
    return list(await asyncio.gather(*(_reach(host, port, setting, seconds) for host, port in places)))


async def _reach(host: str, port: int, setting: str, seconds: float) -> CheckResult:
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


def some_suffice(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Of servers that stand in for each other one that does not answer is no failure yet."""
    if all(result.outcome is Outcome.FAILED for result in results):
        return list(results)
    return [replace(one, outcome=Outcome.WARNING) if one.outcome is Outcome.FAILED else one for one in results]


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


def readable_size(count: float) -> str:
    """A number of bytes: 12 MiB, 3.4 GiB."""
    if count >= 2**30:
        return f"{count / 2**30:,.1f} GiB"
    return f"{count / 2**20:,.0f} MiB"


# Sessions and signed URLs are good to the second; a minute is what the signatures of S3 URLs are made to bear.
_SUSPICIOUS_SECONDS = 5.0
_HARMFUL_SECONDS = 60.0


def judge_difference(difference: float, uncertainty: float, whose: str) -> CheckResult:
    """Judge by how many seconds a server's clock is ahead of this machine's, known to within ``uncertainty``."""
    certain = max(0.0, abs(difference) - uncertainty)
    where = "ahead of" if difference > 0 else "behind"
    meaning = f"{whose} clock is {abs(difference):.1f} s {where} this machine's"
    if certain > _HARMFUL_SECONDS:
        return failed(
            f"{meaning}: sessions, tokens and signed URLs end at the wrong time or are refused",
            "have both kept by NTP, for example with chrony",
        )
    if certain > _SUSPICIOUS_SECONDS:
        return warning(meaning, "have both kept by NTP, for example with chrony")
    return ok(f"{whose} clock agrees with this machine's, to within {max(abs(difference), uncertainty):.2f} s")
