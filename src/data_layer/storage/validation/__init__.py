"""What may be stored: recognised by its content, whole, of bounded cost to decode, and without hidden guests.

A file is judged in this order: its size while it arrives, its type by its first bytes, its structure to the last byte
(what follows the end of an image belongs to a file of another type), and then by decoding it within limits.
"""

from data_layer.storage.validation.inspection import Inspector
from data_layer.storage.validation.limits import FileLimits, MetadataRemoval
from data_layer.storage.validation.names import clean_file_name, content_disposition
from data_layer.storage.validation.received import ReceivedFile, receive
from data_layer.storage.validation.results import ImageFacts, InspectedFile, Thumbnail
from data_layer.storage.validation.types import canonical_type

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
