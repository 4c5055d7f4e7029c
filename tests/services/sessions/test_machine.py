"""Sessions in several processes, with whatever may happen to them, to Redis and to the journal, in any order.

The model knows when each session may be accepted. What every process answers must be in line with it:

- a session that is in force is accepted, always and everywhere: nobody is logged out by mistake;
- one that has ended, been revoked, or whose user was suspended, is refused by everybody from two seconds later on;
- an answer never shows a role that the user lost more than two seconds ago.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from data_layer import Settings
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import InvalidSessionError, NotFoundError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.sessions import ActiveSession
from data_layer.testing.redis_server import RedisServer
from tests.services.sessions.support import Process, World, movable_time, start_process

BOUND = 2.0
LIFE, MAXIMUM, LIMIT = 60.0, 200.0, 4
STEP = LIFE / 60
FLUSH = 10.0
# Numbers are rounded.
SLACK = 0.01
PROCESSES = (0, 1, 2)
SOME = st.sets(st.sampled_from(PROCESSES), min_size=1)
BY_SERVICE = ("revoke", "all", "all but this")
BY_HAND = (
    "UPDATE sessions SET status = 'revoked'",
    "UPDATE sessions SET status = 'invalid'",
    "UPDATE sessions SET expires_at = now()",
    "DELETE FROM sessions",
)


@dataclass
class Known:
    """What the model knows of a session; in force until ``surely``, and not after ``perhaps``."""

    token: str
    session_id: UUID
    user: int
    began: float
    surely: float
    perhaps: float
    used: float
    ended: float | None = None

    def use(self, now: float, life: float = LIFE, step: float = STEP) -> None:
        until = min(now + life, self.began + MAXIMUM)
        self.perhaps = max(self.perhaps, until)
        self.surely = max(self.surely, until - step)
        self.used = now


@dataclass
class Account:
    """A user: since when suspended, if so; and roles with the time at which they ended."""

    id: UUID
    role: UserRole = UserRole.USER
    suspended: float | None = None
    former: list[tuple[UserRole, float]] = field(default_factory=list)
    was_suspended_until: float = 0.0


@dataclass
class Stage:
    """What all runs of the machine share."""

    runner: asyncio.Runner
    world: World
    redis: RedisServer


class SessionMachine(RuleBasedStateMachine):
    stage: Stage
    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.known: list[Known] = []
        self.accounts: list[Account] = []
        self.kept: dict[Any, Any] = {}
        self.redis_runs = True
        # Asked about once, and again after something that could bring an ended session back.
        self.found_over: set[UUID] = set()
        self.flushed = self.now

    @property
    def world(self) -> World:
        return self.stage.world

    @property
    def now(self) -> float:
        return self.stage.world.time

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.stage.runner.run(work)

    @initialize(target=sessions)
    def begin(self) -> Any:
        async def open_all() -> None:
            self.accounts = [Account(await self.world.new_user()) for _ in range(2)]
            self.processes = [await start_process(self.world, self.stage.redis.url) for _ in PROCESSES]
            for process in self.processes[:2]:
                await process.catch_up()

        self.run(open_all())
        return multiple(*(self._create(process, user) for process in PROCESSES for user in (0, 1)))

    def teardown(self) -> None:
        async def close_all() -> None:
            for process in self.processes:
                await process.stop()
            await self.world.sql("DELETE FROM sessions")

        if not self.redis_runs:
            self.stage.redis.start()
        self.run(close_all())

    # What users do

    @rule(target=sessions, process=st.sampled_from(PROCESSES), user=st.sampled_from((0, 1)))
    def create(self, process: int, user: int) -> Any:
        if self.accounts[user].suspended is not None:
            return multiple()
        return multiple(*(self._create(process, user) for _ in range(2)))

    def _create(self, process: int, user: int) -> Known:
        new = self.run(self.processes[process].sessions.create(self.accounts[user].id))
        known = Known(
            new.token.get_secret_value(), new.session.id, user, self.now, self.now + LIFE, self.now + LIFE, self.now
        )
        self._end_surplus(user)
        self.known.append(known)
        return known

    def _end_surplus(self, user: int) -> None:
        """One too many ends the one that was longest without use, as far as the database knows: ask it which."""
        living = [known for known in self.known if known.user == user and known.ended is None]

        async def ids() -> set[UUID]:
            async with self.world.data.transaction() as tx:
                return {session.id for session in await tx.sessions.live(self.accounts[user].id)}

        alive = self.run(ids())
        assert len(alive) <= LIMIT
        gone = [known for known in living if known.session_id not in alive and self.now < known.surely - SLACK]
        assert len(gone) <= max(0, len(living) + 1 - LIMIT), "no more than needed"
        for known in gone:
            known.ended = self.now

    # Three rules, because Hypothesis chooses among rules, and this is what users do most.

    @rule(known=sessions, processes=SOME)
    def use(self, known: Known, processes: set[int]) -> None:
        self._use(known, processes, by_id=False)

    @rule(known=sessions, processes=SOME)
    def use_by_access_token(self, known: Known, processes: set[int]) -> None:
        self._use(known, processes, by_id=True)

    @rule(known=sessions, processes=SOME, seconds=st.sampled_from((0.4, 2.5, 9.0, 45.0, 57.0)), hear=st.booleans())
    def use_after_a_while(self, known: Known, processes: set[int], seconds: float, hear: bool) -> None:  # noqa: FBT001  (Hypothesis)
        self.pass_time(seconds)
        self._use(known, processes, by_id=False, hear=hear)

    def _use(self, known: Known, processes: set[int], *, by_id: bool, hear: bool = True) -> None:
        """Who hears of changes in time, as is usual, answers the second time from a copy."""
        for process in processes:
            if hear:
                self.run(self.processes[process].catch_up())
            for _ in range(2):
                self._validate(known, process, by_id=by_id)

    def _validate(self, known: Known, process: int, *, by_id: bool) -> None:
        service = self.processes[process].sessions
        asking = service.validate_id(known.session_id) if by_id else service.validate(known.token)
        try:
            session: ActiveSession = self.run(asking)
        except InvalidSessionError:
            assert not self._is_in_force(known), "somebody was logged out by mistake"
            return
        assert not self._is_surely_over(known), "an ended session was accepted"
        self._check_role(session, known)
        if self._is_in_force(known):
            known.use(self.now)
        else:
            known.perhaps = max(known.perhaps, min(self.now + LIFE, known.began + MAXIMUM))

    def _check_role(self, session: ActiveSession, known: Known) -> None:
        account = self.accounts[known.user]
        assert session.user_id == account.id
        roles = {account.role} | {role for role, until in account.former if self.now < until + BOUND}
        assert session.role in roles

    def _is_in_force(self, known: Known) -> bool:
        is_open = known.ended is None and self.accounts[known.user].suspended is None
        return is_open and self.now < known.surely - SLACK

    def _is_surely_over(self, known: Known) -> bool:
        suspended = self.accounts[known.user].suspended
        ends = [known.perhaps + SLACK, known.ended, suspended]
        return any(end is not None and self.now >= end + BOUND for end in ends)

    @rule(
        known=sessions, process=st.sampled_from(PROCESSES), seconds=st.sampled_from((None, None, 30.0, 100.0, 1000.0))
    )
    def touch_or_extend(self, known: Known, process: int, seconds: float | None) -> None:
        service = self.processes[process].sessions
        by = timedelta(seconds=seconds or 1)
        try:
            self.run(service.touch(known.session_id) if seconds is None else service.extend(known.session_id, by))
        except InvalidSessionError:
            assert known.ended is not None or self.now >= known.surely - SLACK
        else:
            assert known.ended is None
            assert self.now < known.perhaps + SLACK
            known.use(self.now, life=seconds or LIFE, step=0.0)

    # How sessions end

    @rule(
        known=sessions,
        how=st.sampled_from((*BY_SERVICE, *BY_HAND)),
        process=st.sampled_from(PROCESSES),
        seconds=st.sampled_from((0.0, 1.0, 2.0, 2.0, 2.5)),
    )
    def end(self, known: Known, how: str, process: int, seconds: float) -> None:
        service, user = self.processes[process].sessions, self.accounts[known.user].id
        ended = [known]
        if how == "revoke":
            with suppress(NotFoundError):  # It was removed by hand.
                self.run(service.revoke(SYSTEM, known.session_id))
        elif how in BY_HAND:
            self.run(self.world.sql(f"{how} WHERE id = :id", id=known.session_id))
        else:
            kept = known if how == "all but this" else None
            self.run(service.revoke_all(SYSTEM, user, keep=kept.session_id if kept else None))
            ended = [other for other in self.known if other.user == known.user and other is not kept]
        for other in ended:
            if other.ended is None:
                other.ended = self.now
                if how in BY_SERVICE:
                    self._refused_at_once(other, process)
        self.pass_time(seconds)

    def _refused_at_once(self, known: Known, process: int) -> None:
        """The process that ended it knows better than any copy."""
        with pytest.raises(InvalidSessionError):
            self.run(self.processes[process].sessions.validate(known.token))

    @rule(user=st.sampled_from((0, 1)))
    def suspend_or_not(self, user: int) -> None:
        account = self.accounts[user]
        if account.suspended is None:
            self.run(self.world.set_status(account.id, UserStatus.SUSPENDED))
            account.suspended = self.now
        else:
            self.run(self.world.set_status(account.id, UserStatus.ACTIVE))
            account.suspended = None

    @rule(user=st.sampled_from((0, 1)), role=st.sampled_from(UserRole))
    def change_role(self, user: int, role: UserRole) -> None:
        account = self.accounts[user]
        self.run(self.world.sql("UPDATE users SET role = :role WHERE id = :id", role=role.value, id=account.id))
        account.former.append((account.role, self.now))
        account.role = role

    # What happens to processes, Redis and time

    @rule(seconds=st.sampled_from((0.4, 0.4, 1.0, 1.9, 2.5, 25.0, 61.0)))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.run(self.world.pass_time(min(end - self.now, self.flushed + FLUSH - self.now)))
            if self.now >= self.flushed + FLUSH:
                for process in self.processes:
                    self.run(process.sessions.activity.flush())
                self.flushed = self.now

    @rule(
        process=st.sampled_from(PROCESSES), what=st.sampled_from(("cut off or not", "kill", "stop")), hear=st.booleans()
    )
    def happens_to_a_process(self, process: int, what: str, hear: bool) -> None:  # noqa: FBT001  (Hypothesis)
        self.found_over.clear()
        target = self.processes[process]
        if what == "cut off or not" and not target.is_cut_off:
            self.run(target.cut_off())
            return
        if what == "cut off or not":
            target.is_cut_off = False
        else:
            self.run(target.kill() if what == "kill" else target.stop())
            self.processes[process] = self.run(start_process(self.world, self.stage.redis.url))
        if what == "kill":
            self._lose_activity()
        if hear:
            self.run(self.processes[process].catch_up())

    def _lose_activity(self) -> None:
        """What was used in the last seconds may end earlier than the model thought, by so much."""
        for known in self.known:
            if known.used > self.flushed - SLACK:
                known.surely = min(known.surely, self._stored_expiry(known))

    def _stored_expiry(self, known: Known) -> float:
        async def left() -> float:
            async with self.world.data.transaction() as tx:
                session = await tx.sessions.find_one(id=known.session_id)
                return (session.expires_at - session.created_at).total_seconds() if session else 0.0

        return known.began + float(self.run(left()))

    @rule(what=st.sampled_from(("empty", "stop or start", "save", "bring back", "bring back")))
    def happens_to_redis(self, what: str) -> None:
        self.found_over.clear()
        if what == "stop or start":
            (self.stage.redis.kill if self.redis_runs else self.stage.redis.start)()
            self.redis_runs = not self.redis_runs
        elif self.redis_runs and what == "empty":
            self._redis.flushall()
        elif self.redis_runs and what == "save":
            self.kept |= {key: self._redis.get(key) for key in self._redis.keys("*")}
        elif self.redis_runs:
            # As a replica that lagged behind and took over.
            for key, value in self.kept.items():
                self._redis.set(key, value)
            for process in self.processes:
                self.run(process.catch_up())

    @property
    def _redis(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.stage.redis.socket_path))

    # What must hold at any time

    @invariant()
    def every_process_answers_like_the_model(self) -> None:
        for known in self.known:
            if self._is_surely_over(known) and known.session_id not in self.found_over:
                self.found_over.add(known.session_id)
                for process, by_id in itertools.product(PROCESSES, (False, True)):
                    self._validate(known, process, by_id=by_id)


@pytest.fixture(scope="module")
def stage(migrated: Settings) -> Iterator[Stage]:
    settings = migrated.replaced(
        session_ttl=LIFE, session_max_age=MAXIMUM, session_limit=LIMIT, redis_connect_timeout=200
    )
    with asyncio.Runner() as runner, RedisServer(unix_socket=True) as server:
        context = movable_time(settings)
        world = runner.run(context.__aenter__())
        yield Stage(runner, world, server)
        runner.run(context.__aexit__(None, None, None))


@pytest.mark.slow
def test_any_story(stage: Stage) -> None:
    class Machine(SessionMachine):
        pass

    Machine.stage = stage
    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),
        ),
    )


def test_a_process_that_hears_nothing_asks_again_in_time(stage: Stage) -> None:
    """The shortest story about the bound: no notification, no reading of the journal, only time."""
    world = stage.world

    async def act() -> None:
        process = await start_process(world, stage.redis.url)
        new = await process.sessions.create(await world.new_user())
        token = new.token.get_secret_value()
        await process.catch_up()
        for _ in range(2):
            await process.sessions.validate(token)
        await process.cut_off()
        await world.sql("UPDATE sessions SET status = 'revoked' WHERE id = :id", id=new.session.id)
        await world.pass_time(1.4)
        assert (await process.sessions.validate(token)).id == new.session.id, "answered from the copy"
        await world.pass_time(0.2)
        with pytest.raises(InvalidSessionError):
            await process.sessions.validate(token)
        await process.stop()

    stage.runner.run(act())


def test_use_shortly_before_the_end_counts_everywhere_at_once(stage: Stage) -> None:
    """Activity is written in batches, and yet no other process may find the session expired meanwhile."""
    world = stage.world

    async def act() -> None:
        one, other = [await start_process(world, stage.redis.url) for _ in range(2)]
        new = await one.sessions.create(await world.new_user())
        token = new.token.get_secret_value()
        await one.catch_up()
        await one.sessions.validate(token)
        await world.pass_time(LIFE - 3)
        await one.catch_up()
        await one.sessions.validate(token)
        await one.kill()
        await world.pass_time(6)
        assert (await other.sessions.validate(token)).id == new.session.id
        await world.pass_time(LIFE + 1)
        with pytest.raises(InvalidSessionError):
            await other.sessions.validate(token)
        await other.stop()

    stage.runner.run(act())
