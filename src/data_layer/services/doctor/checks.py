"""Makes checks one after the other, each within its time limit; none can hide or hold up another."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_layer.errors import ConfigurationError, DataLayerError
from data_layer.schemas.doctor import Finding, Outcome
from data_layer.services.health import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check came to. ``is_end``: there is nothing to look at, so what needs this check is skipped."""

    outcome: Outcome
    meaning: str
    advice: str | None = None
    is_end: bool = False
    because: str | None = None


Look = Callable[[], Awaitable[Verdict | Sequence[Verdict]]]


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


def ok(meaning: str) -> Verdict:
    """All is well."""
    return Verdict(Outcome.OK, meaning)


def warning(meaning: str, advice: str) -> Verdict:
    """It works, but should not stay so."""
    return Verdict(Outcome.WARNING, meaning, advice)


def failed(meaning: str, advice: str | None = None) -> Verdict:
    """It does not work."""
    return Verdict(Outcome.FAILED, meaning, advice)


def nothing_yet(meaning: str) -> Verdict:
    """All is well, and there is nothing further to look at."""
    return Verdict(Outcome.OK, meaning, is_end=True)


def unknown_place(what: str) -> Verdict:
    """The settings do not say where a part is."""
    meaning = f"the settings do not say where {what} is"
    return Verdict(Outcome.SKIPPED, meaning, "mend them first", is_end=True, because="settings.values")


def of_error(error: Exception) -> Verdict:
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
        verdicts, timed_out = await _look(check, check.time_limit or time_limit)
        seconds = round(time.perf_counter() - started, 3)
        if timed_out:
            # The others would wait for the same silent server, one after the other.
            silent |= dict.fromkeys(check.needs, check.name)
        if any(verdict.outcome is Outcome.FAILED or verdict.is_end for verdict in verdicts):
            culprits[check.name] = check.name
        yield tuple(_finding(check, verdict, seconds, mask) for verdict in verdicts)


async def _look(check: Check, time_limit: float) -> tuple[Sequence[Verdict], bool]:
    found: list[Verdict] = []

    async def look() -> None:
        verdicts = await check.look()
        found.extend([verdicts] if isinstance(verdicts, Verdict) else verdicts)

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
        because=f"{check.part}.{reason}",
    )


def _finding(check: Check, verdict: Verdict, seconds: float, mask: Callable[[str], str]) -> Finding:
    return Finding(
        part=check.part,
        check=check.name,
        outcome=verdict.outcome,
        meaning=mask(verdict.meaning),
        advice=None if verdict.advice is None else mask(verdict.advice),
        because=verdict.because,
        seconds=seconds,
    )
