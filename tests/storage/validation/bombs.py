"""Small files that unfold to much, and a process that inspects them all at once.

``python -m tests.storage.validation.bombs FILE …`` prints, as JSON, the peak of its memory before and after in MiB, and
what became of each file.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import sys
import zlib
from functools import cache
from pathlib import Path

from PIL import Image

from data_layer.errors import InvalidFileError
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import FileLimits, Inspector, receive
from tests.file_content import encoded
from tests.storage.validation.pictures import chunk, header, png_of, riff, vp8x, webp_of, webp_parts

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def zeros(size: int) -> bytes:
    """So many zeros, compressed."""
    packer = zlib.compressobj()
    pieces = [packer.compress(bytes(min(2**20, size - start))) for start in range(0, size, 2**20)]
    return b"".join((*pieces, packer.flush()))


def png(width: int, height: int, *, depth: int = 8, kind: int = 2, interlace: int = 0) -> bytes:
    row = width * {0: 1, 2: 3, 6: 4}[kind] * depth // 8
    shape = header(width, height, depth, kind, interlace)
    return png_of(shape, chunk(b"IDAT", zeros((row + 1) * height)), chunk(b"IEND", b""))


def webp_chunk(width: int, height: int) -> bytes:
    """The lossless data of one color, in which each pixel takes no bit at all."""
    [(kind, data)] = webp_parts(encoded(Image.new("RGB", (16, 16), "red"), "WEBP", lossless=True))
    (bits,) = struct.unpack_from("<I", data, 1)
    bits = bits >> 28 << 28 | (height - 1) << 14 | (width - 1)
    return riff(kind, data[:1] + struct.pack("<I", bits) + data[5:])


def animated_webp(side: int, frames: int) -> bytes:
    place = bytes(6) + (side - 1).to_bytes(3, "little") * 2 + bytes(4)
    control = riff(b"ANIM", bytes(6))
    return webp_of(vp8x(side, side, 2), control, *[riff(b"ANMF", place + webp_chunk(side, side))] * frames)


def gif(side: int, frames: int) -> bytes:
    images = [Image.new("P", (side, side), number) for number in range(frames)]
    return encoded(images[0], "GIF", save_all=True, append_images=images[1:], disposal=2)


def jpeg(side: int, *, subsampling: int) -> bytes:
    return encoded(Image.new("RGB", (side, side), "red"), "JPEG", progressive=True, subsampling=subsampling)


@cache
def bombs() -> dict[str, bytes]:
    return {
        "webp of 34 bytes": webp_of(webp_chunk(7071, 7071)),
        "webp that is decoded": webp_of(webp_chunk(3400, 3400)),
        "animated webp": animated_webp(3600, 20),
        "largest webp": webp_of(webp_chunk(16383, 12200)),
        "png of one row": png(50_000_000, 1),
        "png of one column": png(1, 3_000_000),
        "wide png": png(500_000, 60, kind=6),
        "square png": png(5000, 5000, kind=6),
        "deep png": png(3000, 3000, kind=6, depth=16),
        "interlaced png": png(8000, 8000, kind=6, interlace=1),
        "interlaced png that is decoded": png(6000, 6000, kind=6, interlace=1),
        "animated gif": gif(6000, 3),
        "progressive jpeg": jpeg(6000, subsampling=2),
        "progressive jpeg in full colors": jpeg(6000, subsampling=0),
        "json": b"[" + b'{"a":[1,2]},' * 4_000_000 + b"1]",
        "screenshot": encoded(screenshot(), "PNG", compress_level=1),
        "screenshot as jpeg": encoded(screenshot(), "JPEG"),
    }


def screenshot() -> Image.Image:
    """A full page at double density."""
    image = Image.new("RGB", (2560, 20_000), "white")
    for top in range(0, 20_000, 100):
        image.paste((top % 256, 90, 200), (40, top, 2000, top + 40))
    return image


def peak() -> int:
    """MiB of memory that this process has held at most."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


async def inspect_all(files: list[Path]) -> dict[str, str]:
    inspector, threads = Inspector(FileLimits(52_428_800, IMAGES, thumbnail_sizes=(200, 800))), FileThreads(16)

    async def inspect(file: Path) -> str:
        async with receive(file, 52_428_800, threads) as received:
            try:
                found = await inspector.inspect(received, "image/png" if file.name == "json" else None)
                return f"{len(await inspector.thumbnails(found))} thumbnails"
            except InvalidFileError as error:
                return type(error).__name__

    ended = await asyncio.gather(*(inspect(file) for file in files))
    await inspector.close()
    await threads.close()
    return {file.name: end for file, end in zip(files, ended, strict=True)}


def warm_up() -> None:
    """Load what decoding needs, so that it does not count."""
    encoded(Image.open(io.BytesIO(encoded(Image.new("RGB", (9, 9)), "PNG"))), "WEBP")


def main() -> None:
    warm_up()
    before = peak()
    found = asyncio.run(inspect_all([Path(name) for name in sys.argv[1:]]))
    sys.stdout.write(json.dumps({"before": before, "after": peak(), "found": found}))


if __name__ == "__main__":
    main()
