"""Judging files in threads of their own, each within a time limit."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from data_layer.errors import EmptyFileError, ImageTimeoutError, ImageTooLargeError
from data_layer.extras import require_extra
from data_layer.storage.validation.documents import check_pdf, check_zip
from data_layer.storage.validation.received import ReceivedFile
from data_layer.storage.validation.results import InspectedFile
from data_layer.storage.validation.svg import check_svg
from data_layer.storage.validation.types import HEAD_SIZE, IMAGE_TYPES, SVG, binary_type, decide_type, text_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from data_layer.storage.validation.limits import FileLimits
    from data_layer.storage.validation.results import Thumbnail

_Result = TypeVar("_Result")
_QUEUE_SECONDS = 30.0
_GRACE = 1.0  # Seconds for the thread to notice by itself that its time is over.
_MAX_DECODED_SIZE = 128 * 1024 * 1024  # Images and texts are judged in memory.


class Inspector:
    """Says what a file is and whether it may be stored, and makes thumbnails."""

    def __init__(self, limits: FileLimits) -> None:
        self.limits = limits
        # Few: decoding keeps a processor busy, and what is being decoded is held in memory.
        self._executor = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="inspection")

    async def inspect(
        self, file: ReceivedFile, declared_type: str | None, allowed_types: AbstractSet[str] | None = None
    ) -> InspectedFile:
        """What the file really is, and its content as it is to be stored.

        Args:
            file: the content.
            declared_type: what the uploader says it is, if anything.
            allowed_types: the types that may be stored, instead of those of the limits.

        Raises:
            InvalidFileError: it may not be stored; the subclass and the message say why.
        """
        allowed = self.limits.allowed_types if allowed_types is None else allowed_types
        return await self._run(partial(_inspect, file, declared_type, allowed, self.limits))

    async def thumbnails(self, file: InspectedFile) -> list[Thumbnail]:
        """Small pictures of an image, in those sizes of the limits that are smaller than it.

        Raises:
            ImageTimeoutError: no thread was free in time.
        """
        preview = file.preview
        if preview is None:
            return []
        # Here and below, because Pillow is needed for images alone, and not installed without them.
        from data_layer.storage.validation.thumbnails import make_thumbnails  # noqa: PLC0415

        return await self._run(lambda _deadline: make_thumbnails(preview, self.limits.thumbnail_sizes))

    async def close(self) -> None:
        """Wait for what is being decoded, which ends within its time limit."""
        await asyncio.to_thread(self._executor.shutdown)

    async def _run(self, work: Callable[[float], _Result]) -> _Result:
        """Run work that minds its deadline, which counts from when a thread is free."""
        limit = self.limits.time_limit
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._executor, lambda: work(time.monotonic() + limit))
        try:
            finished, _ = await asyncio.wait([job], timeout=_QUEUE_SECONDS + limit + _GRACE)
        finally:
            if not job.done():
                job.add_done_callback(_forget)
                job.cancel()  # It does not begin any more; what has begun ends at its deadline.
        if not finished:
            raise ImageTimeoutError(f"The file took longer than {limit:g} s to inspect (IMAGE_TIME_LIMIT)")
        return job.result()


def _forget(job: asyncio.Future[_Result]) -> None:
    """Look at how an abandoned job ended, because Python reports errors that nobody has looked at."""
    if not job.cancelled():
        job.exception()


def _inspect(
    file: ReceivedFile, declared: str | None, allowed: AbstractSet[str], limits: FileLimits, deadline: float
) -> InspectedFile:
    if file.size == 0:
        raise EmptyFileError("The file is empty")
    content_type = decide_type(_real_type(file), declared, allowed)
    if content_type in IMAGE_TYPES:
        require_extra("images", "storing an image", "PIL")
        from data_layer.storage.validation.image_metadata import without_metadata  # noqa: PLC0415
        from data_layer.storage.validation.images import inspect_image  # noqa: PLC0415

        if file.size > _MAX_DECODED_SIZE:
            raise ImageTooLargeError(f"The image has {file.size} bytes; {_MAX_DECODED_SIZE} can be decoded")
        content = file.read()
        facts, preview = inspect_image(content, content_type, limits, deadline)
        stripped = without_metadata(content, content_type, limits.metadata_removal)
        kept = file if stripped == content else ReceivedFile.of_bytes(stripped)
        return InspectedFile(content_type, kept, facts, preview)
    if content_type == SVG:
        check_svg(file.read())
    elif content_type == "application/pdf":
        check_pdf(file)
    elif content_type == "application/zip":
        check_zip(file)
    return InspectedFile(content_type, file)


def _real_type(file: ReceivedFile) -> str | None:
    head = file.read_part(0, HEAD_SIZE)
    found = binary_type(head)
    if found is not None or b"\0" in head or file.size > _MAX_DECODED_SIZE:
        return found
    return text_type(file.read())
