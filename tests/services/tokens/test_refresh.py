"""Refresh tokens: each is exchanged once, and a second time ends the session."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.errors import InvalidSessionError, InvalidTokenError, ReusedTokenError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.sessions import NewSession, TokenPair
from data_layer.services.tokens import GRACE_SECONDS, TokenService
from tests.services.sessions.support import World, movable_time, start_process
from tests.services.sessions.test_sessions import new_user


def refresh_token_of(pair: TokenPair) -> str:
    return pair.refresh_token.get_secret_value()


async def test_it_keeps_its_session_alive(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    pair = await data.tokens.issue(begun.session)
    session = await data.sessions.validate_id(begun.session.id)
    assert session.expires_at == pair.refresh_expires_at
    assert (session.expires_at - session.created_at).total_seconds() == pytest.approx(30 * 86_400, abs=5)


async def test_each_exchange_keeps_its_session_alive(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    pair = await data.tokens.issue(begun.session)
    earlier = text("UPDATE sessions SET expires_at = expires_at - interval '20 days' RETURNING expires_at")
    async with data.transaction() as tx:
        ends = (await tx.execute(earlier)).scalar_one()
    pair = await data.tokens.refresh(refresh_token_of(pair))
    async with data.transaction() as tx:
        stored = await tx.sessions.get(begun.session.id)
    assert stored.expires_at > ends
    assert (stored.expires_at - pair.refresh_expires_at).total_seconds() == pytest.approx(0, abs=5)


async def test_an_ended_session_gets_none(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    pair = await data.tokens.issue(begun.session)
    await data.sessions.revoke(SYSTEM, begun.session.id)
    with pytest.raises(InvalidSessionError):
        await data.tokens.issue(begun.session)
    with pytest.raises(InvalidTokenError) as caught:
        await data.tokens.refresh(refresh_token_of(pair))
    assert not isinstance(caught.value, ReusedTokenError)


async def test_one_token_of_a_session_leads_on(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    first, second = [await data.tokens.issue(begun.session) for _ in range(2)]
    third = await data.tokens.refresh(refresh_token_of(second))
    with pytest.raises(ReusedTokenError):
        await data.tokens.refresh(refresh_token_of(first))
    with pytest.raises(InvalidTokenError):
        await data.tokens.refresh(refresh_token_of(third))


@pytest.mark.parametrize("token", ["", "x" * 43, "\ud800" * 43, "\0" * 43, "x" * 5000])
async def test_nonsense(data: DataLayer, token: str) -> None:
    with pytest.raises(InvalidTokenError):
        await data.tokens.refresh(token)


async def test_twenty_tabs_at_once_get_the_same(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    pair = await data.tokens.issue(begun.session)
    pairs = await asyncio.gather(*(data.tokens.refresh(refresh_token_of(pair)) for _ in range(20)))
    assert len({refresh_token_of(got) for got in pairs}) == 1
    async with data.transaction() as tx:
        assert await tx.refresh_tokens.count() == 2
    for got in pairs[:3]:
        assert await data.tokens.verify(got.access_token.get_secret_value())
    assert await data.tokens.refresh(refresh_token_of(pairs[0]))


async def test_a_theft_is_noticed_and_written_down(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    stolen = refresh_token_of(await data.tokens.issue(begun.session))
    thief = await data.tokens.refresh(stolen)
    await data.tokens.refresh(refresh_token_of(thief))
    with pytest.raises(ReusedTokenError):
        await data.tokens.refresh(stolen)
    for asking in (
        data.tokens.verify(thief.access_token.get_secret_value()),
        data.sessions.validate(begun.token.get_secret_value()),
        data.tokens.refresh(refresh_token_of(thief)),
    ):
        with pytest.raises((InvalidTokenError, InvalidSessionError)):
            await asking
    async with data.transaction() as tx:
        [entry] = await tx.audit.list(action="security_suspicious_activity")
        assert (entry.user_id, entry.resource_id) == (begun.session.user_id, str(begun.session.id))
        assert (entry.level, entry.is_success) == ("critical", False)
        assert (entry.resource_type, entry.new_values) == ("session", {"reason": "refresh_token_reused"})
        assert (await tx.sessions.get(begun.session.id)).revoked_reason == "refresh_token_reused"


@pytest.mark.parametrize(("seconds", "is_theft"), [(GRACE_SECONDS - 5, False), (GRACE_SECONDS + 1, True)])
async def test_the_grace_ends(data: DataLayer, seconds: float, *, is_theft: bool) -> None:
    begun = await data.sessions.create(await new_user(data))
    first = refresh_token_of(await data.tokens.issue(begun.session))
    successor = refresh_token_of(await data.tokens.refresh(first))
    async with data.transaction() as tx:
        age = text("UPDATE refresh_tokens SET used_at = used_at - make_interval(secs => :seconds)")
        await tx.execute(age.bindparams(seconds=seconds))
    if is_theft:
        with pytest.raises(ReusedTokenError):
            await data.tokens.refresh(first)
    else:
        assert refresh_token_of(await data.tokens.refresh(first)) == successor


class RefreshMachine(RuleBasedStateMachine):
    """A family of tokens: only the last one leads on; the one before it does so again for a moment."""

    runner: asyncio.Runner
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.chain: list[str] = []
        self.used: list[float] = []
        self.is_alive = True

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def log_in(self) -> None:
        async def begin() -> None:
            self.process = await start_process(self.world)
            self.tokens = TokenService(self.process.transactions, self.process.sessions, self.world.settings.security)
            self.begun: NewSession = await self.process.sessions.create(await self.world.new_user())
            self.last = await self.tokens.issue(self.begun.session)

        self.run(begin())
        self.chain.append(refresh_token_of(self.last))

    def teardown(self) -> None:
        self.run(self.process.stop())

    def _exchange(self, token: str) -> TokenPair | str:
        try:
            pair: TokenPair = self.run(self.tokens.refresh(token))
        except InvalidTokenError as error:
            return error.code
        return pair

    @rule()
    def use_the_last_one(self) -> None:
        got = self._exchange(self.chain[-1])
        if not self.is_alive:
            assert got == "token_invalid"
            return
        assert not isinstance(got, str)
        self.used.append(self.world.time)
        self.chain.append(refresh_token_of(got))
        self.last = got
        assert len(set(self.chain)) == len(self.chain)

    @rule(back=st.integers(1, 4))
    def use_an_old_one(self, back: int) -> None:
        if back >= len(self.chain):
            return
        got = self._exchange(self.chain[-1 - back])
        if not self.is_alive:
            assert got == "token_invalid"
        elif back == 1 and self.world.time - self.used[-1] <= GRACE_SECONDS - 1:
            assert not isinstance(got, str)
            assert refresh_token_of(got) == self.chain[-1], "the same as before"
        elif back > 1 or self.world.time - self.used[-1] > GRACE_SECONDS + 1:
            assert got == "token_reused"
            self.is_alive = False

    @rule(seconds=st.sampled_from((0.0, 3.0, 8.0, 12.0, 3600.0)))
    def pass_time(self, seconds: float) -> None:
        self.run(self.world.pass_time(seconds))

    @rule(unlucky=st.integers(0, 5))
    def end_the_session(self, unlucky: int) -> None:
        if unlucky == 0:
            self.run(self.process.sessions.revoke(SYSTEM, self.begun.session.id))
            self.is_alive = False

    @invariant()
    def the_family_lives_or_dies_as_one(self) -> None:
        if not self.chain:
            return
        try:
            self.run(self.tokens.verify(self.last.access_token.get_secret_value()))
        except InvalidTokenError:
            assert not self.is_alive
        else:
            assert self.is_alive


@pytest.fixture(scope="module")
def moving(migrated: Settings) -> Iterator[tuple[asyncio.Runner, World]]:
    with asyncio.Runner() as runner:
        context = movable_time(migrated)
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


def test_any_story(moving: tuple[asyncio.Runner, World]) -> None:
    class Machine(RefreshMachine):
        pass

    Machine.runner, Machine.world = moving
    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        ),
    )
