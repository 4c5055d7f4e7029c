"""Example data: three users, a dozen projects with real pages and screenshots, and what happened around them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data_layer.schemas.base import Value
from data_layer.services.arguments import checks_arguments
from data_layer.services.seed_rows import (
    EXAMPLE,
    catalog,
    content_type_of,
    file_of,
    fixed_id,
    make_audit,
    make_codes,
    make_image,
    make_project,
    make_session,
    make_user,
)

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import Transactions
    from data_layer.storage import Storage


class SeedReport(Value):
    """How many rows were added; all are zero when everything was there."""

    users: int = 0
    projects: int = 0
    codes: int = 0
    images: int = 0
    sessions: int = 0
    audit_entries: int = 0


@checks_arguments
class SeedService:
    """Loads the example data. Its rows have fixed ids, so that loading again adds only what is missing."""

    def __init__(self, transactions: Transactions, storage: Storage) -> None:
        self._transactions = transactions
        self._storage = storage

    async def load_once(self, on_progress: Callable[[str], None] = lambda _: None) -> SeedReport:
        """Load it unless that was done before: rows deleted since then do not come back."""
        last = len(catalog()["audit"]) - 1
        async with self._transactions() as tx:
            loaded = await tx.audit.find_one(context={EXAMPLE: last})
        return SeedReport() if loaded else await self.load(on_progress)

    async def load(self, on_progress: Callable[[str], None] = lambda _: None) -> SeedReport:
        """Add what is missing.

        Args:
            on_progress: gets the name of each project that was added.

        Raises:
            DuplicateError: when someone else has an e-mail address of the example data.
        """
        now = datetime.now(UTC)
        counts = {"users": await self._load_users(now)}
        for entry in catalog()["projects"]:
            if await self._load_project(entry, now - timedelta(days=entry["days_ago"])):
                on_progress(entry["name"])
                counts["projects"] = counts.get("projects", 0) + 1
                counts["codes"] = counts.get("codes", 0) + len(entry["codes"])
                counts["images"] = counts.get("images", 0) + len(entry.get("images", []))
        counts["sessions"] = await self._load_sessions(now)
        counts["audit_entries"] = await self._load_audit(now)
        return SeedReport(**counts)

    async def _load_users(self, now: datetime) -> int:
        loaded = 0
        async with self._transactions() as tx:
            for entry in catalog()["users"]:
                if await tx.users.find_one(id=fixed_id("users", entry["key"])) is None:
                    user = make_user(entry, now)
                    tx.add(user)
                    await tx.users.increment(user.id, "login_count", amount=entry["login_count"])
                    loaded += 1
        return loaded

    async def _load_project(self, entry: dict[str, Any], created: datetime) -> bool:
        async with self._transactions() as tx:
            if await tx.projects.find_one(id=fixed_id("projects", entry["key"])) is not None:
                return False
        # Files come before the rows that name them, and outside of the transaction.
        screenshot = await self._store(entry["screenshot"])
        images = [
            make_image(entry, image, created, await self._store(image["file"])) for image in entry.get("images", [])
        ]
        async with self._transactions() as tx:
            project = make_project(entry, created, screenshot)
            codes = make_codes(entry, created)
            for row in (project, *codes, *images):
                tx.add(row)
            await tx.flush()
            project.last_generated_at = project.updated_at = codes[-1].created_at
        return True

    async def _store(self, path: str) -> str:
        key = f"seed/{path}"
        await self._storage.upload(file_of(path).read_bytes(), key, content_type_of(path))
        return key

    async def _load_sessions(self, now: datetime) -> int:
        loaded = 0
        async with self._transactions() as tx:
            for number, entry in enumerate(catalog()["sessions"]):
                if await tx.sessions.find_one(id=fixed_id("sessions", number)) is None:
                    session = make_session(number, entry, now)
                    tx.add(session)
                    await tx.sessions.increment(session.id, "request_count", amount=entry["request_count"])
                    loaded += 1
        return loaded

    async def _load_audit(self, now: datetime) -> int:
        entries = catalog()["audit"]
        async with self._transactions() as tx:
            missing = [n for n in range(len(entries)) if await tx.audit.find_one(context={EXAMPLE: n}) is None]
            for number in missing:
                tx.add(make_audit(number, entries[number], now))
        return len(missing)
