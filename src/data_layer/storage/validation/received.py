"""Receive an upload: count and hash it on arrival, in memory while it is small, else in a nameless file."""

from __future__ import annotations

import errno
import hashlib
import io
import tempfile
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO, Literal, NamedTuple, cast

from typing_extensions import override

from data_layer.errors import FileTooLargeError, StorageFullError, StorageUnavailableError
from data_layer.storage.content import BATCHES, batches
from data_layer.storage.port import FileContent, HashedBytes
from data_layer.storage.threads import FileThreads

IN_MEMORY = 256 * 1024
"""Bytes up to which a file is held in memory: little, because hundreds may arrive, and less where they do."""

_COPIED = 1024 * 1024


class Span(NamedTuple):
    """A part of a file, from ``start`` to before ``stop``."""

    start: int
    stop: int


class ReceivedFile:
    """The bytes of one file that has arrived, and their SHA-256. It is read by one thread at a time."""

    def __init__(
        self, content: HashedBytes | BinaryIO, size: int, sha256: str = "", *, temporary_files: ExitStack | None = None
    ) -> None:
        self._content = content
        self._temporary_files = temporary_files
        self._sha256 = sha256
        self.size = size

    @classmethod
    def of_bytes(cls, content: bytes) -> ReceivedFile:
        """What was in memory anyway, and is hashed when its hash is first asked for."""
        return cls.of_hashed(HashedBytes(content))

    @classmethod
    def of_hashed(cls, hashed: HashedBytes) -> ReceivedFile:
        """What was in memory."""
        return cls(hashed, len(hashed.content))

    @property
    def sha256(self) -> str:
        """The hash. Of what is in memory it is computed at the first use, which belongs into a thread."""
        return self._content.sha256 if isinstance(self._content, HashedBytes) else self._sha256

    @property
    def is_in_memory(self) -> bool:
        """Whether reading it waits for no disk."""
        return isinstance(self._content, HashedBytes)

    def read(self) -> bytes:
        """Everything."""
        if isinstance(self._content, HashedBytes):
            return self._content.content
        return self.read_part(0, self.size)

    def read_part(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start``."""
        if isinstance(self._content, HashedBytes):
            return self._content.content[start : start + size]
        self._content.seek(start)
        return self._content.read(size)

    def rearranged(self, parts: Sequence[bytes | Span]) -> ReceivedFile:
        """Another file, made of parts of this one and of other bytes; it lasts as long as this one."""
        source = JoinedFile(self, parts)
        if self.is_in_memory or self._temporary_files is None:
            return ReceivedFile.of_bytes(source.read())
        digest = hashlib.sha256()
        with _temporary_file_errors():
            piece = source.read(_COPIED)
            target = self._temporary_files.enter_context(_nameless_file())
            while piece:
                digest.update(piece)
                target.write(piece)
                piece = source.read(_COPIED)
            size = target.tell()
        return ReceivedFile(target, size, digest.hexdigest(), temporary_files=self._temporary_files)

    def to_upload(self) -> HashedBytes | BinaryIO:
        """The content in a form that storages take."""
        if not isinstance(self._content, HashedBytes):
            self._content.seek(0)
        return self._content


class JoinedFile(io.RawIOBase):
    """Parts of a file and other bytes, to be read as one file; nothing is copied before it is read.

    ``on_read`` is called before each read, and may end the reading with an exception.
    """

    def __init__(
        self, file: ReceivedFile, parts: Sequence[bytes | Span], on_read: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._file = file
        self._parts = [part for part in parts if _length(part)]
        self._starts = [0, *accumulate(map(_length, self._parts))]
        self._position = 0
        self._on_read = on_read

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return self._starts[-1]

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = max(0, offset + (0, self._position, self.size)[whence])
        return self._position

    @override
    def tell(self) -> int:
        return self._position

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        self._on_read()
        wanted = self.size - self._position if size is None or size < 0 else size
        pieces: list[bytes] = []
        while wanted > 0 and self._position < self.size:
            index = bisect_right(self._starts, self._position) - 1
            part, inside = self._parts[index], self._position - self._starts[index]
            length = min(wanted, _length(part) - inside)
            if isinstance(part, Span):
                piece = self._file.read_part(part.start + inside, length)
            else:
                piece = part[inside : inside + length]
            pieces.append(piece)
            self._position += length
            wanted -= length
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _nameless_file() -> BinaryIO:
    return cast("BinaryIO", tempfile.TemporaryFile(prefix="data-layer-"))


def _length(part: bytes | Span) -> int:
    return part.stop - part.start if isinstance(part, Span) else len(part)


@contextmanager
def _temporary_file_errors() -> Iterator[None]:
    """Raise our errors for a temporary file that cannot be made or written."""
    try:
        yield
    except OSError as error:
        text = f"the file cannot wait in a temporary file until it is complete: {error.strerror or error}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFullError(f"{text}; make room in the folder for temporary files, or set TMPDIR") from error
        raise StorageUnavailableError(f"{text}; set TMPDIR to a folder that can be written") from error


@asynccontextmanager
async def receive(content: FileContent, max_size: int, threads: FileThreads) -> AsyncIterator[ReceivedFile]:
    """Read everything that arrives; what does not fit into memory waits in a file without a name, gone at the end.

    Raises:
        FileTooLargeError: there is more than ``max_size`` bytes; reading stops there.
        InvalidValueError: the content is of none of the types that can be uploaded.
    """
    if isinstance(content, HashedBytes):
        content = content.content  # Rows are found by their hash, so it is never taken from a caller.
    if isinstance(content, bytes):
        _check_size(len(content), max_size)
        yield ReceivedFile.of_bytes(content)
        return
    with ExitStack() as temporary_files:
        file = temporary_files.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="data-layer-"))
        digest, size = hashlib.sha256(), 0

        def take(chunks: list[bytes]) -> None:
            with _temporary_file_errors():
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                if file.tell() > BATCHES.batch_size:
                    file.rollover()
            chunks.clear()

        async with aclosing(batches(content, threads)) as source:
            async for batch in source:
                size += sum(map(len, batch))
                _check_size(size, max_size)
                await threads.run(take, batch)
        in_memory = size <= min(IN_MEMORY, BATCHES.batch_size)
        file.seek(0)
        if in_memory:
            yield ReceivedFile.of_hashed(HashedBytes(file.read(), digest.hexdigest()))
        else:
            yield ReceivedFile(cast("BinaryIO", file), size, digest.hexdigest(), temporary_files=temporary_files)


def _check_size(size: int, max_size: int) -> None:
    if size > max_size:
        raise FileTooLargeError(f"the file is larger than {max_size} bytes (MAX_FILE_SIZE)")


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
