"""Who acts, and from where: per task, and never a reason to fail."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from data_layer import AuditAction, AuditLog, DataLayer, RequestContext, UserRole, current_context, request_context
from data_layer.api.app import create_app
from data_layer.entities.changes import LONGEST_VALUE, MASK, changed_values, changes_of
from tests.support import make_user


def test_nothing_is_known_outside() -> None:
    assert current_context() == RequestContext()


def test_inner_blocks_add_to_outer_ones_and_end() -> None:
    with request_context(ip_address="10.0.0.1", source="api") as outer:
        with request_context(actor_role=UserRole.ADMIN, ip_address=None) as inner:
            assert inner == RequestContext(actor_role=UserRole.ADMIN, source="api")
            assert current_context() == inner
        assert current_context() == outer
    assert current_context() == RequestContext()


async def test_concurrent_requests_do_not_see_each_other() -> None:
    async def request(number: int) -> None:
        with request_context(correlation_id=str(number)):
            for _ in range(5):
                await asyncio.sleep(0)
                assert current_context().correlation_id == str(number)
                inherited = await asyncio.create_task(asyncio.sleep(0, current_context()))
                assert inherited.correlation_id == str(number)

    await asyncio.gather(*map(request, range(20)))
    assert current_context() == RequestContext()


@given(address=st.text(), agent=st.text(), correlation=st.text())
def test_what_came_with_a_request_is_no_reason_to_fail(address: str, agent: str, correlation: str) -> None:
    with request_context(ip_address=address, user_agent=agent, correlation_id=correlation) as context:
        for text in (context.user_agent, context.correlation_id):
            assert text is not None
            assert "\0" not in text
            text.encode()
        entry = AuditLog.system_event(AuditAction.SYSTEM_ERROR, "Checked by the entity")
        entry.ip_address, entry.user_agent = context.ip_address, context.user_agent
        entry.correlation_id = context.correlation_id


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("testclient", None),
        ("10.0.0.1:80", None),
    ],
)
def test_addresses(given: str, kept: str | None) -> None:
    with request_context(ip_address=given) as context:
        assert context.ip_address == kept


async def test_an_entry_takes_over_what_it_does_not_say_itself(data: DataLayer) -> None:
    admin, user, session = make_user(), make_user(), uuid7()
    with request_context(
        actor_id=admin.id, actor_role=UserRole.ADMIN, ip_address="10.0.0.1", session_id=session, source="api"
    ):
        async with data.transaction() as tx:
            tx.add(admin)
            tx.add(user)
            own = AuditLog.system_event(AuditAction.SYSTEM_ERROR, "Nobody named")
            tx.add(own)
            other = AuditLog.user_action(AuditAction.USER_LOGIN, user.id, "Somebody named", ip_address="10.0.0.2")
            tx.audit.add(other)

    assert (own.user_id, own.ip_address, own.session_id, own.source) == (admin.id, "10.0.0.1", str(session), "api")
    assert own.context == {"actor_role": "admin"}
    assert (other.user_id, other.ip_address) == (user.id, "10.0.0.2")
    assert other.context == {"actor_role": "admin", "actor_id": str(admin.id)}


async def test_changes_are_told_without_secrets(data: DataLayer) -> None:
    user = make_user(first_name="Ada", password_hash="old-hash", preferences={"theme": "dark", "api_key": "sk-1"})
    created = changes_of(user)
    assert created.old_values == {}
    assert created.new_values["password_hash"] == MASK
    assert created.new_values["preferences"] == {"theme": "dark", "api_key": MASK}
    async with data.transaction() as tx:
        tx.add(user)
    async with data.transaction() as tx:
        stored = await tx.users.get(user.id)
        stored.first_name = "Grace"
        stored.avatar = "x" * (LONGEST_VALUE + 1)
        stored.reset_password_token_hash = "token-hash"
        changes = changes_of(stored)
    assert changes.old_values == {"first_name": "Ada"}
    assert set(changes.new_values) == {"first_name", "avatar", "reset_password_token_hash"}
    assert changes.new_values["reset_password_token_hash"] == MASK
    assert len(changes.new_values["avatar"]) == LONGEST_VALUE + 1


def test_changes_between_two_pictures() -> None:
    old = {"name": "A", "token": "1", "same": 1, "gone": None}
    new = {"name": "B", "token": "2", "same": 1, "gone": None}
    assert changed_values(old, new) == ({"name": "A", "token": MASK}, {"name": "B", "token": MASK})


async def test_the_service_knows_where_a_request_comes_from(data: DataLayer) -> None:
    app = create_app(data)
    seen: list[RequestContext] = []

    @app.get("/seen")
    async def remember() -> None:
        seen.append(current_context())

    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        await client.get("/seen", headers={"User-Agent": "Agent/1", "X-Request-ID": "request-7"})

    [context] = seen
    assert (context.ip_address, context.user_agent, context.source) == ("192.0.2.7", "Agent/1", "api")
    assert context.correlation_id == "request-7"
