"""What a search of projects finds, whose it is, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from data_layer import DataLayer
from data_layer.errors import InvalidValueError
from tests.support import make_project, make_user


async def test_a_search_finds_the_projects_of_its_owner_only_best_first(data: DataLayer) -> None:
    ada, mio = make_user(), make_user()
    rows = [
        make_project(ada, name="Shop", description="pricing page"),
        make_project(ada, name="Pricing page", tags=["pricing"]),
        make_project(ada, name="Portfolio"),
        make_project(mio, name="Pricing page of Mio", instructions="a pricing page"),
    ]
    async with data.transaction() as tx:
        for row in (ada, mio, *rows):
            tx.add(row)
    async with data.transaction() as tx:

        async def names(words: str, **options: Any) -> list[str]:
            return [project.name for project in await tx.projects.search(words, **options)]

        assert await names("pricing", user_id=ada.id) == ["Pricing page", "Shop"]
        assert await names("pricing", user_id=mio.id) == ["Pricing page of Mio"]
        assert await names("pricing", user_id=make_user().id) == []
        assert set(await names("pricing")) == {"Shop", "Pricing page", "Pricing page of Mio"}
        assert await names('"page of Mio"') == ["Pricing page of Mio"]
        assert await names("pricing -shop", user_id=ada.id) == ["Pricing page"]
        assert set(await names("shop or portfolio")) == {"Shop", "Portfolio"}
        assert await names("pricing", user_id=ada.id, limit=1) == ["Pricing page"]
        assert await names("nothing like it") == []


@pytest.mark.parametrize(("words", "limit"), [("a\0b", 50), ("\ud800", 50), (5, 50), ("a", 0), ("a", -1), ("a", 10**6)])
async def test_what_cannot_be_searched_is_refused(data: DataLayer, words: Any, limit: int) -> None:
    async with data.transaction() as tx:
        with pytest.raises(InvalidValueError) as raised:
            await tx.projects.search(words, limit=limit)
    assert raised.value.field in {"words", "limit"}
