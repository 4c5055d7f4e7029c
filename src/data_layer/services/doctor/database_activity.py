"""What goes on in PostgreSQL that will hurt sooner or later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.repositories.diagnostics.activity import (
    count_prepared_transactions,
    count_waiting,
    read_ages,
    read_long_transactions,
    read_slots,
)
from data_layer.services.doctor.checks import Verdict, failed, ok, warning
from data_layer.services.doctor.figures import readable_size

if TYPE_CHECKING:
    from data_layer.services.doctor.database_patient import DatabasePatient

# PostgreSQL stops taking writes three million before 2**31 (manual, 24.1.5, "Preventing Transaction ID Wraparound
# Failures"); autovacuum begins by itself at 200 million, and at 1.6 thousand million leaves out all niceties.
_OLD = 1_000_000_000
_TOO_OLD = 1_600_000_000
_LONG_SECONDS = 300
_RETAINED_TOO_MUCH = 2**30


async def judge_ages(patient: DatabasePatient) -> list[Verdict]:
    """Whether VACUUM keeps up, without which the server stops taking writes."""
    found = []
    if not patient.facts.autovacuum:
        found.append(warning("autovacuum is off: tables grow, and at last writes stop", "set autovacuum = on"))
    transactions, groups = await read_ages(patient.database)
    for what, age in (("transaction", transactions), ("multixact", groups)):
        if age > _OLD:
            found.append(
                (failed if age > _TOO_OLD else warning)(
                    f"the oldest {what} id is {age:,} old, and at 2,100,000,000 writes stop",
                    "end old transactions and remove old replication slots, then VACUUM (FREEZE) the oldest tables",
                )
            )
    return found or [ok(f"the oldest transaction id is {transactions:,} old, of 2,100,000,000 at most")]


async def judge_transactions(patient: DatabasePatient) -> list[Verdict]:
    """Whether somebody forgot to end a transaction, which keeps locks and dead rows."""
    found = [
        warning(
            f"the session {one.pid} ({one.application or 'without a name'}, {one.state}) has a transaction open for "
            f"{one.seconds:,} s",
            f"find out whose it is; SELECT pg_terminate_backend({one.pid}) ends it",
        )
        for one in await read_long_transactions(patient.database, _LONG_SECONDS)
    ]
    prepared = await count_prepared_transactions(patient.database, _LONG_SECONDS)
    if prepared:
        found.append(
            warning(
                f"{prepared} prepared transactions wait for longer than {_LONG_SECONDS} s and keep their locks",
                "see pg_prepared_xacts, and COMMIT PREPARED or ROLLBACK PREPARED each",
            )
        )
    return found or [ok(f"none that this user can see is open for longer than {_LONG_SECONDS} s")]


async def judge_locks(patient: DatabasePatient) -> Verdict:
    """Whether sessions wait for each other."""
    number, seconds = await count_waiting(patient.database)
    if number:
        return warning(
            f"{number} sessions wait for locks, the longest for {seconds:,} s",
            "SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity WHERE wait_event_type = 'Lock' tells why",
        )
    return ok("nobody waits for a lock for longer than 10 s")


async def judge_slots(patient: DatabasePatient) -> list[Verdict]:
    """Whether a replica that went away fills the disk of the server."""
    slots, found = await read_slots(patient.database), []
    for slot in slots:
        if slot.status == "lost":
            found.append(
                warning(
                    f"the replication slot {slot.name} is lost: its replica cannot follow any more",
                    "build the replica anew, and drop the slot",
                )
            )
        elif not slot.is_active and (slot.retained or 0) > _RETAINED_TOO_MUCH:
            found.append(
                warning(
                    f"nobody uses the replication slot {slot.name}, and the server keeps "
                    f"{readable_size(slot.retained or 0)} of its log for it, until its disk is full",
                    f"bring its replica back, or SELECT pg_drop_replication_slot('{slot.name}')",
                )
            )
    return found or [ok(f"none of {len(slots)} holds much of the log" if slots else "there are none")]


async def judge_size(patient: DatabasePatient) -> Verdict:
    """How large the database is; SQL cannot tell how full the disk is."""
    size = readable_size(patient.facts.size)
    return ok(f"the database has {size}; how much is free on the server's disk SQL cannot tell, so watch it there")
