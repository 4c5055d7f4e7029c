"""A stored file that gets another key."""

from __future__ import annotations

import os

from data_layer.storage.conditions import Condition
from data_layer.storage.content import BATCH_SIZE
from data_layer.storage.local.attributes import attached, locked
from data_layer.storage.local.draft import Destination, Draft
from data_layer.storage.local.folder import StorageFolder
from data_layer.storage.local.reader import Reader
from data_layer.storage.metadata import Description

KeyAndSegments = tuple[str, tuple[str, ...]]


class Copy:
    """From one key, given with its segments, to another; used by one thread."""

    def __init__(
        self, folder: StorageFolder, source: KeyAndSegments, target: KeyAndSegments, condition: Condition
    ) -> None:
        self._folder = folder
        self._source = source
        self._target = target
        self._condition = condition
        self._draft: Draft | None = None
        self._abandoned = False

    def abandon(self) -> None:
        """Stop soon; may be called from another thread."""
        self._abandoned = True
        if self._draft is not None:
            self._draft.abandon()

    def copy(self) -> None:
        """Write the bytes a second time, durably, with all that is known about them.

        Raises:
            FileNotFoundError: there is no source.
            FileExistsInStorageError: the condition does not hold.
        """
        reader = Reader(self._folder, *self._source)
        try:
            found = reader.open()
            if self._source == self._target:
                if not self._condition.is_none:
                    raise self._condition.failure(self._target[0])
                return
            described = Description(found.content_type, found.metadata, found.content_encoding, found.cache_control)
            destination = Destination(*self._target, described, found.sha256, self._condition)
            self._draft = draft = Draft(self._folder, destination, found.size)
            try:
                draft.open()
                for position in range(0, found.size, BATCH_SIZE):
                    if self._abandoned:
                        return
                    draft.write([reader.read(position, min(BATCH_SIZE, found.size - position))])
                draft.commit()
            finally:
                draft.discard()
        finally:
            reader.close()

    def move(self) -> bool:
        """Rename the file if its metadata goes with it, else copy it; whether the source is still to be removed."""
        if self._source == self._target or not self._metadata_travels():
            self.copy()
            return self._source != self._target and not self._abandoned
        *folders, name = self._target[1]
        *source_folders, source_name = self._source[1]
        with locked(self._folder, self._target[0], shared=self._condition.is_none):
            if not self._condition.is_none and self._folder.status(self._target[1]) is not None:
                raise self._condition.failure(self._target[0])
            with (
                self._folder.opened(source_folders) as source,
                self._folder.opened(folders, create=True) as target,
            ):
                os.rename(source_name, name, src_dir_fd=source, dst_dir_fd=target)
                os.fsync(target)
                os.fsync(source)
        self._folder.remove_empty_folders(source_folders)
        return False

    def _metadata_travels(self) -> bool:
        descriptor = self._folder.open_file(self._source[1])
        try:
            return attached(descriptor) is not None
        finally:
            os.close(descriptor)
