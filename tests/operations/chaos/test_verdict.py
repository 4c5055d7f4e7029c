"""The checker itself: it has to be able to find fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_layer.errors import CommitUnknownError, DatabaseUnavailableError
from tests.operations.chaos import verdict
from tests.operations.chaos.faults import Fault
from tests.operations.chaos.journal import DONE, FAILED, UNKNOWN, UNTYPED, Event, Journal, Reader
from tests.operations.chaos.plan import POSTGRESQL, REDIS, STORAGE, Plan
from tests.operations.chaos.truth import Code, Truth
from tests.operations.chaos.watch import Answer
from tests.support import made

PLAN = Plan()
AWAY = Fault("away", POSTGRESQL, 100.0, 103.0)
EMPTY = Fault("empty", REDIS, 100.0, 103.0)


def event(kind: str, began: float = 10.0, outcome: str = DONE, **values: Any) -> Event:
    seconds, process, errors = values.pop("seconds", 0.1), values.pop("process", "a"), values.pop("errors", [])
    code = "code" if outcome in {FAILED, UNKNOWN} else ""
    return Event(process, kind, began, began + seconds, outcome, code, errors, facts=values)


def save(code: str, version: int = 1, outcome: str = DONE) -> Event:
    return event("save", outcome=outcome, code=code, row=0, version=version)


def stored(*codes: str, entries: int = 1, **values: Any) -> Truth:
    audits = {("code_generate", code): entries for code in codes if entries}
    versions = {code: Code(0, number, is_right=True) for number, code in enumerate(codes, start=1)}
    return made(Truth, values, codes=versions, counts={0: len(codes)}, audits=audits)


@pytest.mark.parametrize(
    ("events", "truth"),
    [
        ([], Truth()),
        ([save("x"), save("y", 2)], stored("x", "y")),
        ([save("x"), save("y", outcome=FAILED)], stored("x")),
        ([save("x", outcome=UNKNOWN)], stored("x")),
        ([save("x", outcome=UNKNOWN)], stored()),
    ],
)
def test_saves_that_are_in_order(events: list[Event], truth: Truth) -> None:
    assert verdict.check_saves(events, truth) == []


@pytest.mark.parametrize(
    ("events", "truth"),
    [
        ([save("x")], stored()),
        ([save("x", 2)], stored("x")),
        ([save("x", outcome=FAILED)], stored("x")),
        ([save("x")], stored("x", entries=0)),
        ([save("x")], stored("x", entries=2)),
        ([save("x", outcome=UNKNOWN)], stored(audits={("code_generate", "x"): 1})),
        ([save("x")], stored("x", counts={0: 2})),
        ([save("x"), save("y", 3)], stored("x", codes={"x": Code(0, 1, True), "y": Code(0, 3, True)})),
        ([save("x")], stored("x", codes={"x": Code(1, 1, is_right=True)}, counts={1: 1})),
        ([save("x")], stored("x", codes={"x": Code(0, 1, is_right=False)})),
        ([], stored("x")),
    ],
)
def test_saves_that_are_not(events: list[Event], truth: Truth) -> None:
    assert verdict.check_saves(events, truth)


def version(kind: str, number: int | None, began: float, process: str = "a") -> Event:
    return event(kind, began, process=process, row=0, version=number)


@pytest.mark.parametrize(
    "events",
    [
        [version("save", 1, 10), version("read", 0, 10.9, "b"), version("read", 1, 11.2, "b"), version("get", None, 9)],
        [version("save", 1, 101), version("read", 0, 104.9, "b")],  # Redis does not know yet.
    ],
)
def test_reads_that_are_new_enough(events: list[Event]) -> None:
    assert verdict.check_reads(events, [EMPTY]) == []


@pytest.mark.parametrize(
    "events",
    [
        [version("save", 1, 10), version("read", 0, 11.2, "b")],
        [version("save", 1, 10), version("read", 0, 10.2)],
        [version("save", 1, 101), version("read", 0, 101.2)],
        [version("save", 1, 101), version("fresh", 0, 101.2, "b")],
        [version("save", 1, 101), version("read", 0, 105.2, "b")],
        [version("save", 1, 101), version("read", 0, 107.2, "b")],
    ],
)
def test_reads_that_are_not(events: list[Event]) -> None:
    assert verdict.check_reads(events, [EMPTY])


def validate(began: float, *, accepted: bool = True, is_right: bool = True) -> Event:
    return event("validate", began, session="s", accepted=accepted, is_right=is_right)


BEGUN = event("begin", 5, session="s")
ENDED = event("revoke", 20, session="s", ended=1)
LIVING = Truth(sessions={"s": "active"}, audits={("session_create", "s"): 1})
REVOKED = Truth(sessions={"s": "revoked"}, audits={("session_create", "s"): 1, ("session_revoke", "s"): 1})


@pytest.mark.parametrize(
    ("events", "truth"),
    [
        ([BEGUN, validate(6)], LIVING),
        ([BEGUN, ENDED, validate(6), validate(22), validate(20.05, accepted=False)], REVOKED),
        ([BEGUN, event("revoke", 20, UNKNOWN, session="s"), validate(30, accepted=False)], REVOKED),
        ([BEGUN, event("revoke", 20, UNKNOWN, session="s"), validate(30)], LIVING),
        ([BEGUN, event("begin", outcome=UNKNOWN)], LIVING),
    ],
)
def test_sessions_that_are_in_order(events: list[Event], truth: Truth) -> None:
    assert verdict.check_sessions(events, truth) == []


@pytest.mark.parametrize(
    ("events", "truth"),
    [
        ([BEGUN], Truth()),
        ([BEGUN, validate(6, accepted=False)], LIVING),
        ([BEGUN, validate(6, is_right=False)], LIVING),
        ([BEGUN, ENDED, validate(22.2)], REVOKED),
        ([BEGUN, ENDED, validate(15, accepted=False)], REVOKED),
        ([BEGUN, ENDED, ENDED], REVOKED),
        ([BEGUN, ENDED], LIVING),
        ([BEGUN], REVOKED),
        ([BEGUN, ENDED], Truth(sessions={"s": "revoked"}, audits={("session_create", "s"): 1})),
        ([], LIVING),
    ],
)
def test_sessions_that_are_not(events: list[Event], truth: Truth) -> None:
    assert verdict.check_sessions(events, truth)


def upload(*, is_right: bool = True) -> Event:
    return event("upload", file="f", sha256="hash", is_right=is_right)


def download(began: float = 20, **facts: Any) -> Event:
    return event("download", began, file="f", **facts)


DELETED = event("delete", 30, file="f", was_there=True)
KEPT = Truth(files={"f": "hash"})


@pytest.mark.parametrize(
    ("events", "truth"),
    [
        ([upload(), download(is_there=True, is_right=True)], KEPT),
        ([upload(), DELETED, download(31, is_there=False), download(30, is_there=False)], Truth()),
        ([upload(), event("delete", outcome=UNKNOWN, file="f")], KEPT),
        ([upload(), event("delete", outcome=UNKNOWN, file="f")], Truth()),
        ([upload(), event("upload", outcome=UNKNOWN)], Truth(files={"f": "hash", "g": "other"})),
    ],
)
def test_files_that_are_in_order(events: list[Event], truth: Truth) -> None:
    assert verdict.check_files(events, truth) == []


@pytest.mark.parametrize(
    ("events", "truth"),
    [
        ([upload()], Truth()),
        ([upload()], Truth(files={"f": "other"})),
        ([upload()], Truth(files={"f": "hash"}, orphans=["files/x"])),
        ([upload(is_right=False)], KEPT),
        ([upload(), DELETED], KEPT),
        ([upload(), download(is_there=False)], KEPT),
        ([upload(), download(is_there=True, is_right=False)], KEPT),
        ([upload(), event("upload", outcome=FAILED)], Truth(files={"f": "hash", "g": "other"})),
    ],
)
def test_files_that_are_not(events: list[Event], truth: Truth) -> None:
    assert verdict.check_files(events, truth)


def test_recorded_entries_are_there_once() -> None:
    events = [event("record", entry="e")]
    assert verdict.check_records(events, Truth(audits={("code_copy", "e"): 1})) == []
    assert verdict.check_records(events, Truth())
    assert verdict.check_records(events, Truth(audits={("code_copy", "e"): 2}))


def failed(kind: str, began: float, error: str, outcome: str = FAILED, seconds: float = 0.1) -> Event:
    return event(kind, began, outcome, errors=[error], seconds=seconds)


@pytest.mark.parametrize(
    ("events", "faults"),
    [
        ([failed("save", 101, "DatabaseError"), failed("save", 107, "DatabaseError", UNKNOWN)], [AWAY]),
        ([failed("get", 101, "CacheError")], [EMPTY]),
        ([failed("upload", 101, "StorageError", seconds=10)], [Fault("slow", STORAGE, 100, 103)]),
        ([event("save", seconds=9.9)], []),
    ],
)
def test_errors_that_have_a_reason(events: list[Event], faults: list[Fault]) -> None:
    assert verdict.check_errors(events, faults, PLAN) == []


@pytest.mark.parametrize(
    ("events", "faults"),
    [
        ([failed("save", 101, "DatabaseError")], []),
        ([failed("save", 101, "DatabaseError")], [EMPTY]),
        ([failed("save", 109, "DatabaseError")], [AWAY]),
        ([failed("save", 101, "CacheError")], [EMPTY]),
        ([failed("save", 101, "TransactionError")], [AWAY]),
        ([event("save", 101, UNTYPED, errors=["OSError"])], [AWAY]),
        ([event("save", seconds=10.1)], []),
        ([failed("save", 101, "DatabaseError", seconds=75)], [AWAY]),
    ],
)
def test_errors_that_have_none(events: list[Event], faults: list[Fault]) -> None:
    assert verdict.check_errors(events, faults, PLAN)


def test_recovery_is_the_time_of_the_last_error_after_the_return() -> None:
    next_fault = Fault("next", POSTGRESQL, 120, 121)
    events = [
        failed("save", 102, "DatabaseError"),
        failed("save", 104, "DatabaseError"),
        event("save", 104.5),
        failed("save", 119.95, "DatabaseError"),  # Hit by the next fault.
    ]
    seconds, silent = verdict.recovery(events, [AWAY, next_fault], AWAY)
    assert seconds == pytest.approx(1.1)
    assert silent == []
    assert verdict.recovery([failed("save", 104, "DatabaseError")], [AWAY], AWAY)[1]
    assert verdict.recovery([event("save", 90), event("get", 104)], [AWAY], AWAY)[1]


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (Answer("/livez", 10, 11, 200), True),
        (Answer("/livez", 10, 11, 503), False),
        (Answer("/readyz", 101, 102, 503), True),
        (Answer("/readyz", 107, 108, 503), True),
        (Answer("/readyz", 109, 110, 503), False),
        (Answer("/health", 10, 11, 500), False),
        (Answer("/readyz", 10, 11, 0), False),
    ],
)
def test_readiness(answer: Answer, *, is_right: bool) -> None:
    assert (verdict.check_readiness([answer], [AWAY, Fault("r", REDIS, 105, 120)], PLAN) == []) == is_right


def test_the_time_until_the_service_is_ready() -> None:
    answers = [
        Answer("/readyz", 102, 102.5, 503),
        Answer("/readyz", 103.2, 103.5, 503),
        Answer("/readyz", 130, 131, 503),
    ]
    assert verdict.readiness_recovery(answers, [AWAY, Fault("r", POSTGRESQL, 125, 132)], AWAY) == pytest.approx(0.5)


def test_a_journal_keeps_what_happened(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path, "a"), Reader(tmp_path)
    with journal.operation("save", row=1) as done:
        done.facts["version"] = 2
    for error in (DatabaseUnavailableError("gone"), CommitUnknownError("perhaps"), OSError("raw")):
        with journal.operation("save"):
            raise error
    events = reader.more()
    assert [event.outcome for event in events] == [DONE, FAILED, UNKNOWN, UNTYPED]
    assert events[0].facts == {"row": 1, "version": 2}
    assert events[1].code == "database_unavailable"
    assert "DatabaseError" in events[1].errors
    assert reader.more() == []
    assert journal.under_way == {}
