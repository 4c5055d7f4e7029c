from __future__ import annotations

import pytest

from data_layer import DataLayer
from data_layer.errors import NotFoundError
from tests.support import make_project, make_user


async def test_the_newest_projects_of_all_users_come_first(data: DataLayer) -> None:
    users = [make_user() for _ in range(3)]
    projects = [make_project(users[number % 3], name=f"project {number}") for number in range(7)]
    for row in (*users, *projects):
        # One transaction each, because the database takes its time for what changed.
        async with data.transaction() as tx:
            tx.add(row)
    async with data.transaction() as tx:
        (await tx.projects.get(projects[2].id)).description = "changed last"
    found = await data.projects.recent(limit=4)
    assert [project.name for project in found] == ["project 2", "project 6", "project 5", "project 4"]
    owners = {user.id: user.email for user in users}
    assert [project.owner for project in found] == [owners[project.user_id] for project in found]


async def test_a_project_of_an_erased_account_is_gone(data: DataLayer) -> None:
    user = make_user()
    project = make_project(user)
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)
    async with data.transaction() as tx:
        await tx.users.delete(await tx.users.get(user.id))
    assert await data.projects.recent() == []
    with pytest.raises(NotFoundError):
        await data.projects.details(str(project.id))
