"""The search over projects: what is found, by whom, how soon, and what is shown of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities import GeneratedCode
from data_layer.entities.enums import CodeStack, GenerationStatus, UserRole, UserStatus
from data_layer.errors import DatabaseError, InvalidValueError, NotFoundError, PermissionDeniedError
from data_layer.repositories.project_search import Found, ProjectSearchRepository
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.generations import GenerationRequest, VariantModel, WholeCode
from data_layer.schemas.projects import ProjectChanges, ProjectDraft, ProjectPublic, ProjectSummary
from data_layer.schemas.search import SearchedField, SearchPage
from data_layer.services.search import SearchIndex
from data_layer.services.search.index import Progress
from data_layer.services.search.service import MOST_HITS
from data_layer.services.search.words import words_of
from tests.support import make_user, stored_actor


@pytest.fixture
async def owner(data: DataLayer) -> Actor:
    return await person(data, "de")


async def person(data: DataLayer, language: str | None = None, **values: Any) -> Actor:
    user = make_user(preferences={} if language is None else {"language": language}, **values)
    async with data.transaction() as tx:
        tx.add(user)
    return Actor.user(user.id, user.role)


async def project(data: DataLayer, owner: Actor, name: str = "Project", **values: Any) -> UUID:
    return (await data.projects.create(owner, ProjectDraft(name=name, **values))).id


async def page(data: DataLayer, owner: Actor, project_id: UUID, *codes: str, prompt: str | None = None) -> UUID:
    """A generation with a complete variant for each code."""
    request = GenerationRequest(prompt=prompt)
    started = await data.generations.start(owner, project_id, request, [VariantModel() for _ in codes])
    for variant, code in enumerate(codes):
        await data.generations.append(owner, started.writer_token, variant, 1, WholeCode(code))
        await data.generations.complete(owner, started.writer_token, variant)
    return started.id


async def find(data: DataLayer, actor: Actor, text: str, **options: Any) -> list[str]:
    return [hit.project.name for hit in (await data.projects.search(actor, text, **options)).hits]


async def marked(data: DataLayer, actor: Actor, text: str, field: SearchedField) -> list[str]:
    """The words that are to be emphasized in a field of the best hit."""
    best = (await data.projects.search(actor, text)).hits[0]
    [found] = [highlight for highlight in best.highlights if highlight.field is field]
    return [found.text[start:end] for start, end in found.ranges]


async def test_everything_that_is_promised_is_searched(data: DataLayer, owner: Actor) -> None:
    values: dict[str, Any] = {"description": "alpha", "instructions": "bravo", "tags": ["charlie", "two words"]}
    project_id = await project(data, owner, "Delta", **values)
    await page(data, owner, project_id, "<title>echo</title><p>foxtrot", prompt="golf")
    await project(data, owner, "Other")
    for word in ("alpha", "bravo", "charlie", "words", "delta", "echo", "foxtrot", "golf", "DELTA", "alpha golf"):
        assert await find(data, owner, word) == ["Delta"], word
    assert await find(data, owner, "alpha hotel") == []


async def test_german(data: DataLayer, owner: Actor) -> None:
    project_id = await project(data, owner, "Löffelglück", tags=["Backen"])
    await page(data, owner, project_id, "<h1>Zwetschgenkuchen</h1><p>mit einem großen Löffel und vielen Zwetschgen")
    for words in (
        "Löffel",
        "Löffeln",
        "LÖFFEL",
        "löffel zwetschge",
        "Zwetschgen",
        "zwetschge",
        "zwetsch",
        "Zwetschgenk",
    ):
        assert await find(data, owner, words) == ["Löffelglück"], words
    assert await find(data, owner, "den Löffel") == ["Löffelglück"], "words without meaning do not count"
    assert await find(data, owner, "gross") == await find(data, owner, "große") == ["Löffelglück"]
    assert await marked(data, owner, "Löffeln Zwetschge", SearchedField.PAGE) == [
        *("Zwetschgenkuchen", "Löffel", "Zwetschgen")
    ]


async def test_english_whatever_language_its_owner_speaks(data: DataLayer, owner: Actor) -> None:
    project_id = await project(data, owner, "Shop")
    await page(data, owner, project_id, "<p>The berries are running out")
    for words in ("berry", "runs", "the berry", '"berries are running"', "berr"):
        assert await find(data, owner, words) == ["Shop"], words
    assert await marked(data, owner, "berry", SearchedField.PAGE) == ["berries"]


async def test_words_belong_to_the_language_that_the_owner_has_now(data: DataLayer) -> None:
    owner = await person(data, "en")
    await project(data, owner, "Zwetschgen")
    assert await find(data, owner, "Zwetschge x") == await find(data, owner, '"Zwetschge"') == []
    assert await find(data, owner, "Zwetschge -x") == []
    await data.accounts.update_preferences(owner, owner.user_id, {"language": "de-AT"})  # type: ignore[arg-type]
    assert await find(data, owner, "Zwetschge -x") == ["Zwetschgen"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("kuchen", ["Apfel Kuchen", "Birne Kuchen"]),
        ("kuchen -birne", ["Apfel Kuchen"]),
        ("kuchen -birnen", ["Apfel Kuchen"]),
        ('kuchen -"birne kuchen"', ["Apfel Kuchen"]),
        ('"apfel kuchen"', ["Apfel Kuchen"]),
        ('"kuchen apfel"', []),
        ('"apfel kuch"', []),
        ("apfel or birne", ["Apfel Kuchen", "Birne Kuchen"]),
        ("apfel OR birne tee", ["Apfel Kuchen"]),
        ("or apfel or", ["Apfel Kuchen"]),
        ("apfel-kuchen", ["Apfel Kuchen"]),
        ("kuchen-apfel", []),
        ("apf", ["Apfel Kuchen"]),
        ("apf kuchen", []),
        ("kuchen apf", ["Apfel Kuchen"]),
        ("a", []),
        ("-birne", []),
        ('""', []),
        ('"apfel', ["Apfel Kuchen"]),
        ("-", []),
        ("", []),
        ("  \n ", []),
        ("& | ! ( ) : * <-> ' \\ %", []),
        ("apfel & kuchen:* | !x", []),
        ("'apfel'", ["Apfel Kuchen"]),
        ("der", []),
    ],
)
async def test_the_syntax_of_a_web_search(data: DataLayer, owner: Actor, words: str, found: list[str]) -> None:
    for name in ("Apfel Kuchen", "Birne Kuchen"):
        await project(data, owner, name)
    assert sorted(await find(data, owner, words)) == found


@pytest.mark.parametrize("words", ["そらもよう", "空", "天気", "よう", "우산", "산", "ไทย", "ภาษา"])
async def test_scripts_without_blanks(data: DataLayer, owner: Actor, words: str) -> None:
    project_id = await project(data, owner, "そらもよう weather")
    await page(data, owner, project_id, "<p>今日の天気は空が青い。우산을 챙기세요 ภาษาไทย")
    await project(data, owner, "気天 うよ 바다 วอ")
    assert await find(data, owner, words) == ["そらもよう weather"]
    best = (await data.projects.search(owner, words)).hits[0]
    [found] = best.highlights
    assert [found.text[start:end] for start, end in found.ranges] == [words]


async def test_the_best_comes_first_and_pages_hold_each_once(data: DataLayer, owner: Actor) -> None:
    in_page = await project(data, owner, "In the page")
    await page(data, owner, in_page, "<p>" + "kestrel " * 500)
    await project(data, owner, "In the description", description="about a kestrel")
    await project(data, owner, "Kestrel")
    assert await find(data, owner, "kestrel") == ["Kestrel", "In the description", "In the page"]

    for number in range(7):
        await project(data, owner, f"Kestrel {number}")
    names: list[str] = []
    after: str | None = None
    while True:
        found = await data.projects.search(owner, "kestrel", limit=3, after=after)
        names += [hit.project.name for hit in found.hits]
        after = found.next
        if after is None:
            break
    assert len(names) == len(set(names)) == 10
    assert names == await find(data, owner, "kestrel")


async def test_what_was_just_written_is_found_and_what_was_taken_away_is_not(data: DataLayer, owner: Actor) -> None:
    project_id = await project(data, owner, "Mine", description="old words", tags=["first"])
    generation = await page(data, owner, project_id, "<p>red", "<p>green", prompt="colours")
    assert await find(data, owner, "red") == ["Mine"]
    assert await find(data, owner, "green") == []
    await data.generations.select(owner, generation, 1)
    assert await find(data, owner, "green") == ["Mine"], "another variant goes on"
    assert await find(data, owner, "red") == []
    await page(data, owner, project_id, "<p>blue")
    assert (await find(data, owner, "blue"), await find(data, owner, "green")) == (["Mine"], [])
    assert await find(data, owner, "colours") == ["Mine"], "all prompts count"
    opened = await data.projects.open(owner, project_id)
    changes = ProjectChanges(name="Renamed", description="new words", tags=["second"])
    await data.projects.update(owner, project_id, changes, expected=opened.revision)
    assert await find(data, owner, "renamed new second") == ["Renamed"]
    assert await find(data, owner, "old") == await find(data, owner, "first") == []
    await data.generations.restore(owner, project_id, 1, 0)
    assert (await find(data, owner, "red"), await find(data, owner, "blue")) == (["Renamed"], [])
    await data.projects.delete(owner, project_id)
    assert await find(data, owner, "renamed") == await find(data, SYSTEM, "renamed") == []
    await data.projects.restore(owner, project_id)
    assert await find(data, owner, "renamed") == ["Renamed"]


async def test_what_is_being_written_or_has_failed_is_not_the_page(data: DataLayer, owner: Actor) -> None:
    project_id = await project(data, owner, "Mine")
    models = [VariantModel(), VariantModel(), VariantModel()]
    started = await data.generations.start(owner, project_id, GenerationRequest(prompt="wanted"), models)
    for variant, code in enumerate(("<p>running", "<p>failed", "<p>cancelled")):
        await data.generations.append(owner, started.writer_token, variant, 1, WholeCode(code))
    await data.generations.store(owner, started.writer_token)
    await data.generations.fail(owner, started.writer_token, 1, "no")
    await data.generations.cancel(owner, started.id, 2)
    assert await find(data, owner, "wanted") == ["Mine"], "prompts count from the beginning"
    assert [await find(data, owner, word) for word in ("running", "failed", "cancelled")] == [[], [], []]
    await data.generations.complete(owner, started.writer_token, 0)
    assert await find(data, owner, "running") == ["Mine"]


async def test_rows_that_other_programs_write_are_found(data: DataLayer, owner: Actor) -> None:
    """No service has a part in it: processes of the version before, imports, SQL of an operator."""
    project_id = await project(data, owner, "Mine")
    await find(data, owner, "x")
    values: dict[str, Any] = {"provider": "openai", "model": "m", "status": GenerationStatus.COMPLETED}
    async with data.transaction() as tx:
        code = GeneratedCode(project_id=project_id, code="<p>imported", **values)
        tx.add(code)
    assert await find(data, owner, "imported") == ["Mine"]
    async with data.transaction() as tx:
        (await tx.codes.get(code.id)).code = "<p>edited"
    assert (await find(data, owner, "edited"), await find(data, owner, "imported")) == (["Mine"], [])
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE projects SET name = 'Retitled'"))
    assert await find(data, owner, "retitled") == ["Retitled"]
    async with data.transaction() as tx:
        await tx.codes.delete(await tx.codes.get(code.id))
    assert await find(data, owner, "edited") == []


async def test_checkpoints_and_marks_do_not_concern_the_index(data: DataLayer, owner: Actor) -> None:
    project_id = await project(data, owner, "Mine")
    started = await data.generations.start(owner, project_id, GenerationRequest(), [VariantModel()])
    await find(data, owner, "x")
    assert await waiting(data) == 0
    for number in range(1, 4):
        await data.generations.append(owner, started.writer_token, 0, number, WholeCode(f"<p>{number}"))
        await data.generations.store(owner, started.writer_token)
    assert await waiting(data) == 0
    done = await data.generations.complete(owner, started.writer_token, 0)
    assert await waiting(data) == 1
    await find(data, owner, "x")
    await data.generations.mark_favorite(owner, done.id)
    await data.generations.rate(owner, done.id, stars=5)
    await data.generations.rename(owner, done.id, "a name")
    await data.projects.archive(owner, project_id)
    assert await waiting(data) == 0


async def waiting(data: DataLayer) -> int:
    async with data.transaction() as tx:
        return await tx.project_search.count_changed()


async def test_who_may_find_what(data: DataLayer, owner: Actor) -> None:
    stranger = await stored_actor(data)
    moderator = await stored_actor(data, role=UserRole.MODERATOR)
    await project(data, owner, "Secret kestrel")
    assert await find(data, owner, "kestrel") == ["Secret kestrel"]
    assert await find(data, stranger, "kestrel") == await find(data, stranger, "kestrel", include_public=True) == []
    assert await find(data, ANONYMOUS, "kestrel", include_public=True) == []
    assert await find(data, SYSTEM, "kestrel") == await find(data, SYSTEM, "kestrel", owner_id=owner.user_id)
    with pytest.raises(PermissionDeniedError):
        await find(data, ANONYMOUS, "kestrel")
    with pytest.raises((PermissionDeniedError, NotFoundError)):
        await find(data, stranger, "kestrel", owner_id=owner.user_id)
    with pytest.raises(PermissionDeniedError, match="reason"):
        await find(data, moderator, "kestrel", owner_id=owner.user_id)
    assert await find(data, moderator, "kestrel") == []
    assert await find(data, moderator, "kestrel", owner_id=owner.user_id, reason="abuse") == ["Secret kestrel"]
    async with data.transaction() as tx:
        [entry] = [entry for entry in await tx.audit.list() if entry.details == "abuse"]
    assert entry.metadata_["owner_id"] == str(owner.user_id)


async def test_of_others_only_what_is_public_is_searched_and_shown(data: DataLayer, owner: Actor) -> None:
    stranger = await stored_actor(data)
    values: dict[str, Any] = {"description": "heron", "instructions": "kestrel", "tags": ["plover"]}
    project_id = await project(data, owner, "Shown", is_public=True, **values)
    await page(data, owner, project_id, "<p>sandpiper", prompt="dunlin")
    await page(data, owner, await project(data, owner, "Kept"), "<p>heron")
    for word in ("shown", "heron", "plover"):
        assert await find(data, stranger, word, include_public=True) == ["Shown"]
        assert await find(data, ANONYMOUS, word, include_public=True) == ["Shown"]
    for word in ("kestrel", "sandpiper", "dunlin", "heron kestrel"):
        assert await find(data, stranger, word, include_public=True) == []
        # What is excluded discloses as much as what is found.
        assert await find(data, stranger, f"heron -{word.split()[-1]}", include_public=True) == ["Shown"]
    [hit] = (await data.projects.search(stranger, "heron", include_public=True)).hits
    assert type(hit.project) is ProjectPublic
    assert {highlight.field for highlight in hit.highlights} == {SearchedField.DESCRIPTION}
    found = await data.projects.search(owner, "heron", include_public=True)
    assert sorted(hit.project.name for hit in found.hits) == ["Kept", "Shown"], "each once"
    assert {type(hit.project) for hit in found.hits} == {ProjectSummary}

    await data.projects.archive(owner, project_id)
    assert await find(data, stranger, "heron", include_public=True) == []
    await data.projects.unarchive(owner, project_id)
    async with data.transaction() as tx:
        (await tx.users.get(owner.user_id)).status = UserStatus.SUSPENDED  # type: ignore[arg-type]
    assert await find(data, stranger, "heron", include_public=True) == []


async def test_what_was_deleted_is_found_by_nobody(data: DataLayer, owner: Actor) -> None:
    stranger = await stored_actor(data)
    project_id = await project(data, owner, "Heron", is_public=True)
    assert await find(data, stranger, "heron", include_public=True) == ["Heron"]
    await data.projects.delete(owner, project_id)
    for actor in (stranger, owner):
        assert await find(data, actor, "heron", include_public=True) == []


async def test_a_search_indexes_what_its_owner_has_changed(data: DataLayer, owner: Actor) -> None:
    stranger = await stored_actor(data)
    mine, theirs = await project(data, owner), await project(data, stranger)
    async with data.transaction() as tx:
        changed = [await tx.project_search.find_changed(whose, after=None, limit=9) for whose in (owner.user_id, None)]
    assert changed == [[mine], sorted([mine, theirs], reverse=True)]


HOSTILE = "<script>alert(1)</script> kestrel <img src=x onerror=alert(1)> \"'&amp; \x02\x03\u202e </b>"


async def test_hostile_text_stays_text(data: DataLayer, owner: Actor) -> None:
    project_id = await project(data, owner, HOSTILE[:200], description=HOSTILE, tags=[HOSTILE])
    await page(
        data, owner, project_id, f"<script>var hidden</script><p title='{'x' * 9}'>{HOSTILE}</p>", prompt=HOSTILE
    )
    [hit] = (await data.projects.search(owner, "kestrel")).hits
    shown = {highlight.field: highlight for highlight in hit.highlights}
    assert shown.keys() == set(SearchedField) - {SearchedField.INSTRUCTIONS}
    assert shown[SearchedField.DESCRIPTION].text == HOSTILE, "neither escaped nor marked up"
    for highlight in shown.values():
        assert [highlight.text[start:end] for start, end in highlight.ranges] == ["kestrel"]
    assert await find(data, owner, "hidden") == await find(data, owner, "onerror -kestrel") == []


async def test_a_long_text_is_cut_around_what_was_found(data: DataLayer, owner: Actor) -> None:
    await project(data, owner, "Mine", description="word " * 1000 + "the kestrel and another kestrel" + " more" * 1000)
    [hit] = (await data.projects.search(owner, "kestrel")).hits
    [found] = hit.highlights
    assert len(found.text) < 200
    assert found.text.split()[0] == "word"
    assert [found.text[start:end] for start, end in found.ranges] == ["kestrel", "kestrel"]


async def test_words_of_any_length(data: DataLayer, owner: Actor) -> None:
    korean, ascii_word = "가" + "나다라" * 33_333, "x" * 100_000
    project_id = await project(data, owner, "Long", description=f"{ascii_word} heron")
    await page(data, owner, project_id, f"<p>{korean}</p>")
    assert await find(data, owner, "다라나다") == ["Long"]
    assert await find(data, owner, "가나다") == ["Long"]
    assert await find(data, owner, "x" * 500) == ["Long"]
    assert await find(data, owner, "heron") == ["Long"]
    with pytest.raises(InvalidValueError, match="500 characters"):
        await find(data, owner, "가" * 501)
    assert await find(data, owner, "가" * 500) == []
    assert await find(data, owner, "😀" * 500) == []


@pytest.mark.parametrize("kind", ["words", "characters", "syllables"])
async def test_a_page_with_more_words_than_fit(data: DataLayer, owner: Actor, kind: str) -> None:
    everything = {
        "words": " ".join(f"w{number:x}" for number in range(400_000)),
        "characters": "".join(chr(0x4E00 + number % 20_000) for number in range(1_500_000)),
        "syllables": " ".join(chr(0xAC00 + n % 11_000) + "x" + chr(0xAC00 + n // 7 % 11_000) for n in range(400_000)),
    }[kind]
    values: dict[str, Any] = {"description": everything[:500_000], "instructions": everything[:500_000]}
    project_id = await project(data, owner, "Mine", **values)
    await page(data, owner, project_id, f"<p>first {everything}", prompt=everything[:900_000])
    assert await find(data, owner, "first") == ["Mine"]
    assert await waiting(data) == 0


@pytest.mark.parametrize(
    "code",
    ["", "<", "<!--", "<script>", "\x00".replace("\x00", "\u2400"), "<a b='", "</p", "<![CDATA[", "&#xD800;&#0;&"],
)
async def test_a_spoilt_page_does_not_keep_the_rest_from_being_found(data: DataLayer, owner: Actor, code: str) -> None:
    project_id = await project(data, owner, "Mine")
    await page(data, owner, project_id, f"<p>before{code}", prompt="wanted")
    assert await find(data, owner, "wanted") == await find(data, owner, "before") == ["Mine"]


@pytest.mark.parametrize("limit", [0, MOST_HITS + 1, True, "1", None])
async def test_a_limit_out_of_range(data: DataLayer, owner: Actor, limit: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await data.projects.search(owner, "x", limit=limit)
    assert caught.value.field == "limit"


@pytest.mark.parametrize("text", [None, 1, b"x", "\x00", "\ud800"])
async def test_what_is_no_text(data: DataLayer, owner: Actor, text: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await data.projects.search(owner, text)
    assert caught.value.field == "text"


@pytest.mark.parametrize(
    "after", ["", "x", "e30", "W10", "WzEsMl0", "é", "W05hTiwieCJd", "a" * 9999, 1, "WzFlOTk5LDFd"]
)
async def test_what_is_no_cursor(data: DataLayer, owner: Actor, after: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await data.projects.search(owner, "x", after=after)
    assert caught.value.field == "after"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80))
async def test_nothing_that_can_be_typed_is_an_error(data: DataLayer, words: str) -> None:
    assert isinstance(await data.projects.search(SYSTEM, words), SearchPage)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60))
async def test_each_word_of_a_text_finds_it(data: DataLayer, words: str) -> None:
    owner = await person(data, "de")
    await project(data, owner, "Mine", description=words)
    for word in words_of(words):
        typed = words[word.start : word.end]
        assert await find(data, owner, f'"{typed}"') == ["Mine"], typed
        best = (await data.projects.search(owner, f'"{typed}"')).hits[0]
        assert any(h.field is SearchedField.DESCRIPTION and h.ranges for h in best.highlights), typed


async def test_of_two_that_index_a_project_the_one_that_knows_less_stores_nothing(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reads, the project changes, the other reads and stores, then the first one stores."""
    project_id = await project(data, owner, "Before")
    slow, read = SearchIndex(data.transaction), asyncio.Event()
    go_on = asyncio.Event()
    store = slow._store

    async def wait_and_store(*values: Any) -> None:
        read.set()
        await go_on.wait()
        await store(*values)

    monkeypatch.setattr(slow, "_store", wait_and_store)
    first = asyncio.create_task(slow.update(owner.user_id, seconds=0.0))
    await read.wait()
    opened = await data.projects.open(owner, project_id)
    await data.projects.update(owner, project_id, ProjectChanges(name="After"), expected=opened.revision)
    assert await find(data, owner, "after") == ["After"]
    go_on.set()
    await first
    assert await find(data, owner, "after") == ["After"]
    assert await find(data, owner, "before") == []


async def test_a_change_while_it_is_indexed_is_not_forgotten(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = await project(data, owner, "Before")
    index = SearchIndex(data.transaction)
    store = index._store

    async def change_and_store(*values: Any) -> None:
        monkeypatch.undo()
        opened = await data.projects.open(owner, project_id)
        await data.projects.update(owner, project_id, ProjectChanges(name="After"), expected=opened.revision)
        await store(*values)

    monkeypatch.setattr(index, "_store", change_and_store)
    await index.update(owner.user_id, seconds=0.0)
    assert await find(data, owner, "after") == ["After"]


async def test_a_project_that_is_removed_while_it_is_indexed(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = await project(data, owner, "Mine")
    index = SearchIndex(data.transaction)
    store = index._store

    async def remove_and_store(*values: Any) -> None:
        async with data.transaction() as tx:
            await tx.projects.delete(await tx.projects.get(project_id))
        await store(*values)

    monkeypatch.setattr(index, "_store", remove_and_store)
    await index.update(None, seconds=5.0)
    assert await find(data, SYSTEM, "mine") == []
    assert await waiting(data) == 0


async def test_a_search_does_not_fail_because_the_index_cannot_be_brought_up_to_date(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await project(data, owner, "Old")
    await find(data, owner, "old")
    await project(data, owner, "New")

    async def refuse(*_: Any, **__: Any) -> None:
        raise DatabaseError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("data_layer.repositories.project_search.ProjectSearchRepository.store", refuse)
        assert (await find(data, owner, "old"), await find(data, owner, "new")) == (["Old"], [])
    assert await find(data, owner, "new") == ["New"]


async def test_projects_that_cannot_be_indexed_keep_no_others_waiting(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [await project(data, owner, "Broken") for _ in range(3)]
    await project(data, owner, "Whole")
    index = SearchIndex(data.transaction)
    store, refused = index._store, list[UUID]()

    async def refuse_some(projects: Sequence[tuple[UUID, Any, Any]]) -> None:
        if unwanted := [project_id for project_id, *_ in projects if project_id in broken]:
            refused.extend(unwanted if len(projects) == 1 else [])
            raise DatabaseError("the disk is full")
        await store(projects)

    monkeypatch.setattr(index, "_store", refuse_some)
    for name, number in (("_LISTED", 3), ("_FIRST_BATCH", 2), ("_LARGEST_BATCH", 2)):
        monkeypatch.setattr(f"data_layer.services.search.index.{name}", number)
    assert await index.update(None, seconds=60.0) == Progress(1, is_complete=True)
    assert refused == broken[::-1]


async def test_a_search_waits_for_the_newest_only_and_the_rest_is_indexed_after_it(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_layer.services.search.index._FIRST_BATCH", 2)
    monkeypatch.setattr("data_layer.services.search.service._SECONDS_TO_INDEX", 0.0)
    for name in ("Oldest heron", "Older heron", "Old heron", "New heron", "Newest heron"):
        await project(data, owner, name)
    assert set(await find(data, owner, "heron")) == {"New heron", "Newest heron"}
    async with asyncio.timeout(60):
        while await waiting(data):
            await asyncio.sleep(0.01)
    assert len(await find(data, owner, "heron")) == 5


async def test_indexing_of_the_rest_lets_searches_go_first(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_layer.services.search.index._FIRST_BATCH", 2)
    monkeypatch.setattr("data_layer.services.search.service._SECONDS_TO_INDEX", 0.0)
    for number in range(5):
        await project(data, owner, f"Heron {number}")
    find_now = ProjectSearchRepository.find

    async def find_later(self: ProjectSearchRepository, *arguments: Any, **options: Any) -> Sequence[Found]:
        # Time enough for the rest to be indexed.
        still_waiting.extend([await self.count_changed() for _ in range(100)])
        return await find_now(self, *arguments, **options)

    still_waiting: list[int] = []
    monkeypatch.setattr(ProjectSearchRepository, "find", find_later)
    await find(data, owner, "heron")
    assert set(still_waiting) == {3}
    async with asyncio.timeout(60):
        while await waiting(data):
            await asyncio.sleep(0.01)


async def test_projects_are_indexed_in_few_round_trips(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large pages are read in groups, and with all of their words."""
    monkeypatch.setattr("data_layer.services.search.index._LARGEST_GROUP", 25)
    for number in range(5):
        await page(
            data, owner, await project(data, owner, f"P{number}"), f"<p>heron {number}", prompt=f"egret {number}"
        )
    begun = 0
    transaction = data.transaction

    def count() -> Any:
        nonlocal begun
        begun += 1
        return transaction()

    assert await SearchIndex(count).update(owner.user_id, seconds=60.0) == Progress(5, is_complete=True)
    assert begun == 1 + 1 + 2 * 3, "what has changed, what is known of it, and three groups of two pages"
    assert len(await find(data, owner, "heron egret")) == 5
    assert await find(data, owner, '"heron 3" "egret 3"') == ["P3"]


async def test_maintenance_indexes_what_nobody_has_looked_for(data: DataLayer, owner: Actor) -> None:
    await project(data, owner, "Mine")
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).projects_indexed == 1
    assert await waiting(data) == 1
    assert (await data.maintenance.run(SYSTEM)).projects_indexed == 1
    assert await waiting(data) == 0


async def test_components_are_searched_by_what_their_scripts_show(data: DataLayer, owner: Actor) -> None:
    project_id = await project(data, owner, "Mine")
    code = """<div id="root"></div><script type="text/babel">
        const ROWS = [{ name: "Café Möwe", path: "M4 12 12 4l8" }];
        function Page() { return <ul className="flex gap-2"><li key="x">Latest orders {ROWS[0].name}</li></ul>; }
    </script>"""
    async with data.transaction() as tx:
        values: dict[str, Any] = {"provider": "openai", "model": "m", "status": GenerationStatus.COMPLETED}
        tx.add(GeneratedCode(project_id=project_id, code=code, code_stack=CodeStack.REACT_TAILWIND, **values))
    for words in ("Möwe", "latest orders"):
        assert await find(data, owner, words) == ["Mine"], words
    for words in ("function", "flex", "className", "root"):
        assert await find(data, owner, words) == [], words


async def test_an_account_that_is_erased_leaves_nothing_to_find(data: DataLayer, owner: Actor) -> None:
    await page(data, owner, await project(data, owner, "Mine"), "<p>kestrel")
    assert await find(data, owner, "kestrel") == ["Mine"]
    await data.accounts.delete(SYSTEM, owner.user_id)  # type: ignore[arg-type]
    assert await find(data, SYSTEM, "kestrel") == []
    async with data.transaction() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM project_search"))).scalar_one() == 0


async def test_a_search_does_not_wait_for_parallel_workers(data: DataLayer) -> None:
    async def workers() -> int:
        return int((await tx.execute(text("SHOW max_parallel_workers_per_gather"))).scalar_one())

    async with data.transaction() as tx:
        usual = await workers()
    async with data.transaction() as tx:
        await tx.project_search.parse([("english", "landing")])
        assert await workers() == 0
    async with data.transaction() as tx:
        assert await workers() == usual > 0
