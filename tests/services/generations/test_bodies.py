"""Codes that are moved out of their rows: read and changed as before, each text once, never lost."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import aliased

from data_layer import DataLayer
from data_layer.entities import GeneratedCode
from data_layer.entities.code_body import SMALLEST, CodeBody, CodePacker, unpacked
from data_layer.entities.columns import MAXIMUM_TEXT_SIZE
from data_layer.entities.enums import GenerationProvider, GenerationStatus
from data_layer.errors import DamagedCodeError, DataLayerError, InvalidValueError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import CodePiece
from data_layer.services.generations.bodies import CodeCheckReport, CodeProblem
from tests.services.generations.conftest import Owner, rows, started, stored_owner
from tests.services.generations.test_versions import completed

Result = TypeVar("Result")
BODIES = "SELECT count(*) FROM code_bodies"
PACKED = "SELECT count(*) FROM generated_codes WHERE code IS NULL"
WORDS = [
    "panel",
    "header",
    "footer",
    "button",
    "card",
    "list",
    "item",
    "price",
    "title",
    "image",
    "<div>",
    "</div>",
    "class=",
    "Grüße",
    "漢字",
    "😀",
]


def page(seed: int, size: int = 6_000) -> str:
    """Some text of about this size that no other seed makes."""
    chosen = random.Random(seed)
    words = (f"{chosen.choice(WORDS)}{chosen.getrandbits(20):x}" for _ in range(size // 12))
    return " ".join(words)


def history(count: int = 6, size: int = 6_000) -> list[str]:
    """A page, and what each of some edits made of it."""
    versions = [page(0, size)]
    for number in range(1, count):
        before = versions[-1]
        at = number * 97 % len(before)
        versions.append(f"{before[:at]}<b>edit {number}</b>{before[at + 40 :]}")
    return versions


async def add(data: DataLayer, owner: Owner, codes: Sequence[str], **values: Any) -> list[UUID]:
    return [code.id for each in codes for code in await completed(data, owner, each, **values)]


async def maintain(data: DataLayer) -> tuple[int, int]:
    """How many codes were packed, and how many bodies removed."""
    report = await data.maintenance.run(SYSTEM)
    assert report.problems == ()
    return report.codes_packed, report.code_bodies_removed


async def texts(data: DataLayer, ids: Sequence[UUID]) -> list[str]:
    async with data.transaction() as tx:
        return [(await tx.codes.get(code_id)).code for code_id in ids]


async def packed(data: DataLayer, owner: Owner, codes: Sequence[str]) -> list[UUID]:
    ids = await add(data, owner, codes)
    await maintain(data)
    assert await rows(data, PACKED) == [(len(codes),)]
    return ids


async def test_a_history_takes_a_fraction_and_every_reader_sees_its_texts(data: DataLayer, owner: Owner) -> None:
    codes = history(21, 40_000)
    ids = await packed(data, owner, codes)
    [(size,)] = await rows(data, "SELECT sum(octet_length(bytes)) FROM code_bodies")
    assert size < sum(len(code.encode()) for code in codes) / 10

    assert await texts(data, ids) == codes
    read = data.generations
    versions = [await read.version(owner.actor, owner.project_id, number) for number in range(1, 22)]
    assert [version.code for version in versions] == codes
    latest = await read.latest(owner.actor, owner.project_id)
    assert (latest.code, latest.id) == (codes[-1], ids[-1])
    diff = await read.diff(owner.actor, owner.project_id, 1, 2)
    assert "<b>edit 1</b>" in diff.unified
    share = await data.shares.create(owner.actor, owner.project_id)
    assert (await data.shares.open(share.token.get_secret_value())).code == codes[-1]
    async with data.transaction() as tx:
        locked = await tx.codes.get(ids[3], lock=True)
        listed = await tx.codes.list(project_id=owner.project_id, order_by="version")
        other = aliased(GeneratedCode)
        columns = await tx.execute(select(GeneratedCode.code).order_by(GeneratedCode.version))
        others = await tx.execute(select(other.code).order_by(other.version))
        orm = await tx.orm()
        await orm.refresh(locked)
    assert locked.code == codes[3]
    assert [code.code for code in listed] == list(columns.scalars()) == list(others.scalars()) == codes


async def test_sizes_are_those_of_the_texts(data: DataLayer, owner: Owner) -> None:
    codes = ["short", "x" * (SMALLEST - 1), "x" * SMALLEST, page(1)]
    await add(data, owner, codes)
    assert (await maintain(data))[0] == 2
    [*views] = reversed(await data.generations.history(owner.actor, owner.project_id))
    assert [view.variants[0].code_size for view in views] == [len(code.encode()) for code in codes]


async def test_equal_codes_are_stored_once_in_a_project_and_not_shared_by_two(data: DataLayer, owner: Owner) -> None:
    other = await stored_owner(data)
    one, two = history(2)
    ids = await add(data, owner, [one, two, one]) + await add(data, other, [one])
    assert await maintain(data) == (4, 0)
    assert await rows(data, BODIES) == [(3,)]
    more = await add(data, owner, [two])
    assert await maintain(data) == (1, 0)
    assert await rows(data, BODIES) == [(3,)]
    assert await texts(data, ids + more) == [one, two, one, one, two]


async def test_codes_that_are_being_written_are_left_alone(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    token = generation.writer_token
    await data.generations.append(owner.actor, token, 0, 1, CodePiece(page(1)))
    await data.generations.store(owner.actor, token)
    assert await maintain(data) == (0, 0)
    await data.generations.append(owner.actor, token, 0, 2, CodePiece("end"))
    assert (await data.generations.complete(owner.actor, token, 0)).code == page(1) + "end"
    assert (await data.generations.complete(owner.actor, token, 1, code=page(2))).code == page(2)
    assert await maintain(data) == (2, 0)


async def test_codes_that_were_added_alone_are_packed_too(data: DataLayer, owner: Owner) -> None:
    code = GeneratedCode(project_id=owner.project_id, code=page(1), provider=GenerationProvider.OPENAI, model="m")
    async with data.transaction() as tx:
        tx.add(code)
    assert await maintain(data) == (1, 0)
    async with data.transaction() as tx:
        found = await tx.codes.get(code.id)
        assert (found.code, found.status) == (page(1), GenerationStatus.PENDING)
    await data.generations.cancel(owner.actor, found.generation_id)
    assert await texts(data, [code.id]) == [page(1)]


@pytest.mark.parametrize("new", ["", "short", page(9), None], ids=["empty", "short", "long", "the same"])
async def test_a_packed_code_is_assigned_as_any_other(data: DataLayer, owner: Owner, new: str | None) -> None:
    codes = history()
    ids = await packed(data, owner, codes)
    for number, code_id in enumerate(ids[:3]):
        async with data.transaction() as tx:
            code = await tx.codes.get(code_id)
            code.code = codes[number] = (codes[number] + "x")[:-1] if new is None else new
            code.name = "changed"
    assert await texts(data, ids) == codes
    await maintain(data)
    await maintain(data)
    assert await texts(data, ids) == codes
    async with data.transaction() as tx:
        code = await tx.codes.get(ids[0])
        with pytest.raises(InvalidValueError, match="code may not be empty"):
            code.code = None  # type: ignore[assignment]


async def test_other_columns_change_without_the_text(data: DataLayer, owner: Owner) -> None:
    ids = await packed(data, owner, history())
    before = await rows(data, "SELECT id, updated_at FROM generated_codes ORDER BY id")
    await data.generations.rate(owner.actor, ids[0], stars=5)
    await data.generations.count_copy(owner.actor, ids[1])
    async with data.transaction() as tx:
        (await tx.codes.get(ids[2])).name = "new"
    assert await rows(data, PACKED) == [(6,)]
    assert await texts(data, ids) == history()
    after = await rows(data, "SELECT id, updated_at FROM generated_codes ORDER BY id")
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False, True, True, True]


async def test_an_update_by_sql_wins_over_the_body(data: DataLayer, owner: Owner) -> None:
    ids = await packed(data, owner, history())
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE generated_codes SET code = 'by hand' WHERE version = 1"))
        await tx.execute(text("UPDATE generated_codes SET code = coalesce(NULL, code) WHERE version = 2"))
    assert await texts(data, ids) == ["by hand", *history()[1:]]


async def test_packing_changes_no_time_and_no_value(data: DataLayer, owner: Owner) -> None:
    ids = await add(data, owner, history())
    async with data.transaction() as tx:
        before = [vars(await tx.codes.get(code_id)).copy() for code_id in ids]
    await maintain(data)
    async with data.transaction() as tx:
        after = [vars(await tx.codes.get(code_id)).copy() for code_id in ids]
    for values in (*before, *after):
        del values["_sa_instance_state"]
    assert after == before


async def test_the_search_hears_of_a_new_text_and_not_of_packing(data: DataLayer, owner: Owner) -> None:
    noted = "SELECT count(*) FROM project_search_changes"
    ids = await packed(data, owner, history(2))
    await data.maintenance.run(SYSTEM)
    assert await rows(data, noted) == [(0,)]
    assert await rows(data, PACKED) == [(2,)]
    async with data.transaction() as tx:
        (await tx.codes.get(ids[1])).code = "Zwetschgen"
    assert await rows(data, noted) == [(1,)]


async def test_hashes_of_lineage_stay_and_follow(data: DataLayer, owner: Owner) -> None:
    hashes = "SELECT code_hash, encode(trimmed_hash, 'hex') FROM generated_codes"
    [code_id] = await packed(data, owner, [page(1) + " "])
    trimmed = hashlib.sha256(page(1).encode()).hexdigest()
    assert await rows(data, hashes) == [(hashlib.sha256(f"{page(1)} ".encode()).digest(), trimmed)]
    async with data.transaction() as tx:
        (await tx.codes.get(code_id)).code = "new"
    digest = hashlib.sha256(b"new")
    assert await rows(data, hashes) == [(digest.digest(), digest.hexdigest())]


async def test_codes_are_found_by_their_text(data: DataLayer, owner: Owner) -> None:
    codes = history(3)
    ids = await packed(data, owner, codes)
    ids += await add(data, owner, ["short"])
    async with data.transaction() as tx:
        assert [code.id for code in await tx.codes.list(code=codes[1])] == [ids[1]]
        assert [code.id for code in await tx.codes.list(code="short")] == [ids[3]]
        others = await tx.execute(select(GeneratedCode.id).where(GeneratedCode.code != codes[1]))
        assert set(others.scalars()) == {ids[0], *ids[2:]}
        missing = await tx.execute(select(GeneratedCode.id).where(GeneratedCode.code.is_(None)))
        assert missing.scalars().all() == []
        for condition in (GeneratedCode.code.like, GeneratedCode.code.contains, GeneratedCode.code.startswith):
            with pytest.raises(InvalidValueError, match="compared with whole texts only"):
                condition("x")
        assert [code.id for code in await tx.codes.list(code=[codes[0], "short", "none"])] == [ids[0], ids[3]]


async def test_lists_never_touch_bodies(data: DataLayer, owner: Owner) -> None:
    await packed(data, owner, history())
    async with data.transaction() as tx:
        await tx.execute(text("ALTER TABLE code_bodies RENAME TO hidden"))
    try:
        [*views] = await data.generations.history(owner.actor, owner.project_id)
        assert [view.variants[0].code_size > SMALLEST for view in views] == [True] * 6
        assert len((await data.projects.list(owner.actor)).projects) == 1
        async with data.transaction() as tx:
            assert len(await tx.codes.summaries(owner.project_id)) == 6
            assert await tx.codes.counts([owner.project_id]) == {owner.project_id: 6}
        with pytest.raises(DataLayerError):
            await data.generations.latest(owner.actor, owner.project_id)
    finally:
        async with data.transaction() as tx:
            await tx.execute(text("ALTER TABLE hidden RENAME TO code_bodies"))


async def test_what_was_changed_after_it_was_read_keeps_its_text(data: DataLayer, owner: Owner) -> None:
    ids = await add(data, owner, history(3))
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE generated_codes SET code = code || 'later' WHERE version = 2"))
    await move(data, owner, ids, history(3))
    assert await rows(data, "SELECT version FROM generated_codes WHERE code IS NOT NULL") == [(2,)]
    assert await texts(data, ids) == [history(3)[0], history(3)[1] + "later", history(3)[2]]
    assert await maintain(data) == (1, 1)


async def test_a_row_that_somebody_is_changing_is_left_for_the_next_round(data: DataLayer, owner: Owner) -> None:
    ids = await add(data, owner, history(3))
    async with data.transaction() as tx:
        code = await tx.codes.get(ids[1], lock=True)
        assert await in_another_task(maintain(data)) == (2, 0)
        code.code = page(5)
    assert await maintain(data) == (1, 1)
    assert await texts(data, ids) == [history(3)[0], page(5), history(3)[2]]


async def test_a_transaction_that_fails_leaves_codes_where_they_were(data: DataLayer, owner: Owner) -> None:
    ids = await add(data, owner, history(3))
    with pytest.raises(KeyError):
        await move(data, owner, ids, history(3), KeyError)
    assert await rows(data, BODIES) == [(0,)]
    assert await texts(data, ids) == history(3)
    assert await maintain(data) == (3, 0)


@pytest.mark.slow
async def test_a_server_that_ends_the_connection_loses_nothing(data: DataLayer, owner: Owner) -> None:
    ids = await add(data, owner, history(40))
    stop = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    """

    async def interrupt() -> None:
        for _ in range(20):
            await asyncio.sleep(0.01)
            async with data.transaction() as tx:
                await tx.execute(text(stop))

    outcomes = await asyncio.gather(data.maintenance.run(SYSTEM), interrupt(), return_exceptions=True)
    assert all(isinstance(outcome, DataLayerError) for outcome in outcomes if isinstance(outcome, BaseException))
    assert await texts(data, ids) == history(40)
    await maintain(data)
    assert await rows(data, PACKED) == [(40,)]
    assert await texts(data, ids) == history(40)


async def in_another_task(work: Coroutine[Any, Any, Result]) -> Result:
    """What begins transactions of its own while one of this task is open."""
    return await asyncio.create_task(work, context=contextvars.Context())


async def move(
    data: DataLayer, owner: Owner, ids: Sequence[UUID], codes: Sequence[str], error: type[Exception] | None = None
) -> None:
    """The second half of a round, for codes that were read with these texts."""
    packer = CodePacker({})
    bodies = [packer.pack(code.encode()) for code in codes]
    refers = [(code_id, body.sha256, body.size) for code_id, body in zip(ids, bodies, strict=True)]
    async with data.transaction() as tx:
        await tx.code_bodies.move(owner.project_id, bodies, refers)
        if error is not None:
            raise error


async def test_a_project_that_is_being_removed_is_left_alone(data: DataLayer, owner: Owner) -> None:
    ids = await add(data, owner, history(3))
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(owner.project_id))
        await in_another_task(move(data, owner, ids, history(3)))
    assert await rows(data, BODIES) == [(0,)]


async def test_what_nothing_needs_is_removed_and_nothing_else(data: DataLayer, owner: Owner) -> None:
    codes = history()
    ids = await packed(data, owner, codes)
    assert await rows(data, "SELECT count(*) FROM code_bodies WHERE base IS NULL") == [(1,)]
    async with data.transaction() as tx:
        await tx.codes.delete(await tx.codes.get(ids[0]))
    assert await maintain(data) == (0, 0)  # The others were compressed with it.
    assert await texts(data, ids[1:]) == codes[1:]
    async with data.transaction() as tx:
        for code_id in ids[1:]:
            await tx.codes.delete(await tx.codes.get(code_id))
    assert await maintain(data) == (0, 6)
    assert await rows(data, BODIES) == [(0,)]


async def test_a_project_takes_its_bodies_with_it(data: DataLayer, owner: Owner) -> None:
    await packed(data, owner, history())
    other = await stored_owner(data)
    kept = await add(data, other, history())
    await maintain(data)
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(owner.project_id))
    assert await rows(data, "SELECT DISTINCT project_id FROM code_bodies") == [(other.project_id,)]
    assert await texts(data, kept) == history()


async def test_copies_of_a_project_have_bodies_that_outlive_it(data: DataLayer, owner: Owner) -> None:
    codes = history()
    await packed(data, owner, codes)
    clone = await data.projects.clone(owner.actor, owner.project_id)
    part = await data.projects.clone(owner.actor, owner.project_id, version=3)
    fork = await data.generations.fork(owner.actor, owner.project_id, 4)
    await data.generations.restore(owner.actor, owner.project_id, 2)
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(owner.project_id))
    for project, kept in ((clone, codes), (part, codes[:3]), (fork, [codes[3]])):
        for number, code in enumerate(kept, 1):
            assert (await data.generations.version(owner.actor, project.id, number)).code == code
    await maintain(data)
    assert (await data.generations.version(owner.actor, fork.id, 1)).code == codes[3]
    assert (await data.maintenance.check_codes()).is_clean


async def test_all_at_once_leaves_every_text_readable(data: DataLayer, owner: Owner) -> None:
    codes = history(12)
    ids = await add(data, owner, codes)

    async def pack() -> None:
        for _ in range(4):
            await data.maintenance.run(SYSTEM)

    async def change() -> None:
        for number in range(0, 12, 3):
            async with data.transaction() as tx:
                (await tx.codes.get(ids[number])).code = codes[number] = page(100 + number)

    async def remove() -> None:
        for number in range(1, 12, 3):
            async with data.transaction() as tx:
                await tx.codes.delete(await tx.codes.get(ids[number]))

    async def clone() -> list[UUID]:
        return [(await data.projects.clone(owner.actor, owner.project_id)).id for _ in range(3)]

    _, _, _, clones = await asyncio.gather(pack(), change(), remove(), clone())
    await maintain(data)
    left = [number for number in range(12) if number % 3 != 1]
    assert await texts(data, [ids[number] for number in left]) == [codes[number] for number in left]
    known = {*history(12), *codes}
    for project_id in clones:
        async with data.transaction() as tx:
            assert {code.code for code in await tx.codes.list(project_id=project_id)} <= known
    report = await data.maintenance.check_codes()
    assert (report.findings, report.orphans) == ((), 0)


SPOIL = {
    "cut off": "UPDATE code_bodies SET bytes = substr(bytes, 1, octet_length(bytes) / 2)",
    "one bit": "UPDATE code_bodies SET bytes = set_bit(bytes, {middle}, 1 - get_bit(bytes, {middle}))".format(
        middle="octet_length(bytes) * 4"
    ),
    "nothing": "UPDATE code_bodies SET bytes = ''",
    "size": "UPDATE code_bodies SET size = size + 1",
    "bytes of another": "UPDATE code_bodies SET bytes = (SELECT min(bytes) FROM code_bodies WHERE base IS NOT NULL)",
}


@pytest.mark.parametrize("how", SPOIL.values(), ids=SPOIL)
async def test_a_damaged_body_is_refused_reported_and_repaired(data: DataLayer, owner: Owner, how: str) -> None:
    codes = history(4)
    ids = await packed(data, owner, codes)
    clone = await data.projects.clone(owner.actor, owner.project_id)
    digest = hashlib.sha256(codes[0].encode()).digest()
    assert await rows(data, "SELECT DISTINCT base FROM code_bodies WHERE base IS NOT NULL") == [(digest,)]
    async with data.transaction() as tx:
        spoil = text(f"{how} WHERE project_id = :project_id AND base IS NULL")
        await tx.execute(spoil.bindparams(project_id=owner.project_id))

    for code_id in ids:
        with pytest.raises(DamagedCodeError, match=r"damaged: .*storage check --apply"):
            await texts(data, [code_id])
    with pytest.raises(DamagedCodeError):
        await data.generations.latest(owner.actor, owner.project_id)
    assert len(await data.generations.history(owner.actor, owner.project_id)) == 4

    report = await data.maintenance.check_codes()
    assert_findings(report, owner, codes, is_repaired=False)
    assert await data.maintenance.check_codes() == report
    assert_findings(await data.maintenance.check_codes(repair=True), owner, codes, is_repaired=True)
    assert (await data.maintenance.check_codes()).findings == ()
    assert await texts(data, ids) == codes
    assert (await data.generations.version(owner.actor, clone.id, 1)).code == codes[0]


def assert_findings(report: CodeCheckReport, owner: Owner, codes: Sequence[str], *, is_repaired: bool) -> None:
    assert report.bodies == 2 * len(codes)
    assert report.is_clean == is_repaired
    assert {finding.project_id for finding in report.findings} == {owner.project_id}
    assert {finding.is_repaired for finding in report.findings} == {is_repaired}
    hashes = {hashlib.sha256(code.encode()).hexdigest(): f"{number}.0" for number, code in enumerate(codes, 1)}
    assert {finding.sha256: finding.versions[0] for finding in report.findings} == hashes
    assert {finding.problem for finding in report.findings} <= {CodeProblem.DAMAGED, CodeProblem.BASE_MISSING}


# What rules of the database prevent, unless somebody restores a part of a backup or works around them.
SPOIL_CODES = {
    CodeProblem.MISSING: "DELETE FROM code_bodies WHERE project_id = :project_id",
    CodeProblem.WRONG_SIZE: "UPDATE generated_codes SET body_size = body_size + 1 WHERE project_id = :project_id",
    CodeProblem.WRONG_HASH: "UPDATE generated_codes SET code_hash = sha256('x') WHERE project_id = :project_id",
}


async def spoil(data: DataLayer, owner: Owner, statement: str) -> None:
    async with data.transaction() as tx:
        await tx.execute(text("SET LOCAL session_replication_role = replica"))  # Neither keys nor triggers.
        await tx.execute(text(statement).bindparams(project_id=owner.project_id))


@pytest.mark.parametrize("problem", SPOIL_CODES)
async def test_codes_without_their_text_are_named_and_repaired(
    data: DataLayer, owner: Owner, problem: CodeProblem
) -> None:
    codes = history(3)
    ids = await packed(data, owner, codes)
    await add(data, owner, codes[:1])  # Version 4 has the text of version 1.
    await maintain(data)
    await data.projects.clone(owner.actor, owner.project_id)
    assert (await data.maintenance.check_codes()).findings == ()
    before = await rows(data, "SELECT id, body_size, code_hash, trimmed_hash FROM generated_codes ORDER BY id")
    await spoil(data, owner, SPOIL_CODES[problem])

    report = await data.maintenance.check_codes()
    assert (report.is_clean, {finding.problem for finding in report.findings}) == (False, {problem})
    named = {finding.sha256: finding.versions for finding in report.findings}
    if problem is not CodeProblem.WRONG_HASH:
        assert named.keys() == {hashlib.sha256(code.encode()).hexdigest() for code in codes}
        assert sorted(named.values()) == [("1.0", "4.0"), ("2.0",), ("3.0",)]
    assert {finding.project_id for finding in report.findings} == {owner.project_id}
    assert await data.maintenance.check_codes() == report

    repaired = await data.maintenance.check_codes(repair=True)
    assert repaired.is_clean
    assert len(repaired.findings) == len(report.findings)
    assert (await data.maintenance.check_codes()).findings == ()
    assert await texts(data, ids) == codes
    assert await rows(data, "SELECT id, body_size, code_hash, trimmed_hash FROM generated_codes ORDER BY id") == before


async def test_a_text_that_is_nowhere_stays_missing(data: DataLayer, owner: Owner) -> None:
    await packed(data, owner, [page(1)])
    await spoil(data, owner, SPOIL_CODES[CodeProblem.MISSING])
    report = await data.maintenance.check_codes(repair=True)
    assert [(finding.problem, finding.is_repaired) for finding in report.findings] == [(CodeProblem.MISSING, False)]
    assert not report.is_clean


async def test_hashes_of_a_text_in_its_row_are_made_again(data: DataLayer, owner: Owner) -> None:
    await add(data, owner, [" <p>", "   "])
    hashes = "SELECT code_hash, trimmed_hash FROM generated_codes ORDER BY version"
    before = await rows(data, hashes)
    assert (await data.maintenance.check_codes()).findings == ()
    wrong = "UPDATE generated_codes SET code_hash = sha256('x'), trimmed_hash = sha256('y') WHERE version = 1"
    await spoil(data, owner, f"{wrong} AND project_id = :project_id")
    [finding] = (await data.maintenance.check_codes(repair=True)).findings
    assert (finding.problem, finding.versions, finding.is_repaired) == (CodeProblem.WRONG_HASH, ("1.0",), True)
    assert await rows(data, hashes) == before


async def test_bodies_that_nothing_needs_are_named(data: DataLayer, owner: Owner) -> None:
    [first] = await packed(data, owner, [page(1)])
    assert (await data.maintenance.check_codes()).orphan_bodies == ()
    async with data.transaction() as tx:
        (await tx.codes.get(first)).code = "<p>"
    report = await data.maintenance.check_codes()
    assert (report.orphans, report.is_clean) == (1, True)  # Maintenance removes them: nothing is wrong.
    [orphan] = report.orphan_bodies
    assert (orphan.project_id, orphan.sha256) == (owner.project_id, hashlib.sha256(page(1).encode()).hexdigest())


async def test_a_damaged_text_is_repaired_from_a_row(data: DataLayer, owner: Owner) -> None:
    [first] = await packed(data, owner, [page(1)])
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE code_bodies SET bytes = 'x'"))
    assert not (await data.maintenance.check_codes(repair=True)).is_clean
    await add(data, owner, [page(1)])
    assert (await data.maintenance.check_codes(repair=True)).is_clean
    assert await texts(data, [first]) == [page(1)]


async def test_nothing_new_depends_on_a_damaged_base(data: DataLayer, owner: Owner) -> None:
    codes = history(4)
    await packed(data, owner, codes[:2])
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE code_bodies SET bytes = 'x'"))
    ids = await add(data, owner, codes[2:])
    assert await maintain(data) == (2, 0)
    assert await texts(data, ids) == codes[2:]


async def test_the_largest_codes_are_packed_as_differences(data: DataLayer, owner: Owner) -> None:
    large = page(1, MAXIMUM_TEXT_SIZE * 8 // 10)
    large += "x" * (MAXIMUM_TEXT_SIZE - len(large.encode()))
    at = len(large) // 2
    codes = [large, large[:100] + "edited" + large[106:at] + "edited" + large[at + 6 :]]
    codes[1] = codes[1].encode()[:MAXIMUM_TEXT_SIZE].decode(errors="ignore")
    assert len(large.encode()) == MAXIMUM_TEXT_SIZE
    ids = await packed(data, owner, codes)
    assert await texts(data, ids) == codes
    [(size,)] = await rows(data, "SELECT octet_length(bytes) FROM code_bodies WHERE base IS NOT NULL")
    assert size < MAXIMUM_TEXT_SIZE / 100


async def test_five_mebibytes_with_nul_and_lone_surrogates_lose_nothing_silently(data: DataLayer, owner: Owner) -> None:
    symbols = ["\0", "\ud800", "\udc00", "😀", "a\0\udfff"]
    token = (await started(data, owner)).writer_token
    pieces = ["".join(random.Random(number).choices([*symbols, page(number, 900)], k=30)) for number in range(300)]
    for number, piece in enumerate(pieces):
        await data.generations.append(owner.actor, token, 0, number + 1, CodePiece(piece))
    done = await data.generations.complete(owner.actor, token, 0)
    sent = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    halves = sum("\ud800" <= symbol <= "\udfff" for symbol in sent)
    expected = "".join("\ufffd" if "\ud800" <= symbol <= "\udfff" else symbol for symbol in sent).replace("\0", "␀")
    assert len(expected.encode()) > 2**20
    assert done.code == expected
    assert done.metadata["replaced_characters"] == {"nul": sent.count("\0"), "half_surrogate_pair": halves}
    await maintain(data)
    assert await texts(data, [done.id]) == [expected]


async def test_packing_begins_when_older_processes_have_gone(data: DataLayer, owner: Owner) -> None:
    await add(data, owner, history())
    later = "UPDATE data_layer_schema_version SET codes_packed_from = now() + {} * interval '1 hour'"
    async with data.transaction() as tx:
        await tx.execute(text(later.format(1)))
    try:
        assert (await data.maintenance.run(SYSTEM, dry_run=True)).codes_packed == 0
        assert await maintain(data) == (0, 0)
        assert await rows(data, PACKED) == [(0,)]
    finally:
        async with data.transaction() as tx:
            await tx.execute(text(later.format(-1)))
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).codes_packed == 6
    assert await maintain(data) == (6, 0)


parts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30).map(
    lambda part: part * 40
)
edits = st.tuples(st.integers(0, 10**6), st.integers(0, 3000), parts)


@given(first=st.lists(parts, max_size=40).map("".join), changes=st.lists(edits, max_size=12))
@settings(max_examples=150)
def test_every_history_comes_back(first: str, changes: list[tuple[int, int, str]]) -> None:
    codes = [first or "x"]
    for at, removed, added in changes:
        code = codes[-1]
        place = at % (len(code) + 1)
        codes.append(code[:place] + added + code[place + removed :] or "x")
    packer = CodePacker({})
    bodies: dict[bytes, CodeBody] = {}
    for code in codes:
        body = packer.pack(code.encode())
        # A text that comes again keeps the body that is stored: others may be differences to it.
        bodies.setdefault(body.sha256, body)
    for code in codes:
        body = bodies[hashlib.sha256(code.encode()).digest()]
        base = bodies[body.base] if body.base is not None else None
        assert base is None or base.base is None
        assert unpacked(body, base).decode() == code


@given(texts_=st.lists(st.sampled_from([page(n, 2_000) for n in range(3)] + history(4, 2_000) + ["", "s"]), max_size=8))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_project_comes_back(data: DataLayer, texts_: list[str]) -> None:
    owner = await stored_owner(data)
    codes = [
        GeneratedCode(project_id=owner.project_id, code=code, provider=GenerationProvider.OPENAI, model="m")
        for code in texts_
    ]
    for code in codes:
        async with data.transaction() as tx:
            tx.add(code)
    await maintain(data)
    assert await texts(data, [code.id for code in codes]) == texts_
    found = await rows(data, "SELECT count(*) FROM code_bodies WHERE project_id = :id", id=owner.project_id)
    assert found == [(len({code for code in texts_ if len(code.encode()) >= SMALLEST}),)]
