"""Which checks there are of a storage: a folder, or a bucket or container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.services.doctor.checks import Check, Verdict, unknown_place
from data_layer.services.doctor.storage_folder import folder_checks
from data_layer.services.doctor.storage_objects import object_checks

if TYPE_CHECKING:
    from data_layer.config import Settings

PART = "storage"
SECOND_PART = "second_storage"


def storage_checks(settings: Settings, time_limit: float, *, part: str = PART, is_known: bool = True) -> list[Check]:
    """The checks of the storage that the settings choose.

    Args:
        settings: which storage.
        time_limit: seconds for each check.
        part: what the findings call it.
        is_known: the settings say where it is.
    """
    if not is_known:

        async def unknown() -> Verdict:
            return unknown_place("the storage")

        return [Check(part, "server", unknown)]
    if settings.storage_backend == "local":
        return folder_checks(settings, part)
    return object_checks(settings, part, time_limit)
