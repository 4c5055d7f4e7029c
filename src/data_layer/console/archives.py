"""All versions of a project as a zip file, made while it is sent."""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator

from data_layer.entities.enums import CodeStack
from data_layer.schemas.generations import OpenedTree

_PIECE = 64 * 1024
_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")


class _Outgoing(io.RawIOBase):
    """What the archive has written and nobody has taken yet; it cannot go back."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._bytes += piece
        return len(piece)

    def take(self) -> bytes:
        taken, self._bytes = bytes(self._bytes), bytearray()
        return taken


async def archive_of(tree: OpenedTree) -> AsyncIterator[bytes]:
    """The archive in pieces: a page for each variant, and ``project.json``, which says what each was asked for."""
    outgoing = _Outgoing()
    described = []
    with zipfile.ZipFile(outgoing, "w", zipfile.ZIP_DEFLATED) as archive:
        async for generation in tree.generations:
            for variant in generation.variants:
                suffix = "svg" if variant.code_stack is CodeStack.SVG else "html"
                name = f"version-{generation.number:03}.{variant.variant_index}.{suffix}"
                described.append(
                    {
                        "file": name if variant.code else None,
                        "version": generation.number,
                        "variant": variant.variant_index,
                        "is_selected": variant.variant_index == generation.selected_variant,
                        "prompt": generation.prompt,
                        "stack": variant.code_stack,
                        "model": variant.model,
                        "status": variant.status,
                        "at": variant.created_at.isoformat(),
                    }
                )
                if variant.code:
                    content = variant.code.encode("utf-8", "replace")
                    await asyncio.to_thread(archive.writestr, name, content)
                    if piece := outgoing.take():
                        yield piece
        project = {"name": tree.project.name, "description": tree.project.description, "variants": described}
        archive.writestr("project.json", json.dumps(project, indent=2))
    yield outgoing.take()


def file_name(name: str, suffix: str) -> str:
    """A name for a file on any system, from the name of a project."""
    return f"{_STRANGE.sub('-', name).strip('-.')[:80] or 'project'}.{suffix}"
