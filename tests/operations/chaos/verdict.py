"""The checker: what the replicas answered, against what is there, and against what the data layer promises."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.cache.distributed import history
from tests.operations.chaos.faults import Fault
from tests.operations.chaos.journal import DONE, FAILED, UNKNOWN, UNTYPED, Event
from tests.operations.chaos.plan import POSTGRESQL, REDIS, STORAGE, Plan
from tests.operations.chaos.truth import Truth
from tests.operations.chaos.watch import Answer

SAVES = frozenset({"save", "save at once"})
READS = frozenset({"read", "get", "fresh", "database"})
_REVOKED_EVERYWHERE = 2.0
"""Seconds after which nobody accepts a session that was ended (``services.sessions.watermark``)."""
_INFORMED_AFTER_OUTAGE = 4.0
"""Seconds after Redis is back until all have delivered their invalidations to it: ARCHITECTURE, "One cached read"."""
_FAMILIES = {"DatabaseError": POSTGRESQL, "CacheError": REDIS, "StorageError": STORAGE}
_NEEDS = {
    POSTGRESQL: SAVES | READS - {"get"} | {"begin", "validate", "revoke", "upload", "download", "delete"},
    REDIS: {"get"},
    STORAGE: {"upload", "download", "delete"},
}
"""Which operations may fail while a server is away. Without Redis everything works but asking the cache alone."""
_CREATED, _REVOKED, _GENERATED, _COPIED = "session_create", "session_revoke", "code_generate", "code_copy"


def check_saves(events: Iterable[Event], truth: Truth) -> list[str]:
    """What was acknowledged is there once, with its audit entry; what was refused is not; versions have no gaps."""
    found = []
    saves = [event for event in events if event.kind in SAVES]
    for save in saves:
        code_id = save.facts["code"]
        code, entries = truth.codes.get(code_id), truth.audits.get((_GENERATED, code_id), 0)
        if save.outcome == DONE and (code is None or code.version != save.facts["version"]):
            found.append(f"a version that was acknowledged is {code}: {save}")
        if save.outcome == FAILED and (code is not None or entries):
            found.append(f"what was refused is stored: {save}")
        if entries != (code is not None):
            found.append(f"the version is {code}, and there are {entries} audit entries of it: {save}")
        if code is not None and (code.row != save.facts["row"] or not code.is_right):
            found.append(f"the version that is stored is another one: {code}: {save}")
    versions = defaultdict(list)
    for code in truth.codes.values():
        versions[code.row].append(code.version)
    for row, count in truth.counts.items():
        if sorted(versions[row]) != list(range(1, count + 1)):
            found.append(f"project {row} counts {count} versions and has {sorted(versions[row])}")
    if unknown := truth.codes.keys() - {save.facts["code"] for save in saves}:
        found.append(f"{len(unknown)} versions are stored that nobody saved")
    return found


def check_reads(events: Iterable[Event], faults: Sequence[Fault]) -> list[str]:
    """No read is older than the cache promises.

    A change is seen by its own process at once, by others after a second; after Redis was away, when its process has
    informed Redis, which each tries again every two seconds. ``fresh`` reads and those past the cache see it at once.
    """
    stale = [(fault.began, fault.returned + _INFORMED_AFTER_OUTAGE) for fault in faults if fault.server == REDIS]
    usual, after_outage = [], []
    for event in events:
        version = event.facts.get("version")
        if event.outcome != DONE or version is None or event.kind not in READS | {"save"}:
            continue
        kind = "write" if event.kind == "save" else event.kind
        noted = history.Event(event.process, kind, event.facts["row"], version, event.began, event.ended)
        after_outage.append(noted)
        if kind == "write" or not any(began <= event.began <= end for began, end in stale):
            usual.append(noted)
    return [*history.check(usual).violations, *history.check(after_outage, _INFORMED_AFTER_OUTAGE).violations]


def check_sessions(events: Iterable[Event], truth: Truth) -> list[str]:
    """Sessions are accepted until they are ended, and nowhere two seconds later; each ends once, with its entry."""
    events = list(events)
    found = []
    revocations = defaultdict(list)
    for event in events:
        if event.kind == "revoke":
            revocations[event.facts["session"]].append(event)
    for event in events:
        if event.kind == "begin" and event.outcome == DONE:
            found += _check_session(event, revocations[event.facts["session"]], truth)
        elif event.kind == "validate" and event.outcome == DONE:
            found += _check_validation(event, revocations[event.facts["session"]])
    begun = Counter(event.outcome for event in events if event.kind == "begin")
    if not begun[DONE] <= len(truth.sessions) <= begun[DONE] + begun[UNKNOWN]:
        found.append(f"{len(truth.sessions)} sessions are stored, but {dict(begun)} were begun")
    return found


def _check_session(begin: Event, revocations: Sequence[Event], truth: Truth) -> list[str]:
    session, found = begin.facts["session"], []
    status = truth.sessions.get(session)
    ended = sum(revocation.facts.get("ended", 0) for revocation in revocations)
    may_have_ended = any(revocation.outcome == UNKNOWN for revocation in revocations)
    if status is None:
        return [f"a session that was acknowledged is missing: {begin}"]
    if ended > 1:
        found.append(f"a session was ended {ended} times: {begin}")
    if (status == "revoked") != bool(ended) and not (may_have_ended and status == "revoked"):
        found.append(f"a session that was ended {ended} times is {status}: {begin}")
    entries = truth.audits.get((_CREATED, session), 0), truth.audits.get((_REVOKED, session), 0)
    if entries != (1, status == "revoked"):
        found.append(f"a session that is {status} has {entries} audit entries of its beginning and end: {begin}")
    return found


def _check_validation(validation: Event, revocations: Sequence[Event]) -> list[str]:
    if not validation.facts["accepted"]:
        is_right = any(r.began < validation.ended and r.outcome in {DONE, UNKNOWN} for r in revocations)
        return [] if is_right else [f"a session that nobody had ended was refused: {validation}"]
    if not validation.facts["is_right"]:
        return [f"the token of one session gave another one: {validation}"]
    ended = min((r.ended for r in revocations if r.outcome == DONE), default=None)
    if ended is not None and validation.began > ended + _REVOKED_EVERYWHERE:
        return [f"a session was accepted {validation.began - ended:.3f} s after its end: {validation}"]
    return []


def check_files(events: Iterable[Event], truth: Truth) -> list[str]:
    """Files are there byte for byte until somebody deletes them, and nothing else is in the storage."""
    events = list(events)
    deletions = defaultdict(list)
    for event in events:
        if event.kind == "delete":
            deletions[event.facts["file"]].append(event)
    found = [f"after cleaning up: {orphan}" for orphan in truth.orphans]
    for event in events:
        if event.kind == "upload" and event.outcome == DONE:
            found += _check_upload(event, deletions[event.facts["file"]], truth)
        elif event.kind == "download" and event.outcome == DONE:
            is_deleted = any(deletion.began < event.ended for deletion in deletions[event.facts["file"]])
            if not event.facts.get("is_right", is_deleted):
                found.append(f"another file was read, or none: {event}")
    most = sum(event.kind == "upload" and event.outcome in {DONE, UNKNOWN} for event in events)
    if len(truth.files) > most:
        found.append(f"there are {len(truth.files)} files, and at most {most} were saved")
    return found


def _check_upload(upload: Event, deletions: Sequence[Event], truth: Truth) -> list[str]:
    stored, found = truth.files.get(upload.facts["file"]), []
    if stored is None and not deletions:
        found.append(f"a file that was acknowledged is missing: {upload}")
    if stored is not None and any(deletion.facts.get("was_there") for deletion in deletions):
        found.append(f"a file that was deleted is there: {upload}")
    if stored is not None and stored != upload.facts["sha256"]:
        found.append(f"what is stored is not what it should be, but {stored}: {upload}")
    if not upload.facts["is_right"]:
        found.append(f"a file was acknowledged as another one: {upload}")
    return found


def check_records(events: Iterable[Event], truth: Truth) -> list[str]:
    """Audit entries that belong to no transaction are there once, whatever PostgreSQL did meanwhile."""
    entries = [event.facts["entry"] for event in events if event.kind == "record"]
    wrong = Counter(count for entry in entries if (count := truth.audits.get((_COPIED, entry), 0)) != 1)
    return [f"{number} recorded audit entries are there {count} times" for count, number in wrong.items()]


def check_errors(events: Iterable[Event], faults: Sequence[Fault], plan: Plan) -> list[str]:
    """Every error has a class and a code, comes in time, and is the fault of a server that was broken then."""
    found = []
    for event in events:
        broken = {
            fault.server
            for fault in faults
            if fault.began <= event.ended and event.began <= fault.returned + plan.bound
        }
        limit = plan.limit(event.kind, broken)
        if event.seconds > limit:
            found.append(f"it took longer than {limit:.1f} s: {event}")
        if event.outcome == UNTYPED or (event.outcome != DONE and not event.code):
            found.append(f"no error of the data layer: {event}")
        elif event.outcome != DONE:
            server = next((server for name, server in _FAMILIES.items() if name in event.errors), None)
            if server not in broken or event.kind not in _NEEDS[server]:
                found.append(f"nothing that it needs was broken: {event}")
    return found


def has_recovered(events: Iterable[Event], fault: Fault, process: str) -> bool:
    """Whether something that needs the server was begun in this process after its return, and succeeded."""
    return any(
        event.process == process
        and event.kind in _NEEDS[fault.server]
        and event.began >= fault.returned
        and event.outcome == DONE
        for event in events
    )


def recovery(events: Iterable[Event], faults: Sequence[Fault], fault: Fault) -> tuple[float, list[str]]:
    """How many seconds after a server's return the last operation failed, and in which processes none succeeded."""
    end = _end_of_time_after(fault, faults)
    since = [event for event in events if event.kind in _NEEDS[fault.server] and fault.returned <= event.ended < end]
    last = max((event.ended - fault.returned for event in since if event.outcome != DONE), default=0.0)
    silent = sorted({event.process for event in events if not has_recovered(since, fault, event.process)})
    return last, [f"{process}: nothing succeeded after: {fault.name}" for process in silent]


def check_readiness(answers: Iterable[Answer], faults: Sequence[Fault], plan: Plan) -> list[str]:
    """Alive always; ready unless PostgreSQL is away, and again in time; without Redis ready."""
    found = []
    away = [(fault.began, fault.returned + plan.bound) for fault in faults if fault.server == POSTGRESQL]
    for answer in answers:
        if answer.path == "/livez" and answer.status != 200:
            found.append(f"the service did not say that it is alive: {answer}")
        elif answer.status not in {200, 503}:
            found.append(f"no answer of a probe: {answer}")
        elif answer.path == "/readyz" and answer.status == 503:
            is_away = any(began <= answer.ended and answer.began <= end for began, end in away)
            if not is_away:
                found.append(f"not ready, though PostgreSQL was there: {answer}")
    return found


def readiness_recovery(answers: Iterable[Answer], faults: Sequence[Fault], fault: Fault) -> float:
    """How many seconds after PostgreSQL's return the service said for the last time that it is not ready."""
    end = _end_of_time_after(fault, faults)
    unready = [a.ended for a in answers if a.path == "/readyz" and a.status == 503 and a.began < end]
    return max(0.0, max(unready, default=0.0) - fault.returned)


def _end_of_time_after(fault: Fault, faults: Sequence[Fault]) -> float:
    return min((other.began for other in faults if other.began > fault.returned), default=float("inf"))
