"""The formats that images come in, read without decoding: sizes, frames, and which bytes mean what.

Browsers show much that is not quite right, and so does this: what follows the end of an image is cut off, the missing
end of a JPEG or GIF is added, and optional parts that make no sense are passed over. Only an image that cannot be shown
is refused.

The orientation in EXIF data is read as browsers read it. EXIF is a TIFF directory that every camera and editor writes
with faults of its own; nothing in it can make an image unusable. An entry that makes no sense is passed over, and what
is kept is written again from entries whose meaning is known.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from data_layer.errors import CorruptFileError, ImageTooLargeError
from data_layer.storage.validation.received import MetadataRemoval, ReceivedFile, Span

_ORIENTATION, _EXIF_DIRECTORY = 0x0112, 0x8769
_ASCII, _SHORT, _LONG, _RATIONAL, _SIGNED_RATIONAL = 2, 3, 4, 5, 10
_VALUE_SIZES = {_ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _SIGNED_RATIONAL: 8}
_MAX_VALUE = 2048
_MAX_ENTRIES = 512

# What describes the picture and the camera, but not the place (EXIF 3.0, section 4.6).
_KEPT_OF_IMAGE = {
    _ASCII: {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298},
    _SHORT: {_ORIENTATION, 0x0128},
    _RATIONAL: {0x011A, 0x011B},
}
_KEPT_OF_CAMERA = {
    _ASCII: {0x9003, 0x9004, 0x9290, 0x9291, 0x9292, 0xA433, 0xA434},
    _SHORT: {0x8822, 0x8827, 0x9207, 0x9208, 0x9209, 0xA001, 0xA002, 0xA003, 0xA402, 0xA403, 0xA405, 0xA406},
    _LONG: {0xA002, 0xA003},
    _RATIONAL: {0x829A, 0x829D, 0x9202, 0x9205, 0x920A, 0xA404},
    _SIGNED_RATIONAL: {0x9201, 0x9203, 0x9204},
}


class _Entry(NamedTuple):
    tag: int
    kind: int
    number: int
    value: bytes


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, that a TIFF directory gives; 1 where it gives none that a browser would respect."""
    for entry in _entries(exif, _first_directory(exif)):
        if entry.tag == _ORIENTATION and (entry.kind, entry.number) == (_SHORT, 1):
            (value,) = struct.unpack_from(_order(exif) + "H", entry.value)
            return value if 1 <= value <= 8 else 1
    return 1


def reduced_exif(exif: bytes, removal: MetadataRemoval) -> bytes:
    """The EXIF data that stays after removal, as a TIFF directory; nothing where none stays."""
    orientation = read_orientation(exif)
    order = _order(exif)
    turned = [_Entry(_ORIENTATION, _SHORT, 1, struct.pack(order + "H", orientation))] if orientation != 1 else []
    if removal == "all":
        return _directories(order, turned, [])
    first = list(_entries(exif, _first_directory(exif)))
    image = [entry for entry in _known(first, _KEPT_OF_IMAGE) if entry.tag != _ORIENTATION]
    camera: list[_Entry] = []
    for entry in first:
        if entry.tag == _EXIF_DIRECTORY and entry.kind == _LONG and len(entry.value) == 4:
            (place,) = struct.unpack(order + "I", entry.value)
            camera = list(_known(_entries(exif, place), _KEPT_OF_CAMERA))
            break
    return _directories(order, turned + image, camera)


def _order(exif: bytes) -> str:
    return ">" if exif.startswith(b"MM") else "<"


def _first_directory(exif: bytes) -> int:
    if exif[:4] not in {b"II*\x00", b"MM\x00*"} or len(exif) < 8:
        return len(exif)
    (place,) = struct.unpack_from(_order(exif) + "I", exif, 4)
    return int(place)


def _entries(exif: bytes, place: int) -> Iterator[_Entry]:
    """The entries of the directory at a place, as far as there are; without values where these lie outside."""
    order = _order(exif)
    if place + 2 > len(exif):
        return
    (number,) = struct.unpack_from(order + "H", exif, place)
    for start in range(place + 2, min(place + 2 + 12 * min(number, _MAX_ENTRIES), len(exif) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", exif, start)
        size = count * _VALUE_SIZES.get(kind, 4)
        position = start + 8 if size <= 4 else struct.unpack_from(order + "I", exif, start + 8)[0]
        value = exif[position : position + size] if size <= _MAX_VALUE else b""
        yield _Entry(tag, kind, count, value if len(value) == size else b"")


def _known(entries: Iterable[_Entry], kept: dict[int, set[int]]) -> Iterator[_Entry]:
    seen: set[int] = set()
    for entry in entries:
        if entry.value and entry.tag in kept.get(entry.kind, set()) and entry.tag not in seen:
            seen.add(entry.tag)
            yield entry


def _directories(order: str, image: list[_Entry], camera: list[_Entry]) -> bytes:
    """A TIFF file of these entries, those of the camera in a directory of their own."""
    if not image and not camera:
        return b""
    head = (b"MM\x00*" if order == ">" else b"II*\x00") + struct.pack(order + "I", 8)
    if not camera:
        return head + _directory(order, image, 8)
    pointer = _Entry(_EXIF_DIRECTORY, _LONG, 1, bytes(4))
    place = 8 + len(_directory(order, [*image, pointer], 8))
    pointer = pointer._replace(value=struct.pack(order + "I", place))
    return head + _directory(order, [*image, pointer], 8) + _directory(order, camera, place)


def _directory(order: str, entries: list[_Entry], place: int) -> bytes:
    table, values = struct.pack(order + "H", len(entries)), b""
    behind = place + 2 + 12 * len(entries) + 4
    for tag, kind, number, value in sorted(entries):
        table += struct.pack(order + "HHI", tag, kind, number)
        if len(value) <= 4:
            table += value.ljust(4, b"\x00")
        else:
            table += struct.pack(order + "I", behind + len(values))
            values += value + b"\x00" * (len(value) % 2)
    return table + bytes(4) + values


Pieces = list["bytes | Span"]

_WINDOW = 64 * 1024
_MAX_PROFILE = 4 * 1024 * 1024
_MAX_EXIF = 64 * 1024
_MAX_PARTS = 100_000
_MAX_JPEG_SCANS = 500  # A few hundred kilobytes of empty scans would take minutes to decode.

_EXIF = b"Exif\x00"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE_MARKERS = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_APPLICATION_MARKERS = range(0xE0, 0xF0)
_BETWEEN_SCANS = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *_APPLICATION_MARKERS})
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)

_PNG_PICTURE = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD hIST pHYs sPLT acTL fcTL fdAT".split()
)
_PNG_CRITICAL = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_PNG_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_PNG_PLACES = (b"XML:com.adobe.xmp\x00", b"Raw profile type ")
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}

_GIF_ANIMATION = frozenset((b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012"))
_VP8X_ANIMATED, _VP8X_XMP, _VP8X_EXIF = 0x02, 0x04, 0x08
_WEBP_PICTURE = frozenset((b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))

Meaning = Literal["picture", "exif", "place", "text"]
"""What a part of an image is: the picture, the EXIF data that counts, what may disclose a place, or another text."""


class Part(NamedTuple):
    """A part of an image: what it means, and its bytes, where these are or as they are to be."""

    meaning: Meaning
    piece: bytes | Span


class Box(NamedTuple):
    """Where the first frame is on the canvas."""

    left: int
    top: int
    width: int
    height: int


_NO_BOX = Box(0, 0, 0, 0)


class PngLayout(NamedTuple):
    """How the pixels of a PNG are stored."""

    depth: int
    color_type: int
    interlaced: bool
    palette: bytes
    transparency: bytes

    @property
    def bits(self) -> int:
        """Bits of one pixel."""
        return self.depth * _PNG_SAMPLES[self.color_type]


@dataclass(slots=True)
class Picture:
    """An image, before its orientation is applied.

    Attributes:
        image_format: The format, as Pillow names it.
        width: Pixels of the canvas.
        height: Pixels of the canvas.
        frame_count: Frames of the animation, or 1.
        parts: All that is to be stored, in order.
        still: A file with the first frame and nothing optional; of a PNG, its compressed data alone.
        frame: Where the first frame is.
        orientation: By EXIF, 1 to 8.
        profile: The ICC profile, not checked.
        exif: The EXIF data that counts.
        coefficients: Bytes that a progressive JPEG needs for each pixel, beside those of the pixel.
        png: How pixels are stored, of a PNG.
    """

    image_format: str
    width: int = 0
    height: int = 0
    frame_count: int = 1
    parts: list[Part] = field(default_factory=list)
    still: Pieces = field(default_factory=list)
    frame: Box = _NO_BOX
    orientation: int = 1
    profile: bytes | None = None
    exif: bytes | None = None
    coefficients: float = 0
    png: PngLayout | None = None

    def keep(self, meaning: Meaning, piece: bytes | Span) -> None:
        """Add a part at the end of what is to be stored.

        Raises:
            ImageTooLargeError: it has far too many parts, each of which costs memory.
        """
        if self.parts and self.parts[-1].meaning == meaning and (joined := _joined(self.parts[-1].piece, piece)):
            self.parts[-1] = Part(meaning, joined)
        else:
            self.parts.append(Part(meaning, piece))
        self._check_parts(len(self.parts))

    def decode(self, piece: bytes | Span) -> None:
        """Add something at the end of what is decoded.

        Raises:
            ImageTooLargeError: it has far too many parts.
        """
        if self.still and (joined := _joined(self.still[-1], piece)):
            self.still[-1] = joined
        else:
            self.still.append(piece)
        self._check_parts(len(self.still))

    def _check_parts(self, number: int) -> None:
        if number > _MAX_PARTS:
            raise ImageTooLargeError(f"the image consists of more than {_MAX_PARTS} parts")

    def use_exif(self, exif: bytes, piece: Span) -> None:
        """Take EXIF data over, if it is the first."""
        if self.exif is None:
            self.exif, self.orientation = exif, read_orientation(exif)
            self.keep("exif", piece)
        else:
            self.keep("place", piece)


def _joined(first: bytes | Span, second: bytes | Span) -> Span | None:
    if isinstance(first, Span) and isinstance(second, Span) and first.stop == second.start:
        return Span(first.start, second.stop)
    return None


class Source:
    """The bytes of a file, read a window at a time; ``on_read`` may end the reading with an exception."""

    def __init__(self, file: ReceivedFile, on_read: Callable[[], None]) -> None:
        self._file = file
        self._on_read = on_read
        self._start = 0
        self._window = b""
        self.size = file.size

    def get(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start``."""
        self._on_read()
        offset = start - self._start
        if offset < 0 or offset + size > len(self._window):
            self._window, self._start, offset = self._file.read_part(start, max(size, _WINDOW)), start, 0
        return self._window[offset : offset + size]

    def unpack(self, layout: str, start: int) -> tuple[int, ...]:
        """Numbers at ``start``.

        Raises:
            struct.error: the file ends before.
        """
        return struct.unpack(layout, self.get(start, struct.calcsize(layout)))


def read_picture(file: ReceivedFile, content_type: str, on_read: Callable[[], None]) -> Picture:
    """What an image consists of.

    Raises:
        CorruptFileError: it has nothing that can be shown.
        ImageTooLargeError: it has absurdly many scans.
    """
    try:
        picture = _READERS[content_type](Source(file, on_read))
    except (struct.error, IndexError) as error:
        raise CorruptFileError(f"the {content_type} is cut off") from error
    if picture.width < 1 or picture.height < 1:
        raise CorruptFileError(f"the {content_type} has no pixels")
    return picture


def stored_pieces(picture: Picture, removal: MetadataRemoval) -> Pieces:
    """The image as it is to be stored, after metadata was removed.

    Args:
        picture: an image.
        removal: what to remove. XMP and IPTC can disclose a place, as EXIF can, and go in either case.
    """
    dropped = {"none": set[str](), "location": {"place"}, "all": {"place", "text"}}[removal]
    pieces: Pieces = []
    for meaning, piece in picture.parts:
        if meaning == "exif" and removal != "none":
            pieces.append(_WRAPPED_EXIF[picture.image_format](reduced_exif(picture.exif or b"", removal)))
        elif meaning not in dropped:
            pieces.append(piece)
    if picture.image_format == "WEBP":
        return _as_riff(pieces if removal == "none" else _without_flags(pieces))
    return pieces


# PNG (ISO/IEC 15948)


def _png_chunks(source: Source) -> Iterator[tuple[bytes, Span, bool]]:
    """The chunks, ``IEND`` last if it is there: kind, data, and whether all of the chunk is there."""
    position, kind = 8, b""
    while kind != b"IEND" and position + 8 <= source.size:
        length, kind = struct.unpack(">I4s", source.get(position, 8))
        data = Span(position + 8, min(position + 8 + length, source.size))
        yield kind, data, position + 12 + length <= source.size
        position += 12 + length


def _read_png(source: Source) -> Picture:  # noqa: C901, PLR0912  (a branch for each kind of part)
    picture = Picture("PNG")
    palette = transparency = b""
    seen: set[bytes] = set()
    frames, animated = 0, False
    for kind, data, whole in _png_chunks(source):
        intact = (whole and kind not in _PNG_CHECKED) or _is_intact(source, kind, data)
        if not seen and kind != b"IHDR":
            raise CorruptFileError("the image/png does not begin with a header")
        if kind in {b"IHDR", b"PLTE"} and not intact:
            raise CorruptFileError(f"the image/png is damaged: its {kind.decode()} has a wrong checksum")
        if not kind.isalpha() or (kind[:1].isupper() and kind not in _PNG_CRITICAL):
            if not picture.still:
                raise CorruptFileError("the image/png has a part that is not known")
            break
        if kind == b"IDAT":
            picture.decode(data)
        elif not whole:
            break
        elif kind == b"IHDR" and not seen:
            picture.width, picture.height, depth, color_type, _, _, interlaced = source.unpack(">IIBBBBB", data.start)
        elif kind == b"PLTE" and not palette:
            palette = source.get(data.start, min(data.stop - data.start, 768))
        elif kind == b"tRNS" and intact and b"IDAT" not in seen:
            transparency = source.get(data.start, min(data.stop - data.start, 256))
        elif kind == b"iCCP" and intact and b"IDAT" not in seen and picture.profile is None:
            picture.profile = _unpacked_profile(source.get(data.start, min(data.stop - data.start, _MAX_PROFILE)))
        elif kind == b"acTL" and intact and b"IDAT" not in seen:
            animated = data.stop - data.start == 8
        elif kind == b"fcTL":
            frames += 1
        seen.add(kind)
        if not whole:  # Compressed data that is cut off is shown, unless an end follows it.
            picture.keep("picture", Span(data.start - 8, data.stop))
            break
        _keep_png_chunk(picture, source, kind, data, usable=intact and b"IDAT" not in seen)
    if not picture.still:
        raise CorruptFileError("the image/png has no picture")
    if depth not in _PNG_DEPTHS.get(color_type, ()) or interlaced > 1:
        raise CorruptFileError("the image/png has pixels of an unknown kind")
    picture.frame_count = max(1, frames) if animated else 1
    picture.frame = Box(0, 0, picture.width, picture.height)
    picture.png = PngLayout(depth, color_type, bool(interlaced), palette, transparency)
    if interlaced:
        picture.still = still_png(picture.png, source.get(0, 33), picture.still)
    return picture


def still_png(layout: PngLayout, header: bytes, data: Pieces) -> Pieces:
    """A PNG of one frame with nothing optional, as Pillow reads it: checksums of pixels are not verified.

    Args:
        layout: how its pixels are stored.
        header: its first 33 bytes.
        data: its compressed pixels.
    """
    pieces: Pieces = [header]
    if layout.palette:
        pieces.append(png_chunk(b"PLTE", layout.palette))
    if layout.transparency and (
        layout.color_type == 3 or len(layout.transparency) >= 2 * _PNG_SAMPLES[layout.color_type]
    ):
        pieces.append(png_chunk(b"tRNS", layout.transparency))
    size = sum(piece.stop - piece.start for piece in data if isinstance(piece, Span))
    return [*pieces, struct.pack(">I4s", size, b"IDAT"), *data, bytes(4), png_chunk(b"IEND", b"")]


def _keep_png_chunk(picture: Picture, source: Source, kind: bytes, data: Span, *, usable: bool) -> None:
    chunk = Span(data.start - 8, data.stop + 4)
    if not picture.parts:
        picture.keep("picture", source.get(0, 8))
    if kind == b"eXIf" and usable and data.stop - data.start <= _MAX_EXIF:
        picture.use_exif(source.get(data.start, data.stop - data.start), chunk)
    elif kind in {b"eXIf", b"caBX"} or (kind in _PNG_TEXTS and source.get(data.start, 20).startswith(_PNG_PLACES)):
        picture.keep("place", chunk)
    else:
        picture.keep("picture" if kind in _PNG_PICTURE else "text", chunk)


_PNG_CHECKED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"acTL", b"eXIf"))


def _is_intact(source: Source, kind: bytes, data: Span) -> bool:
    size = data.stop - data.start
    if kind not in _PNG_CHECKED or size > _MAX_PROFILE:
        return False
    checksum = source.get(data.stop, 4)
    return zlib.crc32(source.get(data.start, size), zlib.crc32(kind)).to_bytes(4, "big") == checksum


def png_file(*chunks: bytes) -> bytes:
    """A PNG of these chunks and its end."""
    return b"".join((b"\x89PNG\r\n\x1a\n", *chunks, png_chunk(b"IEND", b"")))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Build a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _unpacked_profile(data: bytes) -> bytes | None:
    _, _, packed = data.partition(b"\x00")
    try:
        return zlib.decompressobj().decompress(packed[1:], _MAX_PROFILE) or None
    except zlib.error:
        return None


# JPEG (ITU-T T.81)


def _read_jpeg(source: Source) -> Picture:  # noqa: C901, PLR0912  (a branch for each kind of part)
    picture = Picture("JPEG", parts=[Part("picture", b"\xff\xd8")], still=[b"\xff\xd8"])
    profiles: dict[int, bytes] = {}
    announced = scans = 0
    progressive = False
    position, end = 2, 2
    for marker, start, data in _jpeg_segments(source):
        if marker == 0xD9 or (scans and marker not in _BETWEEN_SCANS):
            position = start
            break
        if scans and position < start:  # The compressed data of the scan before.
            _keep_jpeg(picture, Span(position, start))
        segment, position = Span(start, data.stop), data.stop
        end = position
        head = source.get(data.start, min(16, data.stop - data.start))
        if marker in _FRAME_MARKERS and not picture.width:
            picture.height, picture.width = source.unpack(">HH", data.start + 1)
            progressive = marker in _PROGRESSIVE_MARKERS
            picture.coefficients = _coefficients(source.get(data.start, data.stop - data.start))
        if marker == 0xDA:
            scans += 1
        if scans > _MAX_JPEG_SCANS:
            raise ImageTooLargeError(f"the image/jpeg has more than {_MAX_JPEG_SCANS} scans")
        if marker == 0xE2 and head.startswith(b"ICC_PROFILE\x00") and len(head) >= 14:
            profiles.setdefault(head[12], source.get(data.start + 14, data.stop - data.start - 14))
            announced = announced or head[13]
        if marker == 0xE1 and head.startswith(_EXIF) and len(head) >= 6:
            picture.use_exif(source.get(data.start + 6, data.stop - data.start - 6), segment)
        elif marker == 0xE2 and head.startswith(b"MPF\x00"):
            continue  # The list of further pictures, which are cut off.
        else:
            picture.keep(_jpeg_meaning(marker, head), segment)
        if _is_needed(marker, head):
            picture.decode(segment)
    else:
        position = source.size
    if not scans:
        raise CorruptFileError("the image/jpeg is cut off: it has no picture")
    _end_jpeg(picture, source, Span(end, position))
    if announced and profiles.keys() == set(range(1, announced + 1)):
        picture.profile = b"".join(profiles[number] for number in sorted(profiles))[:_MAX_PROFILE]
    if not progressive and scans == 1:
        picture.coefficients = 0
    picture.frame = Box(0, 0, picture.width, picture.height)
    return picture


def _keep_jpeg(picture: Picture, piece: bytes | Span) -> None:
    picture.keep("picture", piece)
    picture.decode(piece)


def _end_jpeg(picture: Picture, source: Source, scan: Span) -> None:
    """Add the compressed data of the last scan, without half a marker at its end, and the end of the image."""
    stop, data = scan.stop, b""
    while stop > scan.start and not data:  # Fill bytes are no data, and a decoder takes long over many of them.
        start = max(scan.start, stop - _WINDOW)
        tail = source.get(start, stop - start)[: stop - start]
        data = tail.rstrip(b"\xff")
        stop = start + len(data)
    _keep_jpeg(picture, Span(scan.start, stop))
    end = source.get(scan.stop, 2)
    _keep_jpeg(picture, Span(scan.stop, scan.stop + 2) if end == b"\xff\xd9" else b"\xff\xd9")


def _jpeg_segments(source: Source) -> Iterator[tuple[int, int, Span]]:
    """The segments as far as they are whole: marker, where it begins, and its data.

    What is between them is compressed data, or junk that decoders pass over.
    """
    position = 2
    while (found := _find_marker(source, position)) is not None:
        start, position, marker = found
        if marker in {0xD8, 0xD9}:
            yield marker, start, Span(position, position)
            continue
        (length,) = source.unpack(">H", position) if position + 2 <= source.size else (0,)
        if length < 2 or position + length > source.size:
            yield 0xD9, start, Span(start, start)  # Cut off here.
            return
        yield marker, start, Span(position + 2, position + length)
        position += length


def _find_marker(source: Source, position: int) -> tuple[int, int, int] | None:
    """The next marker: where it begins, where it ends, and which it is."""
    size = 64  # The next segment usually follows at once; compressed data is searched in larger steps.
    while position < source.size:
        window = source.get(position, min(size, source.size - position))
        size = _WINDOW
        found = _JPEG_MARKER.search(window)
        if found:
            # Of several fill bytes the last begins the marker.
            return position + found.end() - 2, position + found.end(), window[found.end() - 1]
        position += max(1, len(window) - 1) if window.endswith(b"\xff") else len(window)
    return None


def _jpeg_meaning(marker: int, head: bytes) -> Meaning:
    if marker in {0xE1, 0xEB, 0xED}:  # XMP, JUMBF, IPTC
        return "place"
    if _is_needed(marker, head) or (marker == 0xE2 and head.startswith(b"ICC_PROFILE\x00")):
        return "picture"
    return "text"


def _is_needed(marker: int, head: bytes) -> bool:
    """Whether a decoder needs a segment: of the optional ones, those alone that say how colors are stored."""
    if marker == 0xE0:
        return head.startswith(b"JFIF\x00") and len(head) >= 14
    if marker == 0xEE:
        return head.startswith(b"Adobe") and len(head) >= 12
    return marker != 0xFE and marker not in _APPLICATION_MARKERS


def _coefficients(frame: bytes) -> float:
    """Bytes that the coefficients of a progressive JPEG take for each pixel: two for each sample of each component."""
    samplings = [(frame[place + 1] >> 4, frame[place + 1] & 15) for place in range(6, 6 + 3 * frame[5], 3)]
    if not samplings:
        return 0
    largest = max(across for across, _ in samplings) * max(down for _, down in samplings)
    return 2 * sum(across * down for across, down in samplings) / max(1, largest)


# GIF (89a)


def _read_gif(source: Source) -> Picture:  # noqa: C901, PLR0912  (a branch for each kind of part)
    picture = Picture("GIF")
    width, height, flags = source.unpack("<HHB", 6)
    position = 13 + _color_table(flags)
    if position > source.size:
        raise CorruptFileError("the image/gif is cut off")
    picture.keep("picture", Span(0, position))
    picture.frame_count = 0
    control = b""
    kept = position
    while position < source.size:
        start, kind = position, source.get(position, 1)[0]
        if kind == 0x00:  # Padding between blocks, which browsers pass over.
            window = source.get(position, min(_WINDOW, source.size - position))
            position += len(window) - len(window.lstrip(b"\x00"))
            continue
        if kind == 0x21:
            position, whole = _after_blocks(source, position + 2)
            if not whole:
                break
            label = source.get(start + 1, 1)[0]
            if label == 0xF9 and position - start == 8:
                control = source.get(start, 8)
            picture.keep(_gif_meaning(label, source.get(start + 3, 11)), Span(kept, position))
        elif kind == 0x2C and start + 10 <= source.size:
            box = Box(*source.unpack("<HHHH", start + 1))
            data = start + 10 + _color_table(source.get(start + 9, 1)[0]) + 1
            position, whole = _after_blocks(source, data)
            if position <= data:
                position = kept
                break
            picture.keep("picture", Span(kept, position))
            if not whole:
                picture.keep("picture", b"\x00")
            if picture.frame_count == 0:
                picture.frame = box
                width, height = max(width, box.left + box.width), max(height, box.top + box.height)
                picture.still = _still_gif(source, box, flags, control, Span(start, position))
            picture.frame_count += 1
            if not whole:
                break
        else:
            break
        kept = position
    if not picture.frame_count:
        raise CorruptFileError("the image/gif has no picture")
    picture.keep("picture", Span(position, position + 1) if source.get(position, 1) == b";" else b";")
    picture.width, picture.height = width, height
    return picture


def _still_gif(source: Source, box: Box, flags: int, control: bytes, block: Span) -> Pieces:
    """A GIF of one frame that is no larger than that frame."""
    head = b"GIF89a" + struct.pack("<HHBBB", box.width, box.height, flags & 0x87, 0, 0)
    palette = source.get(13, _color_table(flags))
    shape = b"\x2c" + struct.pack("<HHHHB", 0, 0, box.width, box.height, source.get(block.start + 9, 1)[0])
    return [head, palette, control, shape, Span(block.start + 10, block.stop), b"\x00;"]


def _color_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(source: Source, position: int) -> tuple[int, bool]:
    """Where the data blocks from a place on end, without one that is cut off, and whether their end is there."""
    while position < source.size:
        length = source.get(position, 1)[0]
        if length == 0:
            return position + 1, True
        if position + 1 + length > source.size:
            return position, False
        position += 1 + length
    return position, False


def _gif_meaning(label: int, head: bytes) -> Meaning:
    if label == 0xFF and head.startswith(b"XMP Data"):
        return "place"
    return "picture" if label in {0xF9, 0x01} or (label == 0xFF and head in _GIF_ANIMATION) else "text"


# WebP (RFC 9649)


def _webp_chunks(source: Source, start: int, end: int) -> Iterator[tuple[bytes, Span]]:
    """The chunks of a part of a file: kind and data."""
    position = start
    while position + 8 <= end:
        kind, length = struct.unpack("<4sI", source.get(position, 8))
        if position + 8 + length > end:
            raise CorruptFileError("the image/webp is cut off")
        yield kind, Span(position + 8, position + 8 + length)
        position += 8 + length + length % 2


def _read_webp(source: Source) -> Picture:  # noqa: C901, PLR0912  (a branch for each kind of part)
    picture = Picture("WEBP")
    (size,) = source.unpack("<I", 4)
    end = min(8 + size, source.size)
    flags, frames, bitstreams = 0, 0, 0
    for kind, data in _webp_chunks(source, 12, end):
        chunk = Span(data.start - 8, min(data.stop + (data.stop - data.start) % 2, source.size))
        if kind == b"VP8X" and not picture.parts:
            flags = source.get(data.start, 1)[0]
            wide, high = source.get(data.start + 4, 3), source.get(data.start + 7, 3)
            picture.width, picture.height = 1 + int.from_bytes(wide, "little"), 1 + int.from_bytes(high, "little")
        elif kind == b"ANMF" and flags & _VP8X_ANIMATED:
            frames += 1
            _read_webp_frame(picture, source, data, first=frames == 1)
        elif kind in {b"VP8 ", b"VP8L", b"ALPH"} and not flags & _VP8X_ANIMATED and not bitstreams:
            picture.decode(chunk)
            if kind != b"ALPH":
                bitstreams += 1
                picture.frame = Box(0, 0, *_bitstream_size(source, kind, data))
        elif kind == b"ICCP" and picture.profile is None:
            picture.profile = source.get(data.start, min(data.stop - data.start, _MAX_PROFILE))
        if kind == b"EXIF" and data.stop - data.start <= _MAX_EXIF:
            exif = source.get(data.start, data.stop - data.start)
            picture.use_exif(exif.removeprefix(_EXIF + b"\x00"), chunk)
        elif kind in {b"EXIF", b"XMP "}:
            picture.keep("place", chunk)
        elif kind == b"VP8X":
            _keep_vp8x(picture, source, chunk)
        else:
            picture.keep("picture" if kind in _WEBP_PICTURE else "text", chunk)
    if not picture.still:
        raise CorruptFileError("the image/webp has no picture")
    if not picture.width:
        picture.width, picture.height = picture.frame.width, picture.frame.height
    if not flags & _VP8X_ANIMATED and (picture.width, picture.height) != picture.frame[2:]:
        raise CorruptFileError("the image/webp contradicts itself about its size")
    picture.frame_count = max(1, frames if flags & _VP8X_ANIMATED else 1)
    first = picture.still[0]
    with_alpha = isinstance(first, Span) and source.get(first.start, 4) == b"ALPH"
    picture.still = _as_riff([_vp8x(picture.frame), *picture.still] if with_alpha else picture.still)
    return picture


def _without_flags(pieces: Pieces) -> Pieces:
    """Have the header announce neither XMP nor EXIF, unless there is some."""
    first = pieces[0]
    if not isinstance(first, bytes) or not first.startswith(b"VP8X"):
        return pieces
    exif = any(isinstance(piece, bytes) and piece.startswith(b"EXIF") for piece in pieces)
    flags = first[8] & ~(_VP8X_XMP | _VP8X_EXIF) | (_VP8X_EXIF if exif else 0)
    return [first[:8] + bytes((flags,)) + first[9:], *pieces[1:]]


def _keep_vp8x(picture: Picture, source: Source, chunk: Span) -> None:
    """Keep the header; its flags say what follows and are corrected when something of that is removed."""
    picture.keep("picture", source.get(chunk.start, chunk.stop - chunk.start))


def _read_webp_frame(picture: Picture, source: Source, data: Span, *, first: bool) -> None:
    fields = [int.from_bytes(source.get(data.start + place, 3), "little") for place in range(0, 12, 3)]
    box = Box(2 * fields[0], 2 * fields[1], 1 + fields[2], 1 + fields[3])
    if box.left + box.width > picture.width or box.top + box.height > picture.height:
        raise CorruptFileError("the image/webp has a frame outside of its canvas")
    shown = False
    for kind, part in _webp_chunks(source, data.start + 16, data.stop):
        if kind in {b"VP8 ", b"VP8L"} and not shown:
            shown = _bitstream_size(source, kind, part) == box[2:]
        elif kind != b"ALPH":
            continue
        if first:
            picture.decode(Span(part.start - 8, part.stop + (part.stop - part.start) % 2))
    if not shown:
        raise CorruptFileError("the image/webp has a frame without a picture")
    if first:
        picture.frame = box


def _bitstream_size(source: Source, kind: bytes, data: Span) -> tuple[int, int]:
    start_code = source.get(data.start + 3, 3) if kind == b"VP8 " else source.get(data.start, 1)
    if start_code not in {b"\x9d\x01\x2a", b"\x2f"}:
        raise CorruptFileError("the image/webp is damaged: its picture does not begin as one")
    if kind == b"VP8 ":
        width, height = source.unpack("<HH", data.start + 6)
        return width & 0x3FFF, height & 0x3FFF
    (bits,) = source.unpack("<I", data.start + 1)
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


def _vp8x(box: Box) -> bytes:
    size = (box.width - 1).to_bytes(3, "little") + (box.height - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<I", 10) + b"\x10\x00\x00\x00" + size


def _as_riff(pieces: Pieces) -> Pieces:
    size = 4 + sum(piece.stop - piece.start if isinstance(piece, Span) else len(piece) for piece in pieces)
    return [b"RIFF" + struct.pack("<I", size) + b"WEBP", *pieces]


_READERS: dict[str, Callable[[Source], Picture]] = {
    "image/png": _read_png,
    "image/jpeg": _read_jpeg,
    "image/gif": _read_gif,
    "image/webp": _read_webp,
}
_WRAPPED_EXIF: dict[str, Callable[[bytes], bytes]] = {
    "PNG": lambda exif: png_chunk(b"eXIf", exif) if exif else b"",
    "JPEG": lambda exif: struct.pack(">BBH", 0xFF, 0xE1, len(exif) + 8) + _EXIF + b"\x00" + exif if exif else b"",
    "WEBP": lambda exif: b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\x00" * (len(exif) % 2) if exif else b"",
    "GIF": lambda _: b"",
}
