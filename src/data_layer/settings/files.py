"""The settings of stored files: a part of ``Settings``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_layer.settings.part import SettingsPart
from data_layer.settings.values import ANY_CASE, MediaTypes, PixelSizes, Seconds


class FileSettings(SettingsPart):
    """What may be stored, and what is made of it."""

    # Files
    allowed_file_types: MediaTypes = Field(
        ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"),
        min_length=1,
        description="Types of files that users may store, recognised by content and separated by commas.",
    )
    upload_expires_in: Seconds = Field(
        900, description="Seconds that the signed URL of a direct upload works; an hour later the upload is abandoned."
    )
    image_max_pixels: int = Field(200_000_000, ge=1, le=500_000_000, description="Pixels that an image may have.")
    image_memory_limit: int = Field(
        256 * 1024 * 1024,
        ge=16 * 1024 * 1024,
        description="Bytes of memory for decoding images, all at once in one process, and at most a third of the "
        "container's; an image that needs more is stored without thumbnails.",
    )
    image_max_frames: int = Field(500, ge=1, le=10_000, description="Frames of one animation, at most.")
    image_time_limit: Seconds = Field(10, description="Seconds that decoding one image may take.")
    image_thumbnail_sizes: PixelSizes = Field(
        (200, 800), description="Longest sides of thumbnails in pixels, separated by commas; 'none' makes none."
    )
    image_remove_metadata: Annotated[Literal["none", "location", "all"], ANY_CASE] = Field(
        "none", description="What is removed from images: none, location (where they were taken), or all of EXIF."
    )
