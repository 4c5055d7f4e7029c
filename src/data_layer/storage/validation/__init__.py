"""What may be stored: recognised by its content, whole, of bounded cost to decode, and without hidden guests.

A file is judged in this order: its size while it arrives, its type by its first bytes, whether that may be stored, and
then its structure. Of an image, what follows its end is cut off, and its first frame is decoded within limits of memory
and time; what no browser could show is refused.
"""

from data_layer.storage.validation.inspector import Inspector, canonical_type, limits_of
from data_layer.storage.validation.names import clean_file_name, content_disposition
from data_layer.storage.validation.received import (
    FileLimits,
    ImageFacts,
    InspectedFile,
    MetadataRemoval,
    ReceivedFile,
    Thumbnail,
    receive,
)

__all__ = [
    "FileLimits",
    "ImageFacts",
    "InspectedFile",
    "Inspector",
    "MetadataRemoval",
    "ReceivedFile",
    "Thumbnail",
    "canonical_type",
    "clean_file_name",
    "content_disposition",
    "limits_of",
    "receive",
]
