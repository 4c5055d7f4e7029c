"""The rows of the example data, made from ``seed_data/catalog.json``."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any
from uuid import UUID

from data_layer.entities import AuditLog, GeneratedCode, GeneratedImage, Project, Session, User
from data_layer.entities.enums import GenerationStatus, ImageProvider

# The time in the ids of seeded rows; what the rows say of their age is counted back from the day of seeding.
_ID_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_CONTENT_TYPES = {".png": "image/png", ".webp": "image/webp"}


EXAMPLE = "example"
"""Key in the context of an audit entry that holds its number in the example data."""


@cache
def catalog() -> dict[str, Any]:
    """The whole story, as the file tells it."""
    catalog: dict[str, Any] = json.loads(file_of("catalog.json").read_text(encoding="utf-8"))
    return catalog


def content_type_of(path: str) -> str:
    """The media type of an image of the example data."""
    return _CONTENT_TYPES[f".{path.rsplit('.', 1)[1]}"]


def file_of(path: str) -> Traversable:
    """A file of the example data, also from inside a zip."""
    return resources.files("data_layer").joinpath("seed_data", *path.split("/"))


def fixed_id(table: str, key: object, time: datetime = _ID_TIME) -> UUID:
    """An id that is the same at every load: a UUIDv7 (RFC 9562, 5.7) whose random bits are a hash."""
    milliseconds = int(time.timestamp() * 1000)
    digest = int.from_bytes(hashlib.sha256(f"{table}/{key}".encode()).digest()[:10])
    variant_and_rest = (0b10 << 62) | (digest & ((1 << 62) - 1))
    return UUID(int=(milliseconds << 80) | (0x7 << 76) | ((digest >> 62 & 0xFFF) << 64) | variant_and_rest)


def make_user(entry: dict[str, Any], now: datetime) -> User:
    """A user."""
    copied = ("email", "first_name", "last_name", "display_name", "role", "status", "auth_provider", "preferences")
    created = now - timedelta(days=entry["days_ago"])
    return User(
        id=fixed_id("users", entry["key"]),
        **_only(entry, *copied),
        email_verified=entry["email_verified"],
        email_verified_at=created if entry["email_verified"] else None,
        last_login_at=now - timedelta(hours=entry["last_login_hours_ago"]),
        last_login_ip=entry["last_login_ip"],
        created_at=created,
    )


def make_project(entry: dict[str, Any], created: datetime, screenshot: str) -> Project:
    """A project that refers to its stored screenshot."""
    copied = ("name", "description", "type", "status", "tags", "instructions", "is_public", "is_favorite", "settings")
    return Project(
        id=fixed_id("projects", entry["key"]),
        user_id=fixed_id("users", entry["owner"]),
        **_only(entry, *copied),
        original_image=screenshot,
        original_image_filename=entry["screenshot_filename"],
        original_image_size=len(file_of(entry["screenshot"]).read_bytes()),
        original_image_mime_type="image/png",
        created_at=created,
    )


def make_codes(entry: dict[str, Any], created: datetime) -> list[GeneratedCode]:
    """The versions of a project, in the order in which they are numbered."""
    return [_code(entry, number, created) for number in range(len(entry["codes"]))]


def _code(entry: dict[str, Any], number: int, created: datetime) -> GeneratedCode:
    version: dict[str, Any] = entry["codes"][number]
    places = {"file", "code", "parent", "generation", "minutes_after_project"}
    made = created + timedelta(minutes=version["minutes_after_project"])
    tokens = [version.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return GeneratedCode(
        id=fixed_id("codes", f"{entry['key']}/{number}"),
        project_id=fixed_id("projects", entry["key"]),
        code=file_of(version["file"]).read_text(encoding="utf-8") if version.get("file") else "",
        code_stack=entry["code_stack"],
        parent_id=None if version["parent"] is None else fixed_id("codes", f"{entry['key']}/{version['parent']}"),
        generation_id=fixed_id("generations", f"{entry['key']}/{version['generation']}"),
        total_tokens=sum(token or 0 for token in tokens) or None,
        created_at=made,
        updated_at=made,
        **{name: value for name, value in version.items() if name not in places},
    )


def make_image(entry: dict[str, Any], image: dict[str, Any], created: datetime, key: str) -> GeneratedImage:
    """A generated image that refers to its stored file."""
    width, height = map(int, image["size"].split("x"))
    copied = (
        *("name", "prompt", "revised_prompt", "model", "size", "quality", "style", "seed"),
        *("generation_time_seconds", "is_favorite", "rating"),
    )
    return GeneratedImage(
        id=fixed_id("images", f"{entry['key']}/{image['file']}"),
        project_id=fixed_id("projects", entry["key"]),
        provider=ImageProvider(image["provider"]),
        **_only(image, *copied),
        status=GenerationStatus.COMPLETED,
        storage_key=key,
        mime_type=content_type_of(key),
        file_size=len(file_of(image["file"]).read_bytes()),
        width=width,
        height=height,
        created_at=created + timedelta(minutes=image.get("minutes_after_project", 5)),
    )


def make_session(number: int, entry: dict[str, Any], now: datetime) -> Session:
    """A session."""
    copied = (
        *("type", "status", "device_type", "browser", "browser_version", "operating_system", "os_version"),
        *("country", "city", "timezone", "ip_address", "user_agent"),
    )
    started = now - timedelta(hours=entry["hours_ago"])
    return Session(
        id=fixed_id("sessions", number),
        # No token has this hash, so nobody can use an example session.
        session_id=hashlib.sha256(f"example session {number}".encode()).hexdigest(),
        user_id=fixed_id("users", entry["user"]),
        **_only(entry, *copied),
        expires_at=started + timedelta(hours=entry["lifetime_hours"]),
        last_active_at=started,
        revoked_at=now - timedelta(hours=entry["revoked_hours_ago"]) if "revoked_hours_ago" in entry else None,
        revoked_reason=entry.get("revoked_reason"),
        created_at=started,
    )


def make_audit(number: int, entry: dict[str, Any], now: datetime) -> AuditLog:
    """One entry of the audit trail."""
    copied = (
        *("action", "level", "category", "description", "details", "resource_type", "ip_address"),
        *("old_values", "new_values", "is_success", "error_message", "duration", "source"),
    )
    created = now - timedelta(hours=entry["hours_ago"])
    return AuditLog(
        # Entries lie in the table by the time in their id, so here it is that of the event.
        id=fixed_id("audit", number, created),
        context={EXAMPLE: number},
        user_id=None if entry["user"] is None else fixed_id("users", entry["user"]),
        **_only(entry, *copied),
        resource_id=_resource_id(entry),
        created_at=created,
    )


def _resource_id(entry: dict[str, Any]) -> str | None:
    match entry.get("resource_type"), entry.get("resource"):
        case "project", str() as key:
            return str(fixed_id("projects", key))
        case "generated_code", str() as key:
            return str(fixed_id("codes", f"{key}/{entry.get('code', 0)}"))
        case "user", _ if entry["user"] is not None:
            return str(fixed_id("users", entry["user"]))
        case _:
            return None


def _only(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: entry[name] for name in names if name in entry}
