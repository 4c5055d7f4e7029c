"""Odd picture files, as cameras, editors and broken transfers make them.

Most show four colored quarters, so that it can be seen which way up they are; those that are cut off show noise.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from PIL import Image, ImageCms

from tests.file_content import encoded

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
WIDTH, HEIGHT = 96, 64
EXIF = b"Exif\x00\x00"
ORIENTATION, X_RESOLUTION, MAKE, GPS, EXIF_POINTER = 0x0112, 0x011A, 0x010F, 0x8825, 0x8769
SHORT, LONG, ASCII, RATIONAL, BYTE, UNDEFINED = 3, 4, 2, 5, 1, 7


def quarters(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Red, green, blue and yellow, from the upper left to the lower right."""
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image if mode == "RGB" else image.convert(mode, dither=Image.Dither.NONE)


def noisy(mode: str = "RGB") -> Image.Image:
    """A picture that compresses badly, so that being cut off costs it rows."""
    image = Image.frombytes("L", (WIDTH, HEIGHT), random.Random(1).randbytes(WIDTH * HEIGHT))
    return image.point(lambda value: 32 + value * 3 // 4).convert(mode)


def jpeg(image: Image.Image | None = None, **options: Any) -> bytes:
    return encoded(image or quarters(), "JPEG", **{"quality": 95, "subsampling": 0, **options})


def png(image: Image.Image | None = None, **options: Any) -> bytes:
    return encoded(image or quarters(), "PNG", **options)


def webp(image: Image.Image | None = None, **options: Any) -> bytes:
    return encoded(image or quarters(), "WEBP", **options)


def gif(image: Image.Image | None = None, **options: Any) -> bytes:
    return encoded(image or quarters(), "GIF", **options)


# The segments of JPEG


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(content: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments right behind its beginning."""
    return content[:2] + b"".join(segments) + content[2:]


def tag(number: int, kind: int, count: int, value: bytes) -> tuple[int, int, int, bytes]:
    return number, kind, count, value


def tiff(*tags: tuple[int, int, int, bytes], order: str = "<", offset: int = 8, following: int = 0) -> bytes:
    """TIFF data as EXIF holds it; a value of four bytes is inline, a longer one follows the directory."""
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}I", offset)
    directory = struct.pack(f"{order}H", len(tags))
    behind = b""
    place = offset + 2 + 12 * len(tags) + 4
    for number, kind, count, value in tags:
        if len(value) > 4:
            directory += struct.pack(f"{order}HHII", number, kind, count, place + len(behind))
            behind += value
        else:
            directory += struct.pack(f"{order}HHI", number, kind, count) + value.ljust(4, b"\x00")
    return head.ljust(offset, b"\x00") + directory + struct.pack(f"{order}I", following) + behind


def orientation(value: int, order: str = "<") -> tuple[int, int, int, bytes]:
    return tag(ORIENTATION, SHORT, 1, struct.pack(f"{order}H", value))


def odd_exif(value: int, order: str = "<") -> Iterator[tuple[str, bytes]]:
    """EXIF with this orientation and something odd beside it."""
    turned = orientation(value, order)
    long = f"{order}I"
    yield "plain", tiff(turned, order=order)
    yield "resolution as text", tiff(turned, tag(X_RESOLUTION, ASCII, 9, b"72 pixels"), order=order)
    yield "resolution of nothing", tiff(turned, tag(X_RESOLUTION, RATIONAL, 0, b""), order=order)
    yield "resolution over zero", tiff(turned, tag(X_RESOLUTION, RATIONAL, 1, bytes(8)), order=order)
    yield "unknown kind", tiff(turned, tag(0x9999, 99, 1, b"abcd"), order=order)
    yield "value outside", tiff(turned, tag(X_RESOLUTION, RATIONAL, 1, struct.pack(long, 60_000)), order=order)
    yield "huge count", tiff(turned, tag(MAKE, ASCII, 0xFFFF_FFF0, struct.pack(long, 8)), order=order)
    yield "place outside", tiff(turned, tag(GPS, LONG, 1, struct.pack(long, 90_000)), order=order)
    yield "place that is text", tiff(turned, tag(GPS, ASCII, 4, b"here"), order=order)
    yield "directory in a circle", tiff(turned, tag(EXIF_POINTER, LONG, 1, struct.pack(long, 8)), order=order)
    yield "next in a circle", tiff(turned, order=order, following=8)
    yield "next outside", tiff(turned, order=order, following=70_000)
    yield "tags out of order", tiff(tag(0x9999, SHORT, 1, b"\x01\x00"), turned, tag(MAKE, ASCII, 2, b"A"), order=order)
    yield "directory further on", tiff(turned, order=order, offset=64)
    yield "no end", tiff(turned, order=order)[:-4]
    yield (
        "more entries announced",
        tiff(turned, order=order).replace(struct.pack(f"{order}H", 1), struct.pack(f"{order}H", 200), 1),
    )
    yield "maker's note", tiff(tag(MAKE, ASCII, 12, b"A camera\xff\xfe\x00\x00"), turned, order=order) + bytes(99)
    yield "text that is not text", tiff(tag(MAKE, ASCII, 9, b"\xff\xd9\x00\x80\x81abc\x00"), turned, order=order)


def two_pictures() -> bytes:
    """Two JPEGs in one file (MPO), as phones write a photo and its depth or its gain map."""
    file = io.BytesIO()
    second = Image.new("RGB", (WIDTH // 2, HEIGHT // 2), (9, 9, 9))
    quarters().save(file, "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    return file.getvalue()


def strip_end(content: bytes) -> bytes:
    return content.removesuffix(b"\xff\xd9")


# The chunks of PNG


def chunk(kind: bytes, data: bytes, *, broken: bool = False) -> bytes:
    checksum = zlib.crc32(kind + data) ^ (0xFFFF if broken else 0)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def chunks_of(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        yield kind, content[position + 8 : position + 8 + length]
        position += 12 + length


def with_chunks(content: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    place = content.index(before) - 4
    return content[:place] + b"".join(chunks) + content[place:]


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int, height: int, depth: int = 8, kind: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))


def rows(image: Image.Image) -> bytes:
    data, length = image.tobytes(), len(image.tobytes()) // image.height
    return b"".join(b"\x00" + data[start : start + length] for start in range(0, len(data), length))


def split_png(content: bytes, size: int) -> bytes:
    """The same PNG with its compressed data in many small chunks."""
    parts = []
    for kind, data in chunks_of(content):
        if kind != b"IDAT":
            parts.append(chunk(kind, data))
        else:
            parts += [chunk(kind, data[place : place + size]) for place in range(0, len(data), size)]
    return png_of(*parts)


def png_deep(mode: str) -> bytes:
    """Sixteen bits for each channel."""
    image = quarters(mode)
    deep = b"".join(bytes((value, value)) for value in image.tobytes())
    length = len(deep) // HEIGHT
    data = b"".join(b"\x00" + deep[start : start + length] for start in range(0, len(deep), length))
    kind = {"RGB": 2, "RGBA": 6}[mode]
    return png_of(header(WIDTH, HEIGHT, 16, kind), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))


_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_interlaced(size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    image = quarters(size=size)
    data = bytearray()
    for left, top, across, down in _PASSES:
        for y in range(top, size[1], down):
            data.append(0)
            for x in range(left, size[0], across):
                data += bytes(image.getpixel((x, y)))  # type: ignore[arg-type]
    return png_of(header(*size, interlace=1), chunk(b"IDAT", zlib.compress(bytes(data))), chunk(b"IEND", b""))


def apng(image: Image.Image, *, apart: bool = False) -> bytes:
    other = Image.new("RGB", image.size, (9, 9, 9))
    return png(image, save_all=True, append_images=[other, image], duration=1000, default_image=apart)


# The blocks of GIF


def gif_image(left: int, top: int, image: Image.Image, **flags: Any) -> bytes:
    """An image block with a palette of its own, compressed by Pillow."""
    content = gif(image, optimize=False, **flags)
    size = 3 << ((content[10] & 7) + 1)
    palette, place = content[13 : 13 + size], content.index(b"\x2c", 13 + size)
    bits = content[10] & 7
    rest = content[place + 10 :].removesuffix(b";")
    shape = struct.pack("<HHHHB", left, top, image.width, image.height, 0x80 | content[place + 9] & 0x40 | bits)
    return b"\x2c" + shape + palette + rest


def gif_of(width: int, height: int, *blocks: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"".join(blocks) + b";"


# The chunks of WebP


def riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2)


def webp_of(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_parts(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position < len(content):
        kind, length = struct.unpack_from("<4sI", content, position)
        yield kind, content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def resized_riff(content: bytes, change: int) -> bytes:
    return content[:4] + struct.pack("<I", len(content) - 8 + change) + content[8:]


def vp8x(width: int, height: int, flags: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(b"VP8X", bytes((flags, 0, 0, 0)) + size)


def webp_with_exif(exif: bytes, prefix: bytes = b"") -> bytes:
    [(kind, data)] = webp_parts(webp(lossless=True))
    return webp_of(vp8x(WIDTH, HEIGHT, 0x08), riff(kind, data), riff(b"EXIF", prefix + exif))


# Profiles


def profile(primaries: Iterable[tuple[float, float, float]], gamma: float = 2.2, space: bytes = b"RGB ") -> bytes:
    """A colour profile (ICC v2) of three primaries, adapted to D50, and one gamma; or of a gamma alone for grey."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: Iterable[float]) -> bytes:
        return b"XYZ \x00\x00\x00\x00" + b"".join(map(number, values))

    curve = b"curv\x00\x00\x00\x00" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc\x00\x00\x00\x00" + struct.pack(">I", 5) + b"test\x00" + bytes(78)
    tags: list[tuple[bytes, bytes]] = [
        (b"desc", text + bytes(-len(text) % 4)),
        (b"cprt", b"text\x00\x00\x00\x00none\x00\x00\x00\x00"),
        (b"wtpt", xyz((0.9642, 1.0, 0.8249))),
    ]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags += [(name + b"XYZ", xyz(primary)), (name + b"TRC", curve)]
    place = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags:
        table += name + struct.pack(">II", place + len(data), len(value))
        data += value
    white = b"".join(map(number, (0.9642, 1.0, 0.8249)))
    head = struct.pack(">I4sI4s4s4s", place + len(data), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(4 + 4 + 4 + 4 + 8) + struct.pack(">I", 0) + white + b"none" + bytes(44)
    return head + table + data


DISPLAY_P3 = profile([(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)])
ADOBE_RGB = profile([(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)])
DARK_GREY = profile([], gamma=1.0, space=b"GRAY")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ICC = b"ICC_PROFILE\x00"


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def _jpegs() -> Iterator[tuple[str, bytes]]:  # noqa: PLR0915  (a list)
    good, noise = jpeg(), noisy()
    yield "plain", good
    yield "progressive", jpeg(progressive=True)
    yield "grey", jpeg(quarters("L"))
    yield "cmyk", jpeg(quarters("CMYK"))
    yield "subsampled", jpeg(subsampling=2)
    yield "restarts", jpeg(restart_marker_blocks=2)
    for number in range(1, 9):
        for order in "<>":
            for name, exif in odd_exif(number, order):
                yield f"orientation {number}{order} {name}", with_segments(good, segment(0xE1, EXIF + exif))
    six = segment(0xE1, EXIF + tiff(orientation(6)))
    yield (
        "orientation as long",
        with_segments(good, segment(0xE1, EXIF + tiff(tag(ORIENTATION, LONG, 1, b"\x06\0\0\0")))),
    )
    yield "orientation as byte", with_segments(good, segment(0xE1, EXIF + tiff(tag(ORIENTATION, BYTE, 1, b"\x06"))))
    yield "orientation as text", with_segments(good, segment(0xE1, EXIF + tiff(tag(ORIENTATION, ASCII, 2, b"6\0"))))
    yield (
        "orientation twice",
        with_segments(good, segment(0xE1, EXIF + tiff(tag(ORIENTATION, SHORT, 2, b"\x06\0\x06\0")))),
    )
    yield (
        "orientation of count 0",
        with_segments(good, segment(0xE1, EXIF + tiff(tag(ORIENTATION, SHORT, 0, b"\x06\0\0\0")))),
    )
    yield "two orientations", with_segments(good, segment(0xE1, EXIF + tiff(orientation(6), orientation(3))))
    yield "signed short", with_segments(good, segment(0xE1, EXIF + tiff(tag(ORIENTATION, 8, 1, b"\x06\0"))))
    for number in (0, 9, 255, 60_000):
        yield f"orientation {number}", with_segments(good, segment(0xE1, EXIF + tiff(orientation(number))))
    yield "exif twice", with_segments(good, six, segment(0xE1, EXIF + tiff(orientation(3))))
    yield "exif twice, first empty", with_segments(good, segment(0xE1, EXIF + tiff()), six)
    yield "exif twice, first broken", with_segments(good, segment(0xE1, EXIF + b"nonsense"), six)
    yield "exif after xmp", with_segments(good, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), six)
    yield "exif with another filler", with_segments(good, segment(0xE1, b"Exif\0\xff" + tiff(orientation(6))))
    yield "exif without filler", with_segments(good, segment(0xE1, b"Exif\0" + tiff(orientation(6))))
    yield (
        "exif without magic",
        with_segments(good, segment(0xE1, EXIF + tiff(orientation(6)).replace(b"II*\0", b"II+\0"))),
    )
    yield "exif empty", with_segments(good, segment(0xE1, EXIF))
    yield "exif cut", with_segments(good, segment(0xE1, EXIF + tiff(orientation(6))[:15]))
    scan = good.index(b"\xff\xda")
    yield "exif after tables", good[:scan] + six + good[scan:]
    yield (
        "xmp orientation",
        with_segments(
            good,
            segment(
                0xE1,
                b"http://ns.adobe.com/xap/1.0/\0"
                b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
                b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
                b"</rdf:RDF></x:xmpmeta>",
            ),
        ),
    )
    yield "two pictures", two_pictures()
    yield "two pictures, cut in the second", two_pictures()[:-200]
    yield "two pictures that are not listed", good + jpeg(noise)
    yield "two pictures, the list broken", with_segments(good, segment(0xE2, b"MPF\0II*\0" + b"\xff" * 40))
    yield "zeros behind", good + bytes(1000)
    yield "one byte behind", good + b"\0"
    yield "text behind", good + b"made by a camera"
    yield "page behind", good + b"<html><script>alert(1)</script></html>"
    yield "end twice", good + b"\xff\xd9"
    yield "no end", strip_end(good)
    yield "no end, zeros behind", strip_end(good) + bytes(64)
    yield "no end, half a marker", strip_end(good) + b"\xff"
    yield "no end, filled", strip_end(good) + b"\xff" * 9
    yield "no end, another picture behind", strip_end(good) + jpeg(noise)
    for share in (0.999, 0.9, 0.7):
        yield f"cut at {share}", cut(jpeg(noise), share)
        yield f"progressive, cut at {share}", cut(jpeg(noise, progressive=True), share)
    yield "fillers before markers", good.replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb")
    yield "junk between segments", good.replace(b"\xff\xdb", b"\0\1\2\xff\xdb", 1)
    yield "no jfif", good[:2] + good[20:]
    yield "comment", with_segments(good, segment(0xFE, b"a comment \xff\xd9 with an end in it"))
    yield "unknown segments", with_segments(good, segment(0xEF, b"x" * 50), segment(0xE5, b""), segment(0xF0, b"y"))
    yield "empty application segment", with_segments(good, segment(0xED, b""))
    yield "profile of nothing", with_segments(good, segment(0xE2, ICC + b"\1\1"))
    yield "profile cut", with_segments(good, segment(0xE2, ICC + b"\1\1" + SRGB[:200]))
    yield "profile of noise", with_segments(good, segment(0xE2, ICC + b"\1\1" + bytes(range(256))))
    yield "profile of other colours", with_segments(good, segment(0xE2, ICC + b"\1\1" + DARK_GREY))
    yield "profile half there", with_segments(good, segment(0xE2, ICC + b"\1\2" + SRGB[:300]))
    yield "profile numbered wrong", with_segments(good, segment(0xE2, ICC + b"\0\0" + SRGB))
    yield (
        "profile in two",
        with_segments(good, segment(0xE2, ICC + b"\1\2" + SRGB[:300]), segment(0xE2, ICC + b"\2\2" + SRGB[300:])),
    )
    yield "profile p3", jpeg(icc_profile=DISPLAY_P3)
    yield "profile adobe", jpeg(icc_profile=ADOBE_RGB)
    yield "profile grey", jpeg(quarters("L"), icc_profile=DARK_GREY)
    yield "adobe without transformation", _adobe_rgb(good)
    yield "begins twice", good[:2] + good
    damaged = bytearray(jpeg(noise))
    damaged[-300] ^= 0x55
    yield "a flipped bit", bytes(damaged)


def _adobe_rgb(_: bytes) -> bytes:
    return encoded(quarters(), "JPEG", quality=95, keep_rgb=True)


def _pngs() -> Iterator[tuple[str, bytes]]:  # noqa: PLR0915  (a list)
    good, noise = png(), png(noisy())
    yield "plain", good
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        yield (
            mode,
            png(
                quarters("L").convert("I").point(lambda v: v * 257, "I").convert("I;16")
                if mode == "I;16"
                else quarters(mode)
            ),
        )
    yield "two bits", png(quarters("P").quantize(4), bits=2)
    yield "palette with transparency", png(quarters("P"), transparency=bytes([255, 128, 0, 9]))
    yield "deep", png_deep("RGB")
    yield "deep with alpha", png_deep("RGBA")
    yield "interlaced", png_interlaced()
    yield "interlaced, small", png_interlaced((3, 2))
    yield "animated", apng(quarters())
    yield "animated, default apart", apng(quarters(), apart=True)
    yield "animated, no frames", with_chunks(good, chunk(b"acTL", struct.pack(">II", 0, 0)))
    yield "animated, cut list", with_chunks(good, chunk(b"acTL", b"\0\0\0\2"))
    yield "animated, frames missing", with_chunks(good, chunk(b"acTL", struct.pack(">II", 9, 0)))
    for kind, data in (
        (b"tEXt", b"a\0b"),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"pHYs", bytes(9)),
        (b"iCCP", b"x\0\0" + zlib.compress(SRGB)),
        (b"teST", b""),
    ):
        yield f"wrong checksum of {kind.decode()}", with_chunks(good, chunk(kind, data, broken=True))
    yield "wrong checksum of data", png_of(*(chunk(k, d, broken=k == b"IDAT") for k, d in chunks_of(good)))
    yield "wrong checksum of the end", png_of(*(chunk(k, d, broken=k == b"IEND") for k, d in chunks_of(good)))
    yield "wrong checksum of the header", png_of(*(chunk(k, d, broken=k == b"IHDR") for k, d in chunks_of(good)))
    paletted = png(quarters("P"))
    yield "wrong checksum of the palette", png_of(*(chunk(k, d, broken=k == b"PLTE") for k, d in chunks_of(paletted)))
    yield "no end", good[:-12]
    yield "no checksum of the end", good[:-4]
    yield "end with data", good[:-12] + chunk(b"IEND", b"abc")
    yield "zeros behind", good + bytes(100)
    yield "page behind", good + b"<html><script>alert(1)</script></html>"
    yield "zip behind", good + b"PK\x05\x06" + bytes(18)
    yield "one byte behind", good + b"\n"
    for share in (0.999, 0.9, 0.7):
        yield f"cut at {share}", cut(noise, share)
    data = b"".join(data for kind, data in chunks_of(good) if kind == b"IDAT")
    shape = header(WIDTH, HEIGHT)
    yield "data in single bytes", split_png(good, 1)
    yield (
        "empty data",
        png_of(shape, chunk(b"IDAT", b""), chunk(b"IDAT", data), chunk(b"IDAT", b""), chunk(b"IEND", b"")),
    )
    yield "wrong sum of the data", png_of(shape, chunk(b"IDAT", data[:-4] + b"abcd"), chunk(b"IEND", b""))
    yield "no sum of the data", png_of(shape, chunk(b"IDAT", data[:-4]), chunk(b"IEND", b""))
    yield (
        "more data than pixels",
        png_of(shape, chunk(b"IDAT", zlib.compress(rows(quarters()) + bytes(5000))), chunk(b"IEND", b"")),
    )
    yield "junk behind the data", png_of(shape, chunk(b"IDAT", data + b"junk" * 50), chunk(b"IEND", b""))
    yield (
        "data interrupted",
        png_of(
            shape, chunk(b"IDAT", data[:99]), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", data[99:]), chunk(b"IEND", b"")
        ),
    )
    yield (
        "less data than pixels",
        png_of(shape, chunk(b"IDAT", zlib.compress(rows(quarters())[:-5000])), chunk(b"IEND", b"")),
    )
    yield (
        "one wrong row",
        png_of(shape, chunk(b"IDAT", zlib.compress(_odd_row(rows(quarters()), 60))), chunk(b"IEND", b"")),
    )
    yield "unknown chunks", with_chunks(good, chunk(b"abCd", b"x" * 9), chunk(b"zzZz", b""))
    yield "unknown critical chunk", with_chunks(good, chunk(b"ABCD", b"x" * 9))
    yield "text behind the data", with_chunks(good, chunk(b"tEXt", b"a\0b"), before=b"IEND")
    yield "gamma behind the data", with_chunks(good, chunk(b"gAMA", struct.pack(">I", 45455)), before=b"IEND")
    yield "gamma of zero", with_chunks(good, chunk(b"gAMA", bytes(4)))
    yield "gamma cut", with_chunks(good, chunk(b"gAMA", bytes(2)))
    yield "gamma twice", with_chunks(good, *[chunk(b"gAMA", struct.pack(">I", 45455))] * 2)
    yield "resolution cut", with_chunks(good, chunk(b"pHYs", b"\0\1"))
    yield "time of nonsense", with_chunks(good, chunk(b"tIME", b"\xff" * 7))
    yield (
        "text of nonsense",
        with_chunks(good, chunk(b"zTXt", b"a\0\0nonsense"), chunk(b"iTXt", b"\xff"), chunk(b"tEXt", b"")),
    )
    yield "text that unfolds", with_chunks(good, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(90_000_000), 9)))
    yield "transparency where there is alpha", with_chunks(png(quarters("RGBA")), chunk(b"tRNS", b"\0\1\0\2\0\3"))
    yield "transparency cut", with_chunks(good, chunk(b"tRNS", b"\0"))
    yield "transparency longer than the palette", with_chunks(paletted, chunk(b"tRNS", b"\xff" * 256))
    yield "palette behind transparency", _moved_palette(paletted)
    yield "palette too short", _short_palette(paletted)
    yield "palette suggested", with_chunks(good, chunk(b"PLTE", bytes(9)))
    yield "significant bits of nonsense", with_chunks(good, chunk(b"sBIT", b"\x63" * 3))
    yield "background of nonsense", with_chunks(good, chunk(b"bKGD", b"\xff"))
    yield "profile broken", with_chunks(good, chunk(b"iCCP", b"x\0\0" + b"nonsense"))
    yield "profile of noise", with_chunks(good, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(range(256)))))
    yield "profile without name", with_chunks(good, chunk(b"iCCP", b""))
    yield "profile of other colours", with_chunks(good, chunk(b"iCCP", b"x\0\0" + zlib.compress(DARK_GREY)))
    yield "profile that unfolds", with_chunks(good, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(90_000_000), 9)))
    yield "profile p3", png(icc_profile=DISPLAY_P3)
    yield "profile grey", png(quarters("L"), icc_profile=DARK_GREY)
    for number in range(1, 9):
        for name, exif in odd_exif(number):
            yield f"orientation {number} {name}", with_chunks(good, chunk(b"eXIf", exif))
    yield "orientation behind", with_chunks(good, chunk(b"eXIf", tiff(orientation(6))), before=b"IEND")
    yield "orientation with prefix", with_chunks(good, chunk(b"eXIf", EXIF + tiff(orientation(6))))
    yield "orientation with a wrong checksum", with_chunks(good, chunk(b"eXIf", tiff(orientation(6)), broken=True))
    yield (
        "orientation twice",
        with_chunks(good, chunk(b"eXIf", tiff(orientation(6))), chunk(b"eXIf", tiff(orientation(3)))),
    )


def _odd_row(data: bytes, row: int) -> bytes:
    place = row * (3 * WIDTH + 1)
    return data[:place] + b"\x09" + data[place + 1 :]


def _moved_palette(content: bytes) -> bytes:
    parts = list(chunks_of(content))
    order = [b"IHDR", b"tRNS", b"PLTE", b"IDAT", b"IEND"]
    parts.append((b"tRNS", b"\xff" * 3))
    return png_of(*(chunk(kind, data) for name in order for kind, data in parts if kind == name))


def _short_palette(content: bytes) -> bytes:
    return png_of(*(chunk(k, d[:9] if k == b"PLTE" else d) for k, d in chunks_of(content)))


def _gifs() -> Iterator[tuple[str, bytes]]:
    good, small = gif(), quarters(size=(48, 32))
    yield "plain", good
    yield "of 1987", b"GIF87a" + gif(quarters(), optimize=False)[6:]
    yield "interlaced", gif(interlace=1)
    yield "animated", gif(save_all=True, append_images=[quarters("L")], duration=1000)
    yield "no end", good[:-1]
    yield "zeros behind", good + bytes(100)
    yield "page behind", good + b"<html><script>alert(1)</script></html>"
    yield "one byte behind", good + b"\n"
    yield "no end, zeros behind", good[:-1] + bytes(100)
    yield "no end, text behind", good[:-1] + b"made by a program"
    first = gif_image(0, 0, quarters())
    yield "later frame larger", gif_of(WIDTH, HEIGHT, first, gif_image(0, 0, quarters(size=(150, 100))))
    yield "later frame outside", gif_of(WIDTH, HEIGHT, first, gif_image(500, 500, small))
    yield "later frame across", gif_of(WIDTH, HEIGHT, first, gif_image(70, 50, small))
    yield "first frame larger", gif_of(WIDTH // 2, HEIGHT // 2, first)
    yield "first frame across", gif_of(60, 40, gif_image(30, 20, small))
    yield "first frame smaller", gif_of(WIDTH, HEIGHT, gif_image(10, 10, small))
    yield "canvas of nothing", gif_of(0, 0, first)
    yield "canvas without height", gif_of(WIDTH, 0, first)
    yield "later frame cut", gif_of(WIDTH, HEIGHT, first, first)[:-200]
    yield "later frame cut in its header", gif_of(WIDTH, HEIGHT, first, first[:8])[:-1]
    yield (
        "later frame without pixels",
        gif_of(WIDTH, HEIGHT, first, b"\x2c" + struct.pack("<HHHHB", 0, 0, 0, 0, 0) + b"\2\0"),
    )
    yield "later block unknown", gif_of(WIDTH, HEIGHT, first, b"\x77\1\2\3", first)
    yield "zeros between blocks", gif_of(WIDTH, HEIGHT, first, bytes(7), first)
    yield "unknown extension", gif_of(WIDTH, HEIGHT, b"\x21\x42\3abc\0", first)
    yield "comment", gif_of(WIDTH, HEIGHT, b"\x21\xfe\x09a comment\0", first)
    yield "control cut", gif_of(WIDTH, HEIGHT, b"\x21\xf9\1a\0", first)
    yield "no palette", gif_of(WIDTH, HEIGHT, _without_palette(first))
    noise = gif(noisy("L"))
    for share in (0.999, 0.9, 0.7):
        yield f"cut at {share}", cut(noise, share)
    yield "rows missing", gif_of(WIDTH, HEIGHT, _fewer_rows(), first)
    yield "one pixel", gif(Image.new("RGB", (1, 1), RED))


def _without_palette(block: bytes) -> bytes:
    bits = block[9] & 7
    return block[:9] + b"\0" + block[10 + (3 << (bits + 1)) :]


def _fewer_rows() -> bytes:
    block = gif_image(0, 0, quarters(size=(WIDTH, HEIGHT - 10)))
    return block[:5] + struct.pack("<HH", WIDTH, HEIGHT) + block[9:]


def _webps() -> Iterator[tuple[str, bytes]]:
    good, lossless = webp(quality=95), webp(lossless=True)
    yield "plain", good
    yield "lossless", lossless
    yield "with alpha", webp(quarters("RGBA"))
    half = quarters("RGBA")
    half.putalpha(128)
    yield "half transparent", webp(half, quality=95)
    moving = webp(
        save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9))], duration=1000, lossless=True
    )
    yield "animated", moving
    for name, content in (("", good), ("lossless, ", lossless), ("animated, ", moving)):
        yield f"{name}zeros behind", content + bytes(100)
        yield f"{name}page behind", content + b"<html><script>alert(1)</script></html>"
        yield f"{name}one byte behind", content + b"\n"
        yield f"{name}announced larger", resized_riff(content, 100)
        yield f"{name}announced smaller", resized_riff(content, -4)
        yield f"{name}announced much smaller", resized_riff(content, -len(content) // 2)
        yield f"{name}announced larger, zeros behind", resized_riff(content, 100) + bytes(100)
        yield f"{name}chunk behind", resized_riff(content, 12) + riff(b"abcd", b"1234")
        yield f"{name}announced as endless", content[:4] + b"\xff\xff\xff\xff" + content[8:]
    noise = webp(noisy(), quality=95)
    noise_lossless = webp(noisy(), lossless=True)
    for share in (0.999, 0.9, 0.7):
        yield f"cut at {share}", cut(noise, share)
        yield f"lossless, cut at {share}", cut(noise_lossless, share)
        yield f"animated, cut at {share}", cut(moving, share)
    [(kind, data)] = webp_parts(lossless)
    yield "unknown chunk before", webp_of(vp8x(WIDTH, HEIGHT, 0), riff(b"abcd", b"x"), riff(kind, data))
    yield "unknown chunk behind", webp_of(vp8x(WIDTH, HEIGHT, 0), riff(kind, data), riff(b"abcd", b"x"))
    yield "flags that lie", webp_of(vp8x(WIDTH, HEIGHT, 0x2C), riff(kind, data))
    yield "said to be animated", webp_of(vp8x(WIDTH, HEIGHT, 0x02), riff(kind, data))
    yield "other size announced", webp_of(vp8x(WIDTH + 9, HEIGHT, 0), riff(kind, data))
    yield "reserved bits", webp_of(riff(b"VP8X", b"\xc1\1\2\3" + vp8x(WIDTH, HEIGHT, 0)[12:]), riff(kind, data))
    for number in range(1, 9):
        for name, exif in odd_exif(number):
            yield f"orientation {number} {name}", webp_with_exif(exif)
    yield "orientation with prefix", webp_with_exif(tiff(orientation(6)), EXIF)
    yield (
        "orientation without flag",
        webp_of(vp8x(WIDTH, HEIGHT, 0), riff(kind, data), riff(b"EXIF", tiff(orientation(6)))),
    )
    yield "orientation before", webp_of(vp8x(WIDTH, HEIGHT, 8), riff(b"EXIF", tiff(orientation(6))), riff(kind, data))
    yield "profile broken", webp_of(vp8x(WIDTH, HEIGHT, 0x20), riff(b"ICCP", b"nonsense"), riff(kind, data))
    yield "profile of other colours", webp_of(vp8x(WIDTH, HEIGHT, 0x20), riff(b"ICCP", DARK_GREY), riff(kind, data))
    yield "profile p3", webp_of(vp8x(WIDTH, HEIGHT, 0x20), riff(b"ICCP", DISPLAY_P3), riff(kind, data))
    yield "profile p3 behind", webp_of(vp8x(WIDTH, HEIGHT, 0x20), riff(kind, data), riff(b"ICCP", DISPLAY_P3))
    yield "animated, frame outside", _moved_frame(moving, 300, 300)
    yield "animated, frame across", _moved_frame(moving, 50, 10)
    yield "animated, second frame broken", _broken_frame(moving, 1)
    yield "animated, first frame broken", _broken_frame(moving, 0)


def _frames(content: bytes) -> list[tuple[bytes, bytes]]:
    return list(webp_parts(content))


def _moved_frame(content: bytes, left: int, top: int) -> bytes:
    parts = _frames(content)
    kind, data = parts[-1]
    moved = (left // 2).to_bytes(3, "little") + (top // 2).to_bytes(3, "little") + data[6:]
    return webp_of(*(riff(*part) for part in [*parts[:-1], (kind, moved)]))


def _broken_frame(content: bytes, number: int) -> bytes:
    parts = _frames(content)
    place = [index for index, (kind, _) in enumerate(parts) if kind == b"ANMF"][number]
    data = parts[place][1]
    parts[place] = (b"ANMF", data[:26] + b"\xff" * (len(data) - 26))
    return webp_of(*(riff(*part) for part in parts))


@cache
def corpus() -> dict[str, bytes]:
    """All files by name."""
    makers = {"jpeg": _jpegs, "png": _pngs, "gif": _gifs, "webp": _webps}
    return {f"{kind}: {name}": content for kind, make in makers.items() for name, content in make()}
