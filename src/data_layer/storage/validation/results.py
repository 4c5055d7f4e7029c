"""What inspecting a file finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from data_layer.storage.validation.received import ReceivedFile


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is recorded of an image. Width and height are in pixels, as it is shown: after the EXIF orientation.

    ``dominant_color`` is written ``#rrggbb``; None where all pixels are transparent.
    """

    image_format: str
    width: int
    height: int
    frame_count: int
    dominant_color: str | None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small WebP picture of the first frame; ``size`` is the longest side that was asked for, in pixels."""

    size: int
    width: int
    height: int
    file: ReceivedFile


@dataclass(frozen=True, slots=True)
class InspectedFile:
    """A file that may be stored: its real type, its content as it is to be stored, and what is known of an image.

    ``preview`` is what thumbnails are made of; None where there is nothing to make.
    """

    content_type: str
    content: ReceivedFile
    image: ImageFacts | None = None
    preview: Image | None = None
