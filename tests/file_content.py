"""Files made for the tests: good ones, and nasty ones."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

from PIL import Image

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
PAGE = (
    b"<!doctype html>\n<html><head><title>Page</title></head><body>"
    + b"<p>Hello, world.</p>\n" * 200
    + b"</body></html>\n"
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="3" fill="red"/></svg>'


def picture(
    image_format: str = "PNG", size: tuple[int, int] = (300, 200), color: Any = (200, 30, 60), **options: Any
) -> bytes:
    """A picture of one colour with a mark in it, so that two of different colours differ."""
    image = Image.new("RGB", size, color)
    image.paste((10, 20, 30), (0, 0, max(1, size[0] // 10), max(1, size[1] // 10)))
    return encoded(image, image_format, **options)


def noise(width: int, height: int) -> bytes:
    """A picture that cannot be compressed: three bytes for each of its points."""
    return encoded(Image.frombytes("RGB", (width, height), os.urandom(3 * width * height)), "PNG")


def animation(image_format: str, frames: int = 3, size: tuple[int, int] = (60, 40)) -> bytes:
    images = [Image.new("RGB", size, (12 * number % 256, 90, 10)) for number in range(frames)]
    return encoded(images[0], image_format, save_all=True, append_images=images[1:], duration=50)


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def chunked(content: bytes, size: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
