"""How much of what may be stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MetadataRemoval = Literal["none", "location", "all"]
"""What is removed from images before they are stored: nothing, where they were taken, or all but the orientation."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The rules for files, from the settings of the same names.

    Attributes:
        max_file_size: Bytes that one file may have.
        allowed_types: Media types that may be stored.
        max_pixels: Pixels of one frame that are decoded at most.
        max_frames: Frames of an animation that are decoded at most.
        time_limit: Seconds that decoding one image, and making its thumbnails, may take each.
        thumbnail_sizes: Longest sides of the thumbnails, in pixels.
        metadata_removal: What is removed from images.
    """

    max_file_size: int
    allowed_types: frozenset[str]
    max_pixels: int = 50_000_000
    max_frames: int = 500
    time_limit: float = 10.0
    thumbnail_sizes: tuple[int, ...] = ()
    metadata_removal: MetadataRemoval = "none"
