"""Decoding images with Pillow, within limits.

A thread cannot be killed, so its work is bounded instead: the header is read first and refused if the pixels or frames
are too many, and the decoder gets the file through a reader that stops it once its time is over. What remains between
two reads, one block of 64 KiB or one WebP frame, is bounded by the pixels.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from typing import TYPE_CHECKING

from PIL import Image
from typing_extensions import override

from data_layer.errors import CorruptFileError, ImageTimeoutError, ImageTooLargeError, InvalidFileError
from data_layer.storage.validation.results import ImageFacts
from data_layer.storage.validation.structure import outline
from data_layer.storage.validation.thumbnails import in_colors, make_preview

if TYPE_CHECKING:
    from typing import NoReturn

    from data_layer.storage.validation.limits import FileLimits

_ORIENTATION = 0x0112
_TURNED = frozenset({5, 6, 7, 8})
_COLOR_SAMPLE = (48, 48)
_OPAQUE = 128
_SEVERAL_COLORS = 8


def inspect_image(
    content: bytes, content_type: str, limits: FileLimits, deadline: float
) -> tuple[ImageFacts, Image.Image | None]:
    """Decode every frame of an image: what there is to know of it, and what its thumbnails are made of.

    Args:
        content: the file.
        content_type: its media type, by its signature.
        limits: how much may be decoded.
        deadline: when to give up, on the monotonic clock.

    Raises:
        InvalidFileError: it is damaged, hides something behind its end, or is too much to decode; see the subclasses.
    """
    measures = outline(content, content_type)
    if measures.width * measures.height > limits.max_pixels:
        raise ImageTooLargeError(
            f"The image has {measures.width} x {measures.height} pixels; {limits.max_pixels} in all are allowed "
            "(IMAGE_MAX_PIXELS)"
        )
    if measures.frame_count > limits.max_frames:
        raise ImageTooLargeError(
            f"The image has {measures.frame_count} frames; {limits.max_frames} are allowed (IMAGE_MAX_FRAMES)"
        )
    try:
        with Image.open(_TimedReader(content, deadline), formats=[measures.image_format]) as image:
            if image.size != (measures.width, measures.height):
                _contradiction(content_type)
            image.load()
            color = _dominant_color(image)
            preview = make_preview(image, limits.thumbnail_sizes)
            _decode_further(image, measures.frame_count, deadline)
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            width, height = (image.height, image.width) if turned else image.size
    except InvalidFileError:
        raise
    except Exception as error:
        raise CorruptFileError(f"The {content_type} cannot be decoded: it is cut off or damaged") from error
    return ImageFacts(measures.image_format, width, height, measures.frame_count, color), preview


def _contradiction(content_type: str) -> NoReturn:
    raise CorruptFileError(f"The {content_type} contradicts itself about its size")


class _TimedReader(io.BytesIO):
    """A file in memory that a decoder cannot read any more once its time is over."""

    def __init__(self, content: bytes, deadline: float) -> None:
        super().__init__(content)
        self._deadline = deadline

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        _check_time(self._deadline)
        return super().read(size)


def _decode_further(image: Image.Image, frames: int, deadline: float) -> None:
    """Load the other frames as well, and go back to the first."""
    for number in range(1, frames if getattr(image, "is_animated", False) else 1):
        _check_time(deadline)
        image.seek(number)
        image.load()
    image.seek(0)


def _dominant_color(image: Image.Image) -> str | None:
    # Converted after it was made smaller where that is the same; a colour that stands for transparency survives both.
    colored = image if image.mode == "RGB" else in_colors(image)
    small = colored.resize(_COLOR_SAMPLE, Image.Resampling.BOX).convert("RGBA")
    opaque = [pixel[:3] for pixel in _pixels(small) if pixel[3] >= _OPAQUE]
    if not opaque:
        return None
    row = Image.new("RGB", (len(opaque), 1))
    row.putdata(opaque)
    reduced = row.quantize(_SEVERAL_COLORS, method=Image.Quantize.MEDIANCUT)
    palette = reduced.getpalette() or []
    index, _ = Counter(reduced.tobytes()).most_common(1)[0]
    return "#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3])


def _pixels(image: Image.Image) -> list[tuple[int, ...]]:
    data = image.tobytes()
    return [tuple(data[place : place + 4]) for place in range(0, len(data), 4)]


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise ImageTimeoutError("The image takes too long to decode (IMAGE_TIME_LIMIT)")
