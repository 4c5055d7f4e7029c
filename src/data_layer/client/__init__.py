"""A typed, asynchronous client of the HTTP API: ``pip install 'data-layer[client]'``.

::

    async with Client("https://data.example.com") as client:
        await client.log_in("ada@example.com", password)
        project = await client.projects.create(name="Shop", file=Path("shop.png"))
        async for each in client.projects.list(status=["active"]):
            print(each.name)

It needs nothing of a data layer in the same process. ``values`` and ``resources`` are made from the description of
the API by ``make clients``; everything else is written by hand.
"""

from __future__ import annotations

from data_layer.errors import MissingExtraError

try:
    import httpx as _httpx  # noqa: F401
except ModuleNotFoundError:  # pragma: no cover  (what tests run with has it)
    raise MissingExtraError(
        "the client needs httpx, which is not installed; run: pip install 'data-layer[client]'"
    ) from None

from data_layer.client.authentication import LoginTokens
from data_layer.client.client import Client
from data_layer.client.downloads import Download, Pages
from data_layer.client.events import CodePatch, CodeState, FollowedEvent, StreamedEvent, VariantEnded
from data_layer.client.transport import UNSET, Unset
from data_layer.client.writing import Writer

__all__ = [
    "UNSET",
    "Client",
    "CodePatch",
    "CodeState",
    "Download",
    "FollowedEvent",
    "LoginTokens",
    "Pages",
    "StreamedEvent",
    "Unset",
    "VariantEnded",
    "Writer",
]
