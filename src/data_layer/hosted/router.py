"""All calls of the hosted application in one router."""

from __future__ import annotations

from fastapi import APIRouter

from data_layer.hosted.back_end import BackEnd
from data_layer.hosted.people import page_routes
from data_layer.layer import DataLayer


def make_router(data: DataLayer) -> APIRouter | None:
    """Return the calls; None where no SAAS_API_SECRET is set, so that they are not answered.

    Args:
        data: the data layer that they work with.
    """
    if data.settings.hosted.saas_api_secret is None:
        return None
    router = APIRouter()
    for routes in (page_routes(), BackEnd(data).routes()):
        router.routes.extend(routes.routes)
    return router
