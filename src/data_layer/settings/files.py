"""The settings of stored files: a part of ``Settings``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_layer.settings.storage import StorageSettings
from data_layer.settings.values import MediaTypes, PixelSizes, Seconds


class FileSettings(StorageSettings):
    """What may be stored, and what is made of it."""

    # Files
    storage_second_backend: Literal["local", "azure", "s3"] | None = Field(
        None, description="Backend that files may still be in while `data-layer storage migrate` moves them."
    )
    max_file_size: int = Field(52_428_800, ge=1, le=5 * 2**40, description="Largest file, in bytes.")
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
    image_remove_metadata: Literal["none", "location", "all"] = Field(
        "none", description="What is removed from images: none, location (where they were taken), or all of EXIF."
    )

    def file_contradictions(self) -> list[str]:
        """What makes the settings unusable anywhere."""
        problems = self.storage_contradictions()
        if self.storage_second_backend is not None:
            second = self.model_copy(update={"storage_backend": self.storage_second_backend})
            wanted = ("STORAGE_BACKEND is", "STORAGE_SECOND_BACKEND is")
            problems += [problem.replace(*wanted) for problem in second.storage_contradictions()]
        return problems

    def unfit_files(self) -> list[str]:
        """What production refuses of the storage, and of the second one."""
        problems = self.unfit_storage()
        if self.storage_second_backend is not None:
            second = self.model_copy(update={"storage_backend": self.storage_second_backend})
            problems += [problem for problem in second.unfit_storage() if problem not in problems]
        return problems
