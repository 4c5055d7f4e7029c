"""Files: validated, stored once for each owner, counted by who refers to them, and removed when nobody does.

A process that dies before the transaction leaves an object that no row names, which ``storage cleanup`` finds; after it
nothing. Thumbnails are made afterwards (``thumbnails``). A removal first marks the row, so that no reference can be
added any more, then removes the object, then the row; one that was interrupted is finished by ``storage cleanup``.
"""

from data_layer.services.files.backends import StorageBackends
from data_layer.services.files.maintenance import FileMaintenance
from data_layer.services.files.owners import ANY_OWNER, Owner
from data_layer.services.files.removal import FileRemoval
from data_layer.services.files.service import SHOWN_INLINE, FileService
from data_layer.services.files.serving import LocalFileServer, PublicFileServer
from data_layer.services.files.thumbnails import ThumbnailMaker

__all__ = [
    "ANY_OWNER",
    "SHOWN_INLINE",
    "FileMaintenance",
    "FileRemoval",
    "FileService",
    "LocalFileServer",
    "Owner",
    "PublicFileServer",
    "StorageBackends",
    "ThumbnailMaker",
]
