"""Small pictures of images."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from data_layer.storage.validation.received import ReceivedFile
from data_layer.storage.validation.results import Thumbnail

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUALITY = 80
# Of 0 to 6. The default of 4 takes twice as long for one percent fewer bytes (a screenshot of text, 800 pixels wide).
_METHOD = 2


def make_preview(image: Image.Image, sizes: Iterable[int]) -> Image.Image | None:
    """The current frame, the right way up, as large as the largest thumbnail; None where none is smaller than it.

    So the image, which may be large, need not be kept or decoded again until the thumbnails are made.
    """
    fitting = [size for size in sizes if size < max(image.size)]
    if not fitting:
        return None
    preview = in_colors(ImageOps.exif_transpose(image))
    _shrink(preview, max(fitting))
    return preview


def make_thumbnails(preview: Image.Image, sizes: Iterable[int]) -> list[Thumbnail]:
    """Small pictures in these sizes, as far as they are no larger than the preview, largest first."""
    image = preview.copy()
    thumbnails: list[Thumbnail] = []
    for size in sorted(sizes, reverse=True):
        if size > max(preview.size):
            continue
        _shrink(image, size)
        file = io.BytesIO()
        image.save(file, "WEBP", quality=_QUALITY, method=_METHOD)
        thumbnails.append(Thumbnail(size, image.width, image.height, ReceivedFile.of_bytes(file.getvalue())))
    return thumbnails


def in_colors(image: Image.Image) -> Image.Image:
    """The image with eight bits for each of three colours, and transparency if it has any."""
    if image.mode.startswith("I"):
        # Sixteen bits of grey, which Pillow does not scale down by itself.
        return image.convert("I").point([value >> 8 for value in range(1 << 16)], "L").convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _shrink(image: Image.Image, size: int) -> None:
    image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
