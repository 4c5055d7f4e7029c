"""What was said of images of providers, until the page arrives that shows them.

It is kept in this process, and in the cache for the other ones. What both have forgotten is an image all the same: it
has its address, and only no row in the project.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from data_layer.errors import CacheError
from data_layer.hosted import protocol
from data_layer.layer import DataLayer
from data_layer.schemas.files import PublicFile
from data_layer.schemas.images import NewImage
from data_layer.schemas.lineage import ReceivedImage
from data_layer.services.files.backends import PUBLIC_PATH

_ADDRESS = re.compile(rf"{re.escape(PUBLIC_PATH)}([A-Za-z0-9_-]{{22}}\.[a-z0-9]{{2,5}})")
_REMEMBERED_SECONDS = 86_400
_MOST_KNOWN = 1000
_MOST_OF_ONE_PAGE = 100


class MadeImages:
    """Remembers images by their addresses.

    Args:
        data: whose cache is shared with the other processes.
    """

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def remember(self, file: PublicFile, owner_id: UUID, body: Mapping[str, Any]) -> None:
        """Remember an image that a person's page is about to show."""
        image = protocol.made_image(body)
        key = _key(owner_id, file.name)
        value = {"file_id": str(file.id), "image": image.model_dump(mode="json", exclude_unset=True)}
        self._known[key] = value
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        with suppress(CacheError):
            await self._data.cache.set(key, value, _REMEMBERED_SECONDS)

    async def shown_in(self, code: str, owner_id: UUID) -> tuple[ReceivedImage, ...]:
        """Return the images that were made for the person and that the page shows."""
        names = dict.fromkeys(match[1] for match in _ADDRESS.finditer(code))
        keys = [_key(owner_id, name) for name in list(names)[:_MOST_OF_ONE_PAGE]]
        values: dict[str, Any] = {key: self._known[key] for key in keys if key in self._known}
        missing = [key for key in keys if key not in values]
        if missing:
            with suppress(CacheError):
                values |= await self._data.cache.get_many(missing)
        return tuple(
            ReceivedImage(file_id=UUID(value["file_id"]), image=NewImage(**value["image"])) for value in values.values()
        )


def _key(owner_id: UUID, name: str) -> str:
    return f"hosted_image:{owner_id}:{name}"
