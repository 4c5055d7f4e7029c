"""Which copies may be believed: proved against a model of a database whose transactions commit in any order.

The model keeps, for each session, the transactions that changed it. A copy is right when it holds every change that was
committed more than the lease ago. ``Watermark`` must never vouch for another one, whatever it learned and when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from data_layer.repositories.session_changes import ChangeBatch
from data_layer.services.sessions.watermark import LEASE_SECONDS, Watermark

SESSIONS = [UUID(int=number) for number in range(3)]


@dataclass(frozen=True)
class Snapshot:
    """What a statement sees: all transactions before ``next_one`` but those that are still open."""

    next_one: int
    open_ones: frozenset[int]

    @property
    def oldest(self) -> int:
        return min(self.open_ones, default=self.next_one)

    def sees(self, transaction: int) -> bool:
        return transaction < self.next_one and transaction not in self.open_ones

    def __str__(self) -> str:
        return f"{self.oldest}:{self.next_one}:{','.join(map(str, sorted(self.open_ones)))}"

    @classmethod
    def read(cls, text: str) -> Snapshot:
        _, next_one, listed = text.split(":")
        return cls(int(next_one), frozenset(map(int, listed.split(","))) if listed else frozenset())


class ModelDatabase:
    """Transactions that each change one session, and end when they like."""

    def __init__(self) -> None:
        self.server = "first"
        self.next_one = 100
        self.open_ones: dict[int, UUID] = {}
        self.committed: dict[int, tuple[UUID, float]] = {}

    def snapshot(self) -> Snapshot:
        return Snapshot(self.next_one, frozenset(self.open_ones))

    def begin(self, session: UUID) -> None:
        self.open_ones[self.next_one] = session
        self.next_one += 1

    def commit(self, which: int, now: float) -> None:
        if self.open_ones:
            transaction = sorted(self.open_ones)[which % len(self.open_ones)]
            self.committed[transaction] = (self.open_ones.pop(transaction), now)

    def read(self, known: str | None, most: int = 100) -> ChangeBatch:
        now = self.snapshot()
        before = Snapshot.read(known) if known else None
        changes: dict[UUID, int] = {}
        for transaction in sorted(self.committed):
            if before and not before.sees(transaction):
                changes[self.committed[transaction][0]] = transaction
        batch = changes if len(changes) <= most else None
        return ChangeBatch(self.server, 0.0, str(now), now.oldest, now.next_one, batch)


@dataclass(frozen=True)
class Copy:
    """A session as it was read in a snapshot."""

    session: UUID
    snapshot: Snapshot
    server: str

    def lacks(self, database: ModelDatabase, before: float) -> bool:
        """Whether a change that was committed before a time is not in it."""
        changes = database.committed.items()
        return any(
            session == self.session and committed_at < before and not self.snapshot.sees(transaction)
            for transaction, (session, committed_at) in changes
        )


Step = tuple[str, int, float]
steps = st.tuples(
    st.sampled_from(("begin", "begin", "commit", "commit", "copy", "copy", "read", "read", "overflow", "restart")),
    st.integers(0, 5),
    st.sampled_from((0.0, 0.1, 0.7, 2.0)),
)


@given(st.lists(steps, max_size=40))
def test_it_never_vouches_for_a_copy_that_lacks_an_old_change(story: list[Step]) -> None:
    database, watermark, copies, now = ModelDatabase(), Watermark(), [], 1000.0
    for what, number, seconds in story:
        now += seconds
        if what == "begin":
            database.begin(SESSIONS[number % 3])
        elif what == "commit":
            database.commit(number, now)
        elif what == "copy":
            copies.append(Copy(SESSIONS[number % 3], database.snapshot(), database.server))
        elif what == "restart":
            watermark = Watermark()
        else:
            catch_up(watermark, database, now, most=100 if what == "read" else 0)
        for copy in copies:
            believed = now < watermark.fresh_until and watermark.vouches_for(
                copy.session, copy.snapshot.oldest, copy.server
            )
            assert not (believed and copy.lacks(database, now - LEASE_SECONDS))


def catch_up(watermark: Watermark, database: ModelDatabase, now: float, most: int = 100) -> Mapping[UUID, int] | None:
    """Read as the stream does; two readings are enough, whatever there is to be read."""
    for _ in range(2):
        known = watermark.known_at(now)
        changes = watermark.take(database.read(known, most), asked_at=now, known=known)
        if watermark.fresh_until > now:
            return changes
    raise AssertionError("it reads without end")


def test_too_many_changes_while_an_older_transaction_is_open_are_read_once() -> None:
    database, watermark = ModelDatabase(), Watermark()
    catch_up(watermark, database, 0.0)
    old = database.snapshot()
    database.begin(SESSIONS[0])
    for _ in range(3):
        database.begin(SESSIONS[1])
        database.commit(1, 0.5)
    assert catch_up(watermark, database, 1.0, most=0) is None, "everything is dropped"
    assert not watermark.vouches_for(SESSIONS[2], old.oldest, "first")
    assert catch_up(watermark, database, 2.0, most=0) == {}, "what was read is not read again"
    database.commit(0, 2.5)
    assert catch_up(watermark, database, 3.0, most=1) == {SESSIONS[0]: 100}
    assert watermark.vouches_for(SESSIONS[2], database.snapshot().oldest, "first")


def test_a_copy_without_changes_is_believed_after_two_readings() -> None:
    database, watermark = ModelDatabase(), Watermark()
    catch_up(watermark, database, 0.0)
    copy = database.snapshot()
    assert watermark.vouches_for(SESSIONS[0], copy.oldest, "first")
    assert 0.0 < watermark.fresh_until <= LEASE_SECONDS


def test_a_transaction_that_stays_open_for_long_is_not_skipped() -> None:
    database, watermark = ModelDatabase(), Watermark()
    database.begin(SESSIONS[0])
    catch_up(watermark, database, 0.0)
    for number in range(3):
        database.begin(SESSIONS[1])
        database.commit(1, 1.0 + number)
        catch_up(watermark, database, 1.0 + number)
    database.commit(0, 5.0)
    assert catch_up(watermark, database, 5.5) == {SESSIONS[0]: 100}


def test_another_server_begins_anew() -> None:
    database, watermark = ModelDatabase(), Watermark()
    catch_up(watermark, database, 0.0)
    copy = database.snapshot()
    database.server, database.next_one = "second", 50
    known = watermark.known_at(1.0)
    assert watermark.take(database.read(known), asked_at=1.0, known=known) is None, "everything is dropped"
    assert watermark.fresh_until < 1.0
    catch_up(watermark, database, 1.0)
    assert not watermark.vouches_for(SESSIONS[0], copy.oldest, "first")
    assert watermark.vouches_for(SESSIONS[0], database.snapshot().oldest, "second")


def test_a_long_gap_begins_anew() -> None:
    database, watermark = ModelDatabase(), Watermark()
    catch_up(watermark, database, 0.0)
    assert watermark.known_at(30.0) is not None
    assert watermark.known_at(61.0) is None


def test_forgetting_old_changes_makes_old_copies_unbelievable() -> None:
    database, watermark = ModelDatabase(), Watermark()
    catch_up(watermark, database, 0.0)
    old = database.snapshot()
    many = {UUID(int=60_000 - number): 100 + number for number in range(60_000)}
    known = watermark.known_at(1.0)
    reading = ChangeBatch("first", 0.0, "70000:70000:", 70_000, 70_000, many)
    assert watermark.take(reading, asked_at=1.0, known=known) is not None
    assert not watermark.vouches_for(UUID(int=59_999), old.oldest, "first"), "its change was forgotten"
    assert not watermark.vouches_for(UUID(int=99_999), old.oldest, "first"), "nor is any other that old"
    assert not watermark.vouches_for(UUID(int=35_001), 25_099, "first"), "the copy may lack the last one forgotten"
    assert watermark.vouches_for(UUID(int=99_999), 25_100, "first"), "later changes are still known"
    assert not watermark.vouches_for(UUID(int=1), 60_000, "first"), "and count"
    assert watermark.vouches_for(UUID(int=99_999), 70_000, "first")


def test_what_this_process_ended_is_never_believed_again() -> None:
    database, watermark = ModelDatabase(), Watermark()
    catch_up(watermark, database, 0.0)
    watermark.abandon([SESSIONS[0]])
    assert not watermark.vouches_for(SESSIONS[0], 10**9, "first")
