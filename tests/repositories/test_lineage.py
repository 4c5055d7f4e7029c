"""Hashes by which codes are found: kept by the database for every writer."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities.columns import WHITE_SPACE
from tests.support import make_code, make_project, make_user

HASHES = "SELECT code_hash, trimmed_hash FROM generated_codes WHERE id = :id"
SET_CODE = "UPDATE generated_codes SET code = :code WHERE id = :id"

codes = st.text(st.sampled_from([*WHITE_SPACE, "a", "ä", "\u200b", "b", "😀"]), max_size=6)


def hashes(code: str) -> tuple[bytes | None, bytes | None]:
    trimmed = code.strip(WHITE_SPACE)
    if not trimmed:
        return None, None
    return hashlib.sha256(code.encode()).digest(), hashlib.sha256(trimmed.encode()).digest()


def test_white_space_is_what_python_and_javascript_strip() -> None:
    stripped = {chr(number) for number in range(0x110000) if not chr(number).strip()}
    assert set(WHITE_SPACE) == stripped | {"\ufeff"}


@given(st.lists(codes, min_size=1, max_size=3))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_hashes_follow_the_code(data: DataLayer, texts: list[str]) -> None:
    user = make_user()
    project = make_project(user)
    code = make_code(project, code=texts[0])
    async with data.transaction() as tx:
        for entity in (user, project, code):
            tx.add(entity)
    assert await stored(data, code.id) == hashes(texts[0])
    for changed in texts[1:]:
        async with data.transaction() as tx:
            await tx.execute(text(SET_CODE).bindparams(code=changed, id=code.id))
        assert await stored(data, code.id) == hashes(changed)


async def stored(data: DataLayer, code_id: Any) -> tuple[Any, ...]:
    async with data.transaction() as tx:
        return tuple((await tx.execute(text(HASHES).bindparams(id=code_id))).one())


@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_what_is_being_written_has_none_until_it_ends(data: DataLayer, end: str) -> None:
    user = make_user()
    project = make_project(user)
    code = make_code(project, code="<p")
    async with data.transaction() as tx:
        for entity in (user, project, code):
            tx.add(entity)
        await tx.flush()
        for change in ("code_hash = NULL, trimmed_hash = NULL, lease_until = now()", "code = '<p>'"):
            await tx.execute(text(f"UPDATE generated_codes SET {change} WHERE id = :id").bindparams(id=code.id))
    assert await stored(data, code.id) == (None, None)
    async with data.transaction() as tx:
        ended = f"UPDATE generated_codes SET status = '{end}', lease_until = NULL WHERE id = :id"
        await tx.execute(text(ended).bindparams(id=code.id))
    assert await stored(data, code.id) == hashes("<p>")
