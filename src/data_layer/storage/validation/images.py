"""Decoding images with Pillow: their colors and their thumbnails, within bounds of memory and time.

Decoded is the first frame alone, without anything optional, and never all of a large image at once where the format
allows that: a PNG strip by strip, a JPEG at a fraction of its size. What would take more memory than there is for
decoding is not decoded: the image is stored all the same, without thumbnails.

An image is decoded once to see that it can be shown, which needs it in no size, and again for its thumbnails, which
nobody waits for.

A thread cannot be killed, so its work is bounded: a decoder gets the file through a reader that stops it once its time
is over.

One budget bounds the memory of everything that the process decodes at the same time: a file of 34 bytes can unfold to a
gigabyte, and limits for each image do not help, because many arrive at once.
"""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from PIL import Image, ImageCms, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from data_layer.errors import CorruptFileError, ImageTimeoutError, ImageTooLargeError, InvalidFileError
from data_layer.observability.log import get_log
from data_layer.storage.validation.containers import (
    Picture,
    Pieces,
    PngLayout,
    png_chunk,
    png_file,
    read_picture,
    still_png,
    stored_pieces,
)
from data_layer.storage.validation.received import (
    FileLimits,
    ImageFacts,
    InspectedFile,
    JoinedFile,
    ReceivedFile,
    Span,
    Thumbnail,
)

_SHARE = 3
"""Of the container's memory limit, decoding gets at most one part in so many."""

_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class MemoryBudget:
    """Bytes that are reserved before they are used; callers wait in turn where too few are left."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reserved = 0
        self._waiting: list[object] = []

    @contextmanager
    def reserve(self, size: int, limit: int, seconds: float) -> Iterator[None]:
        """Hold so many bytes while the block runs.

        Args:
            size: how many bytes; no more than the limit.
            limit: how many may be held by all blocks together.
            seconds: how long to wait for them at most.

        Raises:
            ImageTimeoutError: they were not free in time.
        """
        turn = object()
        deadline = time.monotonic() + seconds
        with self._changed:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or self._reserved + size > limit:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() > deadline:
                        raise ImageTimeoutError("too many large images are being decoded; try again later")
                self._reserved += size
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= size
                self._changed.notify_all()


DECODING = MemoryBudget()
"""The budget of this process."""


def bounded_by_container(limit: int) -> int:
    """A limit in bytes, or less where the container has little memory."""
    return min([limit, *(int(size) // _SHARE for size in map(_limit_in, _LIMIT_FILES) if size.isdigit())])


def _limit_in(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


log = get_log(__name__)

_COLOR_SAMPLE = (48, 48)
_OPAQUE = 128
_SEVERAL_COLORS = 8
_QUALITY = 80
# Of 0 to 6. The default of 4 takes twice as long for one percent fewer bytes (a screenshot of text, 800 pixels wide).
_METHOD = 2

_STRIP = 1024 * 1024
_READ = 64 * 1024
_MAX_SIDE = 500_000  # Pixels. Browsers show nothing of that size either.
_WAIT = 30.0
_OVERHEAD = 8 * 1024 * 1024
_WHOLE_PNG = 5_000_000  # Pixels. A PNG of up to so many is decoded at once, which is quicker than in strips.
_MAX_WEBP_CANVAS = 50_000_000
# Pillow holds the interpreter's lock while libwebp decodes: about 45 ms for so many pixels with something in each
# (benchmarks/inspection_stalls.py), and no other thread runs meanwhile.
_MAX_WEBP_DECODED = 12_000_000
_WEBP_PIXEL = 17  # Bytes: the canvas, the one before, a copy, the image, and the transparency of a lossy one.

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOR_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
}


def inspect_image(file: ReceivedFile, content_type: str, limits: FileLimits) -> InspectedFile:
    """What there is to know of an image, and its content as it is to be stored.

    Args:
        file: the file.
        content_type: its media type, by its signature.
        limits: how much may be decoded, and how long that may take.

    Raises:
        InvalidFileError: it cannot be shown, or is too much to decode; see the subclasses.
    """
    watch = _Watch(limits.time_limit)
    picture = read_picture(file, content_type, watch.check)
    _check_measures(picture, limits)
    try:
        # Thousands of single pixels show the colours as well as averages do, which take a tenth of all the time.
        preview = _preview(file, picture, max(_COLOR_SAMPLE), limits, watch, resampling=Image.Resampling.NEAREST)
    except ImageTimeoutError as error:
        log.warning("image_not_decoded", reason=str(error), width=picture.width, height=picture.height)
        preview = None
    width, height = picture.width, picture.height
    if picture.orientation >= 5:
        width, height = height, width
    color = None if preview is None else _dominant_color(preview)
    facts = ImageFacts(picture.image_format, width, height, picture.frame_count, color)
    kept = _stored(file, stored_pieces(picture, limits.metadata_removal))
    return InspectedFile(content_type, kept, facts)


def make_thumbnails(file: ReceivedFile, content_type: str, limits: FileLimits) -> list[Thumbnail]:
    """Small pictures of an image in those sizes of the limits that are smaller than it, largest first.

    There are none of an image whose decoding takes more memory or time than there is.

    Raises:
        ImageTimeoutError: too much else is being decoded; later it may work.
        InvalidFileError: it cannot be decoded.
    """
    watch = _Watch(limits.time_limit)
    picture = read_picture(file, content_type, watch.check)
    longest = max(picture.width, picture.height)
    sizes = sorted({size for size in limits.thumbnail_sizes if size < longest}, reverse=True)
    preview = _preview(file, picture, sizes[0], limits, watch) if sizes else None
    return [] if preview is None else [_thumbnail(preview, size) for size in sizes]


class _Watch:
    """Raises an exception once the time is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() > self._deadline:
            raise ImageTimeoutError("the image takes too long to decode (IMAGE_TIME_LIMIT)")

    def again(self) -> _Watch:
        """The same time from now on: reading and decoding have it each, and waiting for memory does not count."""
        return _Watch(self._seconds)


def _check_measures(picture: Picture, limits: FileLimits) -> None:
    if picture.width * picture.height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the image has {picture.width} x {picture.height} pixels; {limits.max_pixels} in all are allowed "
            "(IMAGE_MAX_PIXELS)"
        )
    if picture.frame_count > limits.max_frames:
        raise ImageTooLargeError(
            f"the image has {picture.frame_count} frames; {limits.max_frames} are allowed (IMAGE_MAX_FRAMES)"
        )


def _stored(file: ReceivedFile, pieces: Pieces) -> ReceivedFile:
    """The file made of these pieces; the very same where these are all of it, in order."""
    position = 0
    for piece in pieces:
        if isinstance(piece, Span):
            same = piece.start == position
            position = piece.stop
        else:
            same = file.read_part(position, len(piece)) == piece
            position += len(piece)
        if not same:
            return file.rearranged(pieces)
    return file if position == file.size else file.rearranged(pieces)


# The preview: an image with no more pixels than are wanted of it


def _preview(
    file: ReceivedFile,
    picture: Picture,
    wanted: int,
    limits: FileLimits,
    watch: _Watch,
    *,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image | None:
    """The first frame, its longest side no longer than wanted, the right way up and in sRGB.

    None where decoding takes more memory or time than there is: the image itself may be stored all the same.

    Raises:
        ImageTimeoutError: others had all the memory for too long.
        CorruptFileError: it cannot be decoded.
    """
    size = max(picture.width, picture.height)
    scale = max(1, size // (2 * wanted))
    limit = bounded_by_container(limits.memory_limit)
    needed = _memory_needed(picture, scale)
    holds_lock_for_long = picture.image_format == "WEBP" and picture.width * picture.height > _MAX_WEBP_DECODED
    if needed > limit or size > _MAX_SIDE or holds_lock_for_long:
        return None
    with DECODING.reserve(needed, limit, _WAIT):
        try:
            image = _reduced(file, picture, scale, watch.again(), resampling)
            image.thumbnail((wanted, wanted), resampling, reducing_gap=2.0)
            turn = _TRANSPOSITIONS.get(picture.orientation)
            return _in_srgb(image if turn is None else image.transpose(turn), picture.profile)
        except ImageTimeoutError as error:
            log.warning("image_not_decoded", reason=str(error), width=picture.width, height=picture.height)
            return None
        except InvalidFileError:
            raise
        except Exception as error:
            message = f"The image cannot be decoded: its {picture.image_format} data is cut off or damaged"
            raise CorruptFileError(message) from error


class _Scaling(NamedTuple):
    """By which whole numbers an image is made smaller, and how many of its rows at a time."""

    across: int
    down: int
    rows: int


def _scaling(width: int, row: int, scale: int) -> _Scaling:
    """How to scale an image whose rows are so wide, in pixels and in bytes. Very long rows are taken one by one."""
    down = scale if scale * row <= _STRIP else 1
    return _Scaling(scale, down, max(1, _STRIP // max(1, row, 4 * width) // down) * down)


def _memory_needed(picture: Picture, scale: int) -> int:
    """Bytes that decoding takes at its peak."""
    across, down, rows = _scaling(picture.width, _row(picture), scale)
    reduced = (picture.width // across + 1) * (picture.height // down + 1)
    # The strip in colors, with multiplied transparency, and as it was before; and all strips made smaller.
    needed = _OVERHEAD + 12 * picture.width * min(rows, picture.height) + 8 * reduced
    pixels = picture.frame.width * picture.frame.height
    if picture.image_format == "WEBP":
        return needed + _WEBP_PIXEL * pixels + 2 * JoinedFile(_NOTHING, stored_pieces(picture, "none")).size
    if picture.image_format == "GIF":
        return needed + pixels
    if picture.png is None:
        draft = _draft_scale(scale)
        return needed + round(picture.coefficients * pixels) + 4 * pixels // draft**2 + 64 * picture.width
    if picture.png.interlaced:
        return needed + 4 * pixels + 4 * _row(picture)
    strips = 8 * _row(picture) * min(rows, picture.height)
    return needed + max(strips, 4 * pixels if _is_small_png(picture.png, pixels) else 0)


def _is_small_png(layout: PngLayout, pixels: int) -> bool:
    """Whether to decode it at once; of sixteen bits Pillow would cut off what is above the lower eight."""
    return not layout.interlaced and layout.depth <= 8 and pixels <= _WHOLE_PNG


def _row(picture: Picture) -> int:
    """Bytes of a row, as a PNG has them."""
    return picture.width * 4 if picture.png is None else (picture.width * picture.png.bits + 7) // 8


def _draft_scale(scale: int) -> int:
    """How much smaller a JPEG is decoded: a power of two, up to 8."""
    return next(step for step in (8, 4, 2, 1) if scale >= step)


_NOTHING = ReceivedFile.of_bytes(b"")


def _reduced(
    file: ReceivedFile, picture: Picture, scale: int, watch: _Watch, resampling: Image.Resampling
) -> Image.Image:
    """The first frame on its canvas, made smaller by a whole number."""
    width, height = picture.width, picture.height
    source = JoinedFile(file, picture.still, watch.check)
    if picture.image_format == "WEBP" and width * height <= _MAX_WEBP_CANVAS:
        # Browsers read a WebP as a whole with the same library. The canvas is not touched, and takes no memory.
        WebPImageFile(cast("BinaryIO", JoinedFile(file, stored_pieces(picture, "none"), watch.check))).close()
    image = None if picture.png is None else _small_png(file, picture, picture.png, watch)
    if image is None and picture.png is not None and not picture.png.interlaced:
        scaling = _scaling(width, _row(picture), scale)
        strips = _png_strips(source, picture, picture.png, scaling.rows)
    else:
        if image is None:
            image = _decoded(source, picture, scale)
        if picture.image_format == "JPEG":
            scale = max(1, scale // _draft_scale(scale))
            width, height = image.size
        scaling = _scaling(image.width, 4 * image.width, scale)
        if picture.frame[2:] == (picture.width, picture.height) and _is_opaque_in_colors(image):
            return _smaller(image, scaling, resampling)  # Which copies nothing, so strips would save nothing.
        strips = (
            image.crop((0, top, image.width, min(top + scaling.rows, image.height)))
            for top in range(0, image.height, scaling.rows)
        )
    canvas: Image.Image | None = None
    across, down = scaling.across, scaling.down
    left, top = picture.frame.left // across, picture.frame.top // down
    for strip in strips:
        watch.check()
        small = _smaller(_in_colors(strip), scaling, resampling)
        if canvas is None:
            whole = picture.frame[2:] == (picture.width, picture.height)
            size = (-(-width // across), -(-height // down))
            canvas = Image.new(small.mode if whole else "RGBA", size)
        canvas.paste(small, (left, top))
        top += small.height
    if canvas is None:
        raise CorruptFileError(f"the image is cut off: its {picture.image_format} data has no row of pixels")
    return canvas


def _smaller(image: Image.Image, scaling: _Scaling, resampling: Image.Resampling) -> Image.Image:
    """The image made smaller: averages of its pixels, or with NEAREST single ones."""
    if resampling is not Image.Resampling.NEAREST:
        return image.reduce((scaling.across, scaling.down))
    size = (-(-image.width // scaling.across), -(-image.height // scaling.down))
    return image.resize(size, resampling)


def _decoded(source: JoinedFile, picture: Picture, scale: int) -> Image.Image:
    """The first frame, all of it; as much of it as there is, where it is cut off."""
    image = _PLUGINS[picture.image_format](cast("BinaryIO", source))
    if picture.image_format == "JPEG":
        draft = _draft_scale(scale)
        image.draft(image.mode, (max(1, image.width // draft), max(1, image.height // draft)))
    try:
        image.load()
    except OSError:
        if picture.image_format not in {"GIF", "PNG"}:
            raise
        image.tile = []  # What was decoded before the fault is there.
        image.load()
    return image


def _small_png(file: ReceivedFile, picture: Picture, layout: PngLayout, watch: _Watch) -> Image.Image | None:
    """Decode a small PNG at once; None where it is large, or damaged: its strips show what comes before the damage."""
    if not _is_small_png(layout, picture.width * picture.height):
        return None
    pieces = still_png(layout, file.read_part(0, 33), picture.still)
    try:
        image = PngImageFile(cast("BinaryIO", JoinedFile(file, pieces, watch.check)))
        image.load()
    except (OSError, SyntaxError):  # Pillow calls a broken chunk a syntax error.
        return None
    return image


# PNG, strip by strip


def _png_strips(source: JoinedFile, picture: Picture, layout: PngLayout, rows: int) -> Iterator[Image.Image]:
    """The rows of a PNG as images, as far as they are there.

    Pillow decodes a PNG as a whole only. So each strip is made a PNG of its own: its first row is the last row of the
    strip before, to which the filters of PNG refer, and is cut off again. Of sixteen bits the lower eight are left out
    before, which is possible because filters never mix them with the upper ones.
    """
    row = (picture.width * layout.bits + 7) // 8
    deep = layout.depth == 16
    step = max(1, layout.bits // 8) // (2 if deep else 1)
    length = row // 2 if deep else row
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[step]
    before = bytes(length)
    unpacked = _Inflated(source)
    done = 0
    while done < picture.height:
        wanted = min(rows, picture.height - done)
        filtered = unpacked.read(wanted * (row + 1))
        number = len(filtered) // (row + 1)
        if number == 0:
            return
        lines = bytearray(b"\x00" + before)
        for start in range(0, number * (row + 1), row + 1):
            # A filter that does not exist is none; browsers go on as well.
            lines += filtered[start : start + 1] if filtered[start] <= 4 else b"\x00"
            lines += filtered[start + 1 : start + row + 1 : 2 if deep else 1]
        header = struct.pack(">IIBBBBB", length // step, number + 1, 8, color_type, 0, 0, 0)
        data = png_chunk(b"IDAT", zlib.compress(lines, 0))
        strip = PngImageFile(io.BytesIO(png_file(png_chunk(b"IHDR", header), data)))
        strip.load()
        before = strip.crop((0, number, strip.width, number + 1)).tobytes()
        yield _as_pixels(strip.crop((0, 1, strip.width, number + 1)), picture.width, layout)
        done += number


def _as_pixels(strip: Image.Image, width: int, layout: PngLayout) -> Image.Image:
    """The image that unfiltered bytes mean."""
    mode = _PNG_MODES[layout.color_type]
    if layout.depth < 8:
        if layout.depth == 1 and mode == "L":
            strip = Image.frombytes("1", (width, strip.height), strip.tobytes(), "raw", "1").convert("L")
        else:
            strip = Image.frombytes(mode, (width, strip.height), strip.tobytes(), "raw", f"{mode};{layout.depth}")
    elif mode == "P":
        strip = Image.frombytes("P", strip.size, strip.tobytes())
    if mode == "P":
        strip.putpalette(layout.palette.ljust(3, b"\x00")[: len(layout.palette) // 3 * 3 or 3])
    transparency = _transparency(layout)
    if transparency is not None:
        strip.info["transparency"] = transparency
    return strip


def _transparency(layout: PngLayout) -> bytes | int | tuple[int, ...] | None:
    """Which color is transparent, or how much each color of the palette is, in the form in which Pillow has it."""
    data = layout.transparency
    if layout.color_type == 3:
        return data or None
    samples = {0: 1, 2: 3}.get(layout.color_type)
    if samples is None or len(data) < 2 * samples:
        return None
    values: list[int] = [
        value >> 8 if layout.depth == 16 else value & 0xFF for value in struct.unpack_from(f">{samples}H", data)
    ]
    if samples == 3:
        return tuple(values)
    return values[0] * 255 // ((1 << min(layout.depth, 8)) - 1)


class _Inflated:
    """The unpacked data of a PNG, as far as it can be unpacked; never more of it in memory than is asked for."""

    def __init__(self, source: JoinedFile) -> None:
        self._source = source
        self._packed = source.read(_READ)[2:]
        # Without the checksum of the whole, which browsers do not look at.
        self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)

    def read(self, size: int) -> bytes:
        """At most so many bytes; fewer only at the end."""
        pieces: list[bytes] = []
        while size > 0 and not self._unpacker.eof:
            self._packed = self._packed or self._source.read(_READ)
            if not self._packed:
                break
            before = self._unpacker.copy()
            try:
                piece = self._unpacker.decompress(self._packed, min(size, _STRIP))
                self._packed = self._unpacker.unconsumed_tail
            except zlib.error:  # What comes before a damaged place is shown.
                pieces.append(_until_damage(before, self._packed)[:size])
                self._packed, self._source = b"", _NO_SOURCE
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _until_damage(unpacker: zlib._Decompress, packed: bytes) -> bytes:
    pieces: list[bytes] = []
    with suppress(zlib.error):
        pieces.extend(unpacker.decompress(packed[place : place + 1]) for place in range(len(packed)))
    return b"".join(pieces)


_NO_SOURCE = JoinedFile(_NOTHING, [])


# Colors


def _in_colors(image: Image.Image) -> Image.Image:
    """The image with eight bits for each color, and transparency if it has any: L, LA, RGB, RGBA or CMYK."""
    if image.has_transparency_data and image.mode != "LA":
        return image.convert("RGBA")
    if image.mode.startswith("I"):
        # Sixteen bits of grey, which Pillow does not scale down by itself.
        return image.convert("I").point([value >> 8 for value in range(1 << 16)], "L")
    if image.mode in {"L", "LA", "RGB", "CMYK"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _is_opaque_in_colors(image: Image.Image) -> bool:
    """Whether ``_in_colors`` leaves it as it is, and none of its pixels is transparent."""
    return image.mode in {"L", "RGB", "CMYK"} and not image.has_transparency_data


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in the colors of sRGB, as RGB or RGBA. A profile that cannot be used is as good as none."""
    alpha = image.getchannel("A") if image.mode in {"LA", "RGBA"} else None
    opaque = image.convert({"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)) if alpha else image
    converted = None if profile is None else _converted(opaque, profile)
    colored = opaque.convert("RGB") if converted is None else converted
    if alpha is not None:
        colored.putalpha(alpha)
    return colored


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    with suppress(Exception):  # A profile may be any nonsense, and lcms reports that in many ways.
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _COLOR_SPACES.get(source.profile.xcolor_space.strip())
        if mode == image.mode or (mode == "RGB" and image.mode == "L"):
            target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            return ImageCms.profileToProfile(image.convert(mode), source, target, outputMode="RGB")
    return None


def _dominant_color(image: Image.Image) -> str | None:
    sample = image.resize(_COLOR_SAMPLE, Image.Resampling.BOX)
    small = _opaque(sample) if sample.mode == "RGBA" else sample
    if small is None:
        return None
    reduced = small.quantize(_SEVERAL_COLORS, method=Image.Quantize.MEDIANCUT)
    palette = reduced.getpalette() or []
    index, _ = Counter(reduced.tobytes()).most_common(1)[0]
    return "#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3])


def _opaque(image: Image.Image) -> Image.Image | None:
    """A row of those pixels that are rather opaque, without their transparency."""
    data = image.tobytes()
    opaque = b"".join(data[place : place + 3] for place in range(0, len(data), 4) if data[place + 3] >= _OPAQUE)
    return Image.frombytes("RGB", (len(opaque) // 3, 1), opaque) if opaque else None


def _thumbnail(image: Image.Image, size: int) -> Thumbnail:
    """A small picture; the image is as small afterwards."""
    image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=_METHOD)
    return Thumbnail(size, image.width, image.height, ReceivedFile.of_bytes(file.getvalue()))
