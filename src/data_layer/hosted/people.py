"""The calls of the hosted application's page, each for the person whose token comes with it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from fastapi import HTTPException, Response

from data_layer.concurrency import SingleFlight
from data_layer.errors import CacheError, DatabaseError, InvalidValueError
from data_layer.hosted import protocol
from data_layer.hosted.routes import Call, HostedRoutes, by_person, by_person_first, json_answer
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.schemas.actors import Actor
from data_layer.web.deadlines import HAS_CREDITS
from data_layer.web.design_systems import DESIGNS_PATH, answer_designs

log = get_log(__name__)

_REMEMBERED_SECONDS = 600
_ASKED_SECONDS = 3.0
"""How long the database may take to say who may generate."""
_ENTITLEMENT_SECONDS = 8.0
"""Within which that is answered or refused: their back end does not wait much longer."""
_MOST_DELETED = 1000
_FEEDBACK_TYPE = "application/json"
_NAMESPACE = UUID("6d3a1c52-3f43-4a0e-9a53-0f8f6d4a7a11")


def page_routes() -> HostedRoutes:
    """Return the calls of the page."""
    routes, entitlement = HostedRoutes(), Entitlement()
    for method, path, handler in (
        ("POST", "/users/create", _create_user),
        ("POST", "/users/whats-new/seen", _remember_version),
        ("POST", "/credits/free_trial_usage", _show_trial),
        ("POST", "/credits/usage", _show_usage),
        ("GET", "/generations/view", _view),
        ("POST", "/generations/delete", _delete),
        ("POST", "/generations/feedback", _rate),
        ("POST", "/feedback/submit", _take_feedback),
        ("POST", "/payments/create_checkout_session", _refuse_payment),
        ("POST", "/payments/create_extra_credit_checkout_session", _refuse_payment),
        ("POST", "/payments/create_portal_session", _refuse_payment),
    ):
        routes.add(method, path, handler, authorize=by_person)
    routes.add("POST", HAS_CREDITS, entitlement.has_credits, authorize=by_person_first, seconds=_ENTITLEMENT_SECONDS)
    for method, path in (("GET", ""), ("POST", ""), ("PATCH", "/{design_id}"), ("DELETE", "/{design_id}")):
        routes.add(method, DESIGNS_PATH + path, _answer_designs, authorize=by_person)
    return routes


def reservation_of(user_id: UUID) -> UUID:
    """The id of what is set aside for what a person generates: one for all that runs at once."""
    return uuid5(_NAMESPACE, str(user_id))


class Entitlement:
    """Says who may generate."""

    def __init__(self) -> None:
        # A silent database keeps one connection for a person, and nobody waits until it is given up.
        self._asked: SingleFlight[UUID, bool] = SingleFlight("entitlement", cancel_abandoned=True)

    async def has_credits(self, call: Call) -> dict[str, Any]:
        """Say whether the person may generate, also while the database is away: their page waits for it."""
        return {"user_id": str(call.user_id), "status": await self._status(call.data, call.actor, call.user_id)}

    async def _status(self, data: DataLayer, actor: Actor, user_id: UUID) -> str:
        key, amount = f"hosted_status:{user_id}", data.settings.hosted.saas_reservation
        try:
            async with asyncio.timeout(_ASKED_SECONDS):
                has_credits = await self._asked.run(
                    user_id, lambda: data.usage.set_aside(actor, reservation_of(user_id), amount)
                )
        except (DatabaseError, TimeoutError) as error:
            log.warning("entitlement_from_cache", reason=getattr(error, "code", "timeout"))
            return await _remembered(data, key) or protocol.HAS_CREDITS
        status = protocol.HAS_CREDITS if has_credits else protocol.HAS_NO_CREDITS
        with suppress(CacheError):  # It is only missed if the database goes away, too.
            await data.cache.set(key, status, _REMEMBERED_SECONDS)
        return status


async def _remembered(data: DataLayer, key: str) -> str | None:
    try:
        status = await data.cache.get(key)
    except CacheError:
        return None
    return status if isinstance(status, str) else None


async def _answer_designs(call: Call) -> Response:
    return await answer_designs(call.data, call.actor, call)


async def _create_user(call: Call) -> dict[str, Any]:
    """The account was made when the token was seen first; two tabs get the same one."""
    return protocol.shown_user(await call.data.accounts.get(call.actor, call.user_id))


async def _remember_version(call: Call) -> dict[str, Any]:
    patch = protocol.seen_version((await call.object()).get("version"))
    await call.data.accounts.update_preferences(call.actor, call.user_id, patch)
    return {"success": True}


async def _show_trial(_call: Call) -> dict[str, int]:
    return {"used": 0, "limit": 0}


async def _show_usage(call: Call) -> dict[str, Any]:
    usage = call.data.usage
    budget = await usage.budget(call.actor)
    spent = Decimal(0)
    if budget is None:
        sums = await usage.sums(call.actor, first_day=protocol.now().date().replace(day=1))
        spent = sum((each.cost for each in sums if each.currency == "USD"), Decimal(0))
    return protocol.shown_usage(budget, spent)


async def _view(call: Call) -> dict[str, Any]:
    page = _page_number(call.query_params.get("page", "1"))
    offset = (page - 1) * protocol.PAGE_SIZE
    base = call.data.settings.base_url
    found = await call.data.generations.shown(call.actor, limit=protocol.PAGE_SIZE, offset=offset, base=base)
    return protocol.shown_page(found, page)


async def _delete(call: Call) -> dict[str, Any]:
    given = (await call.object()).get("generation_ids")
    if not isinstance(given, list) or len(given) > _MOST_DELETED:
        raise InvalidValueError(f"generation_ids must be a list of {_MOST_DELETED} at most", field="generation_ids")
    ids = [found for found in map(_as_id, given) if found is not None]
    deleted = [str(one) for one in await call.data.generations.hide(call.actor, ids)]
    return {"deleted_ids": deleted, "deleted_count": len(deleted)}


async def _rate(call: Call) -> dict[str, Any]:
    body = await call.object()
    code_id, feedback = _as_id(body.get("generation_id")), body.get("feedback")
    if feedback not in {"up", "down"}:
        raise InvalidValueError("feedback must be up or down", field="feedback")
    if code_id is None:
        raise HTTPException(404, "no generation has this id")
    await call.data.generations.rate(call.actor, code_id, is_good=feedback == "up")
    return {"success": True}


async def _take_feedback(call: Call) -> dict[str, Any]:
    """Kept as a file of the person, so that it goes with the account, and can be exported."""
    content = json_answer(await call.object()).body
    file = await call.data.files.save(
        bytes(content),
        owner_id=call.user_id,
        content_type=_FEEDBACK_TYPE,
        file_name="feedback.json",
        allowed_types={_FEEDBACK_TYPE},
    )
    log.info("feedback_received", file_id=str(file.id))
    return {"success": True}


async def _refuse_payment(_call: Call) -> Any:
    raise HTTPException(501, "nobody has plugged a provider of payments in; what you generate costs nothing here")


def _page_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and int(text) > 0):
        raise InvalidValueError("page must be a number from 1", field="page")
    return int(text)


def _as_id(value: Any) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
