"""Store a real generation and read it back, byte for byte, with servers that this program brings along.

Run it with: python examples/quickstart.py [FOLDER]
Without FOLDER everything is kept in a temporary folder that is removed at the end.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from importlib import resources
from pathlib import Path

from data_layer import (
    AuditAction,
    AuditLog,
    CodeStack,
    DataLayer,
    GeneratedCode,
    GenerationProvider,
    GenerationStatus,
    GenerationType,
    Project,
    Settings,
    User,
)

EXAMPLES = resources.files("data_layer") / "seed_data"
PAGES = [EXAMPLES / "pages" / "recipe-article" / f"v{number}.html" for number in (1, 2, 3)]
SCREENSHOT = EXAMPLES / "screenshots" / "recipe-article.png"


async def store(data: DataLayer) -> Project:
    """A user, a project with its screenshot, and three versions of a page, each made from the one before."""
    user = User(email="ada@example.com", first_name="Ada", last_name="Example")
    project = Project(user_id=user.id, name="Plum cake", tags=["recipe", "article"])
    project.original_image = f"projects/{project.id}/screenshot.png"
    screenshot = SCREENSHOT.read_bytes()
    url = await data.storage.upload(screenshot, project.original_image, "image/png")
    print(f"stored the screenshot   {len(screenshot):>7,} bytes   {url}")

    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)
        tx.add(AuditLog.data_action(AuditAction.PROJECT_CREATE, user.id, "project", project.id, "Project created"))
    parent = None
    for page in PAGES:
        code = GeneratedCode(
            project_id=project.id,
            code=page.read_text(encoding="utf-8"),
            code_stack=CodeStack.HTML_CSS,
            provider=GenerationProvider.CLAUDE,
            model="claude-sonnet-4-5",
            status=GenerationStatus.COMPLETED,
            generation_type=GenerationType.UPDATE if parent else GenerationType.CREATE,
            parent_id=parent,
        )
        async with data.transaction() as tx:
            tx.add(code)
            tx.add(AuditLog.data_action(AuditAction.CODE_GENERATE, user.id, "generated_code", code.id, "Generated"))
        print(f"stored version {code.version}        {len(code.code.encode()):>7,} bytes   {page.name}")
        parent = code.id
    return project


async def read_back(data: DataLayer, project: Project) -> None:
    """Everything is what it was."""
    async with data.transaction() as tx:
        stored = await tx.projects.get(project.id)
        owner = await tx.users.find_one(email="ADA@EXAMPLE.COM")
        codes = await tx.codes.list(project_id=project.id, order_by="version")
        entries = await tx.audit.count(user_id=stored.user_id)
    if owner is None or stored.original_image is None:
        raise SystemExit("the user or the screenshot is missing")
    same = [code.code.encode() == page.read_bytes() for code, page in zip(codes, PAGES, strict=True)]
    screenshot = await data.storage.download(stored.original_image)
    if not all(same) or screenshot != SCREENSHOT.read_bytes():
        raise SystemExit("something came back different")
    print(f"read back               {len(codes)} versions and the screenshot, byte for byte the same")
    print(f"owner                   {owner.first_name} {owner.last_name}, {entries} entries in the audit trail")


async def main(folder: Path) -> None:
    """Open, store, close; open again and read: what was stored outlives the process."""
    settings = Settings(data_folder=folder / "servers", local_storage_path=folder / "uploads")
    async with DataLayer(settings) as data:
        project = await store(data)
    async with DataLayer(settings) as data:
        await data.cache.set("greeting", {"hello": "cache"}, ttl=60)
        print(f"cached                  {await data.cache.get('greeting')}")
        await read_back(data, project)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory(prefix="quickstart-") as temporary:
            asyncio.run(main(Path(temporary)))
