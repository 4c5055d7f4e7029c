"""Checks, their results, and the doctor that runs them; no check can hide or delay another."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from data_layer.concurrency import cancel_and_wait
from data_layer.errors import ConfigurationError, DataLayerError
from data_layer.schemas.doctor import Filling, Finding, Outcome, Text
from data_layer.services.health import within

Findings = asyncio.Queue[tuple[Finding, ...] | None]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check came to. ``is_terminal``: there is nothing to look at, so what needs this check is skipped."""

    outcome: Outcome
    meaning: Text
    advice: Text | None = None
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


# Translators find what is written in the calls of these four and of ``Text``: literals with places for ``values``.


def ok(meaning: str, /, **values: Filling) -> CheckResult:
    """All is well."""
    return CheckResult(Outcome.OK, Text(meaning, values))


def warning(meaning: str, advice: str, /, **values: Filling) -> CheckResult:
    """It works, but should not stay so."""
    return CheckResult(Outcome.WARNING, Text(meaning, values), Text(advice, values))


def failed(meaning: str, advice: str | None = None, /, **values: Filling) -> CheckResult:
    """It does not work."""
    return CheckResult(Outcome.FAILED, Text(meaning, values), None if advice is None else Text(advice, values))


def nothing_yet(meaning: str, /, **values: Filling) -> CheckResult:
    """All is well, and there is nothing further to look at."""
    return replace(ok(meaning, **values), is_terminal=True)


def joined(texts: Sequence[Text]) -> Text:
    """Several texts as one; at least one."""
    first, *rest = texts
    return Text("%(first)s; %(rest)s", {"first": first, "rest": joined(rest)}) if rest else first


def listed(texts: Sequence[Text]) -> Text:
    """Words as an enumeration; at least one."""
    first, *rest = texts
    return Text("%(first)s and %(rest)s", {"first": first, "rest": listed(rest)}) if rest else first


def unknown_location(what: Filling) -> CheckResult:
    """The settings do not say where a part is."""
    meaning = Text("the settings do not say where %(what)s is", {"what": what})
    return CheckResult(Outcome.SKIPPED, meaning, Text("fix them first"), is_terminal=True, caused_by="settings.values")


def of_error(error: Exception) -> CheckResult:
    """The failure that an error describes; ours say what to do after a semicolon or colon."""
    if isinstance(error, ConfigurationError):
        return as_said("; ".join(error.problems))
    text = str(error).strip()
    for sign in ("; ", ": see that "):
        meaning, found, advice = text.partition(sign)
        if found:
            return as_said(meaning, f"see that {advice}" if sign.startswith(":") else advice)
    return as_said(text)


def as_said(meaning: str, advice: str | None = None) -> CheckResult:
    """A failure in the words of an error or of a server, which nobody translates."""
    return CheckResult(Outcome.FAILED, Text.verbatim(meaning), None if advice is None else Text.verbatim(advice))


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
        nothing = failed(
            "no answer within %(seconds)s s", "see whether the server or the network hangs", seconds=time_limit
        )
        return [nothing], True
    except DataLayerError as error:
        return [of_error(error)], False
    except OSError as error:
        return [as_said(error.strerror or type(error).__name__)], False
    except Exception as error:  # noqa: BLE001  (whatever it is, the other checks must be made)
        name = type(error).__name__
        return [failed("the check itself broke (%(error)s)", "please report this as a bug", error=name)], False
    return found, False


def _skipped(check: Check, reason: str) -> Finding:
    return Finding(
        part=check.part,
        check=check.name,
        outcome=Outcome.SKIPPED,
        meaning=Text("not looked at, because of %(check)s", {"check": f"{check.part}.{reason}"}),
        caused_by=f"{check.part}.{reason}",
    )


def _finding(check: Check, result: CheckResult, seconds: float, mask: Callable[[str], str]) -> Finding:
    return Finding(
        part=check.part,
        check=check.name,
        outcome=result.outcome,
        meaning=result.meaning.masked(mask),
        advice=None if result.advice is None else result.advice.masked(mask),
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

    async def findings(self) -> AsyncGenerator[Finding]:
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
    errno.ECONNREFUSED: Text("nothing listens there"),
    errno.EHOSTUNREACH: Text("this host cannot be reached"),
    errno.ENETUNREACH: Text("its network cannot be reached"),
    errno.ENOENT: Text("the socket does not exist"),
    errno.EACCES: Text("this user may not open the socket"),
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
            "%(name)s does not answer within %(seconds)s s",
            "see whether a firewall or network policy is in between, and whether %(setting)s is right",
            name=name,
            seconds=seconds,
            setting=setting,
        )
    except (socket.gaierror, UnicodeError):
        return failed(
            "the name %(host)s cannot be resolved",
            "correct %(setting)s, or the DNS of this machine or pod",
            host=host,
            setting=setting,
        )
    except OSError as error:
        return failed(
            "%(name)s cannot be reached: %(reason)s",
            "see that the server runs, and that %(setting)s is right",
            name=name,
            reason=_REASONS.get(_number(error)) or Text.verbatim(error.strerror or type(error).__name__),
            setting=setting,
        )
    return ok(
        "%(name)s takes connections, after %(milliseconds)s ms",
        name=name,
        milliseconds=round((time.perf_counter() - started) * 1000),
    )


def some_suffice(results: Sequence[CheckResult]) -> list[CheckResult]:
    """One silent server is not a failure yet where servers stand in for each other."""
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


def readable_size(count: float) -> Text:
    """A number of bytes: 12 MiB, 3.4 GiB."""
    if count >= 2**30:
        return Text("%(number)s GiB", {"number": round(count / 2**30, 1)})
    return Text("%(number)s MiB", {"number": round(count / 2**20)})


# Sessions and signed URLs are good to the second; a minute is what the signatures of S3 URLs are made to bear.
_SUSPICIOUS_SECONDS = 5.0
_HARMFUL_SECONDS = 60.0


def judge_difference(difference: float, uncertainty: float, whose: Filling) -> CheckResult:
    """Judge by how many seconds the clock of ``whose`` is ahead of this machine's, known to within ``uncertainty``."""
    certain = max(0.0, abs(difference) - uncertainty)
    figures: dict[str, Filling] = {"server": whose, "seconds": round(abs(difference), 1)}
    if difference > 0:
        meaning = Text("the clock of %(server)s is %(seconds)s s ahead of this machine's", figures)
    else:
        meaning = Text("the clock of %(server)s is %(seconds)s s behind this machine's", figures)
    advice = Text("have both kept by NTP, for example with chrony")
    if certain > _HARMFUL_SECONDS:
        harm = Text("sessions, tokens and signed URLs end at the wrong time or are refused")
        return CheckResult(Outcome.FAILED, joined([meaning, harm]), advice)
    if certain > _SUSPICIOUS_SECONDS:
        return CheckResult(Outcome.WARNING, meaning, advice)
    return ok(
        "the clock of %(server)s agrees with this machine's, to within %(milliseconds)s ms",
        server=whose,
        milliseconds=max(1, round(max(abs(difference), uncertainty) * 1000)),
    )
