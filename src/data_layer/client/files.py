"""Files that are sent: in memory, on the disk or open already. They are read while they are sent."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from asyncio import to_thread
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

File = bytes | Path | IO[bytes]
"""What is sent as a file. One that is open must be seekable, so that it can be sent again."""

_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class FormPart:
    """A file that can be read."""

    name: str
    content: bytes | IO[bytes]

    @classmethod
    @contextmanager
    def opened(cls, file: File | None) -> Iterator[FormPart | None]:
        """Open a file for one attempt to send it, from its beginning."""
        match file:
            case None:
                yield None
            case bytes():
                yield cls("file", file)
            case Path():
                with file.open("rb") as stream:
                    yield cls(file.name, stream)
            case _:
                file.seek(0)
                yield cls(name_of(file), file)

    def form(self, body: Mapping[str, Any] | None) -> list[tuple[str, tuple[str | None, bytes | IO[bytes], str]]]:
        """The parts of a form that brings it."""
        kind = mimetypes.guess_type(self.name)[0] or "application/octet-stream"
        data = json.dumps(body or {}).encode()
        return [("data", (None, data, "application/json")), ("file", (self.name, self.content, kind))]


def name_of(file: File) -> str:
    """What a file is called."""
    if isinstance(file, Path):
        return file.name
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else "file"


@dataclass(frozen=True, slots=True)
class Measured:
    """The size of a file and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


async def measure(file: File) -> Measured:
    """Read a file once."""
    digest, size = hashlib.sha256(), 0
    async with aclosing(pieces(file)) as content:
        async for piece in content:
            digest.update(piece)
            size += len(piece)
    return Measured(size, digest.hexdigest())


async def pieces(file: File) -> AsyncGenerator[bytes]:
    """The content of a file, read in threads."""
    with FormPart.opened(file) as part:
        content = part.content if part is not None else b""
        if isinstance(content, bytes):
            yield content
            return
        while piece := await to_thread(content.read, _PIECE):
            yield piece
