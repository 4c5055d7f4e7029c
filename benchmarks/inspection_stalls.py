"""How long inspecting a file keeps every other thread from running: files that once did so for long.

``python benchmarks/inspection_stalls.py`` prints, for each file, the longest time in milliseconds for which an event
loop stood still while the file was inspected in its thread. It is measured in processor time of this process, so that
what other processes do meanwhile does not count.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.storage.validation.bombs import bombs

from data_layer.errors import DataLayerError
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import FileLimits, Inspector, receive
from data_layer.storage.validation.inspector import KNOWN_TYPES

MEBIBYTE = 1024 * 1024
ALLOWED = 50  # Milliseconds.
REPETITIONS = 3


def svg(inner: str, attributes: str = "") -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{inner}</svg>'.encode()


def jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").resize((side, side)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def detailed(side: int, kind: str, **options: Any) -> bytes:
    """A picture with something in each of its pixels, which is what takes decoders long."""
    file = io.BytesIO()
    channels = [Image.effect_noise((side, side), deviation) for deviation in (20, 60, 100)]
    Image.merge("RGB", channels).save(file, kind, **options)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """What is inspected."""
    picture = jpeg(1000)
    base64 = "A" * int(3.9 * MEBIBYTE)
    return bombs() | {
        "detailed webp": detailed(2800, "WEBP", quality=90, method=0),
        "detailed webp without loss": detailed(2800, "WEBP", lossless=True, quality=0, method=0),
        "detailed webp, moved": detailed(1400, "WEBP", quality=90, method=0, save_all=True),
        "detailed png": detailed(3000, "PNG", compress_level=1),
        "detailed gif": detailed(3500, "GIF"),
        "detailed jpeg": detailed(4000, "JPEG", quality=95),
        "detailed progressive jpeg": detailed(3000, "JPEG", quality=95, progressive=True),
        "json: 256 KB of numbers": b"[" + b"1," * 131_000 + b"1]",
        "json: 256 KB of strings": b"[" + b'"",' * 87_000 + b"1]",
        "json: 256 KB of objects": b"[" + b'{"a":{}},' * 29_000 + b"1]",
        "svg: 1 MB of CSS": svg("<style>" + "a{fill:url(#b)}" * (MEBIBYTE // 16) + "</style>"),
        "svg: 120 KB of CSS": svg("<style>" + "a{fill:url(#b)}" * 8000 + "</style>"),
        "svg: CSS of brackets": svg("<style>" + "url(#a)" + "(" * 120_000 + "</style>"),
        "svg: image of 3.9 MB": svg(f'<image href="data:image/png;base64,{base64}"/>'),
        "svg: attribute of 3.9 MB": svg("", 'd="' + "M 1 1 " * (len(base64) // 6) + '"'),
        "svg: attribute of 900 KB": svg("", 'd="' + "M 1 1 " * 150_000 + '"'),
        "svg: text of 15 MB": svg("x y " * (15 * MEBIBYTE // 4)),
        "svg: 190,000 elements": svg("<g/>" * 190_000),
        "jpeg: 50 MB of zeros behind": picture + bytes(50 * MEBIBYTE),
        "jpeg: 50 MB of FF behind": picture + b"\xff" * (50 * MEBIBYTE),
        "jpeg: 50 MB of data without end": picture[:-2] + b"x" * (50 * MEBIBYTE),
        "jpeg: 50 MB of FF without end": picture[:-2] + b"\xff" * (50 * MEBIBYTE),
        "jpeg: 50 MB of FF 00 without end": picture[:-2] + b"\xff\x00" * (25 * MEBIBYTE),
    }


async def longest_pause(stopped: asyncio.Event) -> float:
    """Seconds of work that were done at most while the event loop stood still."""
    longest, last = 0.0, time.process_time()
    while not stopped.is_set():
        await asyncio.sleep(0.001)
        now = time.process_time()
        longest, last = max(longest, now - last), now
    return longest


async def measure(
    inspector: Inspector, threads: FileThreads, content: bytes, declared: str | None
) -> tuple[float, str]:
    """The longest pause, and what became of the file."""
    stopped = asyncio.Event()
    async with receive(io.BytesIO(content), 64 * MEBIBYTE, threads) as received:
        watching = asyncio.create_task(longest_pause(stopped))
        await asyncio.sleep(0.01)
        try:
            await inspector.inspect(received, declared)
            end = "accepted"
        except DataLayerError as error:
            end = str(error)[:80]
        stopped.set()
        return await watching, end


async def main() -> None:
    """Print a line for each file."""
    inspector = Inspector(FileLimits(64 * MEBIBYTE, KNOWN_TYPES, thumbnail_sizes=(200, 800)))
    threads = FileThreads(2)
    for name, content in files().items():
        runs = [await measure(inspector, threads, content, None) for _ in range(REPETITIONS)]
        pause = 1000 * min(pause for pause, _ in runs)
        mark = "  too long" if pause > ALLOWED else ""
        sys.stdout.write(f"{name:36} {pause:6.0f} ms  {runs[0][1]}{mark}\n")
    await inspector.close()
    await threads.close()


if __name__ == "__main__":
    asyncio.run(main())
