"""What may be stored: recognised by its content, whole, of bounded cost to decode, and without hidden guests.

A file is judged in this order: its size while it arrives, its type by its first bytes, whether that may be stored, and
then its structure. Of an image, what follows its end is cut off, and its first frame is decoded within limits of memory
and time; what no browser could show is refused.
"""

from data_layer.storage.validation.inspection import Inspector
from data_layer.storage.validation.names import clean_file_name, content_disposition
from data_layer.storage.validation.received import ReceivedFile, receive
from data_layer.storage.validation.types import canonical_type
from data_layer.storage.validation.values import FileLimits, ImageFacts, InspectedFile, MetadataRemoval, Thumbnail

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
    "receive",
]
