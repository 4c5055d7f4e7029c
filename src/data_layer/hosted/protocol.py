"""Everything that we know of the hosted application's calls: their paths, their fields, and how prompts are written.

It is an outside protocol, which changes without asking us; nothing of it stands in another module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from data_layer.entities.enums import CodeStack, ImageKind, ImageProvider, InputMode, RequestType
from data_layer.errors import InvalidValueError
from data_layer.schemas.generations import GenerationPage, VariantModel, VariantResult
from data_layer.schemas.images import NewImage
from data_layer.schemas.usage import BudgetView
from data_layer.schemas.users import UserFull
from data_layer.services.generations.text import storable_json
from data_layer.services.transfer.conversations import Prompt, read_model

SOURCE = "hosted"
"""The name of the application where generations come from."""

STORE_BYTES = 64 * 2**20
"""Of the body of /generations/store: a video of 20 MB twice, in the prompt and by itself, in Base64."""
ASSET_BYTES = 28 * 2**20
"""Of the body of /assets/store_image_data: 20 MiB in Base64."""
ASSET_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
LARGEST_ASSET = 20 * 2**20
PAGE_SIZE = 24
"""Projects on a page."""

TIER = "pro"
"""Of everybody: without a tier their page shows its paywall."""
HAS_CREDITS, HAS_NO_CREDITS = "subscriber_has_credits", "subscriber_has_no_credits"
UNLIMITED = 1_000_000
"""Monthly credits of somebody without a budget. A credit is a cent of a US dollar."""
PREFERENCES = "screenshot_to_code"
"""Where the preferences of an account hold what the page wants to remember."""
_SEEN = "whats_new_seen_version"

_LARGEST_COUNT = 2**31 - 1
_IMAGE_KINDS = {
    "user_upload": ImageKind.UPLOADED,
    "extracted": ImageKind.EXTRACTED,
    "generated": ImageKind.GENERATED,
    "background_removed": ImageKind.BACKGROUND_REMOVED,
    "edited": ImageKind.EDITED,
}
_IMAGE_PROVIDERS = {"replicate": ImageProvider.REPLICATE, "openai": ImageProvider.OPENAI}


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """The body of a call to /generations/store. ``variant_index`` counts from 0, as everywhere inside."""

    user_id: str
    group_id: str
    variant_index: int
    request_type: RequestType
    input_mode: InputMode
    stack: CodeStack
    code: str
    model: VariantModel
    result: VariantResult
    duration: float
    prompt: Prompt
    base_variant_index: int | None
    video: str | None
    notes: dict[str, Any] = field(default_factory=dict)


def read_store(body: Mapping[str, Any], prompt: Prompt) -> StoredGeneration:
    """Read the body of /generations/store.

    Details about a page are read leniently, because the call is never repeated: a figure that makes no sense must not
    lose the page.

    Args:
        body: the JSON.
        prompt: its field ``prompt``, read.

    Raises:
        InvalidValueError: what a page cannot be stored without is missing.
    """
    details = body.get("other_info")
    details = details if isinstance(details, Mapping) else {}
    is_imported = body.get("is_imported_from_code") is True
    update = details.get("generation_type") == "update" or prompt.base_code is not None
    duration = _number(body.get("duration")) or 0.0
    model = read_model(body.get("llm_version"))
    kept = ("edit_base_model", "edit_base_variant_index", "edit_base_generation_type", "generation_type")
    return StoredGeneration(
        user_id=require_text(body, "user_id"),
        group_id=require_text(body, "generation_group_id"),
        variant_index=max(_count(details.get("variant_index")) or 1, 1) - 1,
        request_type=RequestType.UPDATE if update else RequestType.CREATE,
        input_mode=_one_of(InputMode, body.get("input_mode"), InputMode.IMAGE),
        stack=_one_of(CodeStack, body.get("stack"), CodeStack.HTML_TAILWIND),
        code=require_text(body, "completion"),
        model=model,
        result=_read_usage(body.get("llm_usage"), model, duration),
        duration=duration,
        prompt=prompt,
        base_variant_index=_count(details.get("edit_base_variant_index")) if update else None,
        video=_text(body.get("video_data_url")),
        notes={
            "payment_method": _text(body.get("payment_method")) or "unknown",
            "is_imported_from_code": is_imported,
            "includes_result_image": body.get("includes_result_image") is True,
            **{name: details[name] for name in kept if isinstance(details.get(name), str | int)},
        },
    )


def image_kind(source_type: Any) -> ImageKind:
    """How an image came about.

    Raises:
        InvalidValueError: in a way that is not known.
    """
    kind = _IMAGE_KINDS.get(source_type) if isinstance(source_type, str) else None
    if kind is None:
        raise InvalidValueError(f"source_type must be one of {', '.join(_IMAGE_KINDS)}", field="source_type")
    return kind


def made_image(body: Mapping[str, Any]) -> NewImage:
    """What the body of /assets/store_image_url says of an image; leniently, as of a page.

    Raises:
        InvalidValueError: it came about in a way that is not known.
    """
    provider, group = body.get("source_provider"), _text(body.get("generation_group_id"))
    index = _count(body.get("variant_index"))
    origin = {"generation_group_id": group, "variant_index": None if index is None else max(index, 1) - 1}
    return NewImage(
        prompt=storable_json(_text(body.get("prompt")) or ""),
        kind=image_kind(body.get("source_type")),
        provider=_IMAGE_PROVIDERS.get(provider, ImageProvider.OTHER)
        if isinstance(provider, str)
        else ImageProvider.OTHER,
        model=storable_json((_text(body.get("image_generation_model")) or "")[:100]),
        metadata=storable_json({name: value for name, value in origin.items() if value is not None}),
    )


def require_text(body: Mapping[str, Any], name: str) -> str:
    """Return a text of a body.

    Raises:
        InvalidValueError: it is missing, blank or not a text.
    """
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidValueError(f"{name} must be a text that is not empty", field=name)
    return value


def shown_user(user: UserFull) -> dict[str, Any]:
    """The answer of /users/create."""
    remembered = user.preferences.get(PREFERENCES)
    seen = remembered.get(_SEEN) if isinstance(remembered, Mapping) else None
    return {
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "subscriber_tier": TIER,
        "stripe_customer_id": None,
        "stripe_subscription_id": None,
        "stripe_price_lookup_key": None,
        "billing_interval": None,
        "subscription_status": "active",
        "current_period_end": None,
        "cancel_at_period_end": False,
        _SEEN: seen,
    }


def seen_version(version: Any) -> dict[str, Any]:
    """What the preferences remember of a version whose news were read.

    Raises:
        InvalidValueError: it is not a version.
    """
    if isinstance(version, bool) or not isinstance(version, str | int) or len(str(version)) > 100:
        raise InvalidValueError("version must be a text or a number", field="version")
    return {PREFERENCES: {_SEEN: version}}


def shown_usage(budget: BudgetView | None, spent: Decimal) -> dict[str, Any]:
    """The answer of /credits/usage."""
    limit = UNLIMITED if budget is None else _credits(budget.monthly_limit)
    return {
        "total_monthly_credits": limit,
        "used_monthly_credits": _credits(spent if budget is None else budget.spent),
        "monthly_credit_limit": limit,
        "extra_credits_remaining": 0,
        "extra_credits_next_expiration": None,
        "extra_credit_grants": [],
    }


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def shown_page(found: GenerationPage, page: int) -> dict[str, Any]:
    """The answer of /generations/view: each request is one of their projects, with its variants by index."""
    projects = []
    for each in found.generations:
        group_id = each.external_key or str(each.id)
        variants = [
            {
                "id": str(code.id),
                "date_created": shown_time(code.created_at),
                "completion": code.code,
                "stack": code.code_stack.value,
                "generation_group_id": group_id,
            }
            for code in each.variants
        ]
        projects.append(
            {
                "id": str(each.id),
                "generation_group_id": group_id,
                "date_created": shown_time(each.started_at),
                "generations": variants,
            }
        )
    return {
        "projects": projects,
        "generations": [],  # What stands in projects need not be sent twice.
        "total_count": found.total,
        "page": page,
        "page_size": PAGE_SIZE,
        "total_pages": -(-found.total // PAGE_SIZE),
    }


def shown_time(at: datetime) -> str:
    """A time as the page reads it: in UTC, with a Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _credits(amount: Decimal) -> int:
    return int((amount * 100).to_integral_value())


def _read_usage(usage: Any, model: VariantModel, duration: float) -> VariantResult:
    given = usage if isinstance(usage, Mapping) else {}
    return VariantResult(
        model=model,
        prompt_tokens=_count(given.get("llm_input_tokens")),
        completion_tokens=_count(given.get("llm_output_tokens")),
        cache_read_tokens=_count(given.get("llm_cache_read_tokens")),
        cache_write_tokens=_count(given.get("llm_cache_write_tokens")),
        cost=_cost(given.get("llm_cost_usd")),
        generation_time_seconds=duration,
    )


def _cost(value: Any) -> Decimal | None:
    if _number(value) is None:
        return None
    try:
        return round(Decimal(str(value)), 8)
    except InvalidOperation:
        return None


def _number(value: Any) -> float | None:
    """A number that can be stored, not below 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _LARGEST_COUNT and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    number = _number(value)
    return None if number is None else int(number)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _one_of(kind: Any, value: Any, otherwise: Any) -> Any:
    """A member of an enumeration; another one where their word means nothing here."""
    try:
        return kind(value)
    except ValueError:
        return otherwise
