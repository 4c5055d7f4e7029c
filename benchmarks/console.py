"""``make bench-console``: how long the pages of the console take with 10,000 projects, 300 versions, 5 MiB.

Each page is asked for in this process, without a network; stated are the median and the slowest of the rounds, after
one that is not counted, and the processor time of this process, without PostgreSQL, which says something on a busy
machine too. The goal is 200 ms. The first searches come right after 10,000 projects, while most of them
are not yet indexed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from data_layer import DataLayer, Project, Settings
from data_layer.entities.enums import ProjectStatus, UserRole
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.generations import FinishedVariant, GenerationRequest
from data_layer.schemas.projects import ProjectDraft
from data_layer.server.faces import whole_application

GOAL_MS = 200
PROJECTS, VERSIONS, BATCH = 10_000, 300, 1000
PAGE = "<!doctype html>\n" + "<p class='text-slate-700'>Everything that a page of this kind says</p>\n" * 160
LARGE = "<p>A line of a page that is as large as one may be</p>\n" * 95_000
PASSWORD = "correct horse battery staple"  # noqa: S105  (of an account that lives for a minute)


async def fill(data: DataLayer) -> dict[str, str]:
    """Make the rows; the addresses to measure, by their names."""
    user = await data.accounts.create(
        SYSTEM,
        email="bench@example.com",
        first_name="Bench",
        last_name="Mark",
        password=PASSWORD,
        role=UserRole.ADMIN,
        email_verified=True,
    )
    for start in range(0, PROJECTS, BATCH):
        async with data.transaction() as tx:
            for number in range(start, start + BATCH):
                name = f"Landing page {number}"
                tx.add(Project(user_id=user.id, name=name, tags=["landing"], status=ProjectStatus.ACTIVE))
    actor = Actor.user(user.id, UserRole.ADMIN)
    long = await data.projects.create(actor, ProjectDraft(name="Many versions"))
    parent = None
    for number in range(VERSIONS):
        code = PAGE + f"<!-- {number} -->\n" * (number % 7)
        request = GenerationRequest(prompt=f"Change {number}", parent_id=parent)
        done = await data.generations.record(actor, long.id, request, [FinishedVariant(code=code)])
        parent = done.variant_ids[0]
    large = await data.projects.create(actor, ProjectDraft(name="A large page"))
    for text in (LARGE, LARGE.replace("A line", "One line", 3)):
        await data.generations.record(actor, large.id, GenerationRequest(), [FinishedVariant(code=text)])
    first = await data.projects.list(actor)
    home, other = f"/console/projects/{long.id}", f"/console/projects/{large.id}"
    return {
        "projects": "/console/projects",
        "projects by name": "/console/projects?order=name",
        "the next page": f"/console/projects?after={first.next}",
        "search, which indexes": "/console/projects?q=landing+4711",
        "project, 300 versions": home,
        "code": f"{home}/code",
        "compare": f"{home}/compare",
        "code of 5 MiB": f"{other}/code",
        "compare 5 MiB": f"{other}/compare",
        "page of 5 MiB": f"{other}/page",
        "account": "/console/account",
        "usage": "/console/account/usage",
        "people": "/console/admin/people",
        "audit trail": "/console/admin/audit",
        "usage of all": "/console/admin/usage",
        "health": "/console/admin/system",
    }


async def measure(client: httpx.AsyncClient, address: str, rounds: int) -> list[tuple[float, float]]:
    """Milliseconds of each round, and those of the processor."""
    found = []
    for _ in range(rounds + 1):
        started, worked = time.perf_counter(), time.process_time()
        answer = await client.get(address)
        found.append(((time.perf_counter() - started) * 1000, (time.process_time() - worked) * 1000))
        assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return found[1:]


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="dl-", ignore_cleanup_errors=True) as folder:
        settings = Settings(
            data_folder=Path(folder) / "data",
            local_storage_path=Path(folder) / "uploads",
            log_level="error",
            request_limit_person=0,
        )
        async with DataLayer(settings, prepare=True) as data:
            addresses = await fill(data)
            gc.freeze()  # As a process that serves does.
            transport = httpx.ASGITransport(whole_application(data))
            async with httpx.AsyncClient(transport=transport, base_url="https://bench", timeout=60) as client:
                answer = await client.post("/console/login", data={"email": "bench@example.com", "password": PASSWORD})
                assert answer.status_code == 303
                table = Table(
                    "Page", "Median ms", "Slowest ms", "Processor ms", title=f"{PROJECTS} projects, {VERSIONS} versions"
                )
                for name, address in addresses.items():
                    found = await measure(client, address, rounds)
                    median, worked = (statistics.median(each) for each in zip(*found, strict=True))
                    style = "bold red" if median > GOAL_MS else ""
                    table.add_row(name, f"{median:.0f}", f"{max(found)[0]:.0f}", f"{worked:.0f}", style=style)
                Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(main(parser.parse_args().rounds))
