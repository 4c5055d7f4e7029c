"""What a row of an image says, whichever way the image comes."""

from __future__ import annotations

from uuid import UUID

from data_layer.entities import AuditLog, GeneratedImage
from data_layer.entities.enums import AuditAction, GenerationStatus
from data_layer.errors import InvalidValueError
from data_layer.schemas.files import FileView
from data_layer.schemas.images import NewImage
from data_layer.services.image_files import thumbnail_key


def new_image_row(project_id: UUID, image: NewImage, status: GenerationStatus) -> GeneratedImage:
    """A row, before its file is known.

    Raises:
        InvalidValueError: the provider makes no such size, or one is missing.
    """
    values = image.model_dump(exclude={"metadata", "size"})
    size = image.size
    if size is None:
        if image.provider.sizes:
            sizes = ", ".join(image.provider.sizes)
            raise InvalidValueError(f"size is missing; {image.provider} makes: {sizes}", field="size")
        size = ""
    return GeneratedImage(project_id=project_id, status=status, size=size, metadata_=image.metadata, **values)


def describe_file(row: GeneratedImage, file: FileView) -> None:
    """Say which file an image is."""
    row.storage_key = file.key
    row.thumbnail_url = thumbnail_key(file)
    row.mime_type = file.content_type
    row.file_size = file.size
    row.width, row.height = file.width, file.height
    row.size = row.size or f"{file.width}x{file.height}"
    row.image_metadata = {"format": file.image_format, "dominant_color": file.dominant_color}


def new_image_entry(row: GeneratedImage, user_id: UUID) -> AuditLog:
    """The entry of the audit trail for a new row."""
    new = {
        "project_id": str(row.project_id),
        "kind": row.kind.value,
        "provider": row.provider.value,
        "model": row.model,
    }
    description = "Recorded an image" if row.status is GenerationStatus.COMPLETED else "Recorded a failed image"
    return AuditLog.data_action(AuditAction.IMAGE_GENERATE, user_id, "image", row.id, description, new_values=new)
