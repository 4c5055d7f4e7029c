"""What inspecting a file takes and gives: the rules, and what is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_layer.storage.validation.received import ReceivedFile

MetadataRemoval = Literal["none", "location", "all"]
"""What is removed from images before they are stored: nothing, where they were taken, or all but the orientation."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The rules for files, from the settings of the same names.

    Attributes:
        max_file_size: Bytes that one file may have.
        allowed_types: Media types that may be stored.
        max_pixels: Pixels that an image may have.
        max_frames: Frames that an animation may have.
        time_limit: Seconds that reading an image, and decoding it, may take each.
        memory_limit: Bytes of memory for decoding images, all at once and in the whole process.
        thumbnail_sizes: Longest sides of the thumbnails, in pixels.
        metadata_removal: What is removed from images.
    """

    max_file_size: int
    allowed_types: frozenset[str]
    max_pixels: int = 200_000_000
    max_frames: int = 500
    time_limit: float = 10.0
    memory_limit: int = 256 * 1024 * 1024
    thumbnail_sizes: tuple[int, ...] = ()
    metadata_removal: MetadataRemoval = "none"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is recorded of an image. Width and height are in pixels, as it is shown: after the EXIF orientation.

    ``dominant_color`` is an sRGB color, written ``#rrggbb``; None where all pixels are transparent, or where decoding
    the image would take more memory than there is for it.
    """

    image_format: str
    width: int
    height: int
    frame_count: int
    dominant_color: str | None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small WebP picture of the first frame in sRGB; ``size`` is the longest side that was asked for, in pixels."""

    size: int
    width: int
    height: int
    file: ReceivedFile


@dataclass(frozen=True, slots=True)
class InspectedFile:
    """A file that may be stored: its real type, its content as it is to be stored, and what is known of an image."""

    content_type: str
    content: ReceivedFile
    image: ImageFacts | None = None
    thumbnails: tuple[Thumbnail, ...] = ()
