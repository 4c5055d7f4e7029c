"""A corpus of files that no service should store, each with the reason that it must be given."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator

import pytest
from PIL import Image

from data_layer.errors import (
    ActiveContentError,
    CorruptFileError,
    EmptyFileError,
    FileTypeMismatchError,
    FileTypeNotAllowedError,
    ImageTimeoutError,
    ImageTooLargeError,
    InvalidFileError,
    PolyglotFileError,
)
from data_layer.storage.validation import FileLimits, Inspector, ReceivedFile
from data_layer.storage.validation.inspector import KNOWN_TYPES
from tests.file_content import PAGE, SVG, TYPES, animation, encoded, picture

EVERYTHING = FileLimits(max_file_size=2**30, allowed_types=KNOWN_TYPES, max_pixels=1_000_000, max_frames=20)
IMAGES = FileLimits(max_file_size=2**30, allowed_types=frozenset(TYPES.values()), max_pixels=1_000_000)


@pytest.fixture
async def inspector() -> AsyncIterator[Inspector]:
    inspector = Inspector(EVERYTHING)
    yield inspector
    await inspector.close()


async def refuse(limits: FileLimits, content: bytes, declared: str | None = None) -> InvalidFileError:
    inspector = Inspector(limits)
    try:
        with pytest.raises(InvalidFileError) as caught:
            await inspector.inspect(ReceivedFile.of_bytes(content), declared)
    finally:
        await inspector.close()
    return caught.value


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("index.html", "<script>alert(1)</script>")
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def gif_of_frames(frames: int, *, top: int = 0, width: int = 1) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, top, width, 1, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def jpeg_of_scans(scans: int) -> bytes:
    content = picture("JPEG", (64, 64), progressive=True)
    start = content.index(b"\xff\xda")
    end = start + 2 + struct.unpack_from(">H", content, start + 2)[0]
    return content[:start] + content[start:end] * scans + content[start:]


GUESTS = {
    "html": PAGE,
    "script": b"<script>alert(1)</script>",
    "php": b"<?php system($_GET['c']); ?>",
    "zip": archive(),
    "another image": picture("GIF"),
    "one byte": b"\x00",
}
BOMBS = {
    "of pixels": png(30_000, 30_000, bytes(1000)),
    "of pixels that are there": png(5000, 5000, bytes(5001 * 5000)),
    "of frames": gif_of_frames(5000),
    "of scans": jpeg_of_scans(2000),
    "of a tall gif": gif_of_frames(1, top=65000, width=65000),
    "of parts": png(1, 1, bytes(4))[:33] + chunk(b"IDAT", b"") * 300_000,
}
DRAWINGS = {
    "script": "<script>alert(1)</script>",
    "script of another namespace": '<x:script xmlns:x="http://www.w3.org/1999/xhtml">alert(1)</x:script>',
    "script in capitals": "<SCRIPT>alert(1)</SCRIPT>",
    "event handler": '<circle r="1" onclick="alert(1)"/>',
    "event handler in capitals": '<circle r="1" ONLOAD="alert(1)"/>',
    "foreign object": '<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">x</p></foreignObject>',
    "iframe": '<iframe src="https://example.com"/>',
    "link to a script": '<a href="javascript:alert(1)"><text>x</text></a>',
    "link to a script with blanks": '<a href=" java&#10;script:alert(1)"><text>x</text></a>',
    "image from elsewhere": '<image href="https://example.com/track.png"/>',
    "image from elsewhere, the old way": '<image xmlns:l="http://www.w3.org/1999/xlink" l:href="//example.com/a.png"/>',
    "drawing inside as data": '<image href="data:image/svg+xml;base64,PHN2Zy8+"/>',
    "page as data": '<a href="data:text/html,&lt;script&gt;"><text>x</text></a>',
    "use of a file": '<use href="file:///etc/passwd#a"/>',
    "style from elsewhere": "<style>@import url(https://example.com/a.css);</style>",
    "font from elsewhere": '<style>@font-face { src: url("https://example.com/a.woff") }</style>',
    "fill from elsewhere": '<rect fill="url(https://example.com/a.svg#b)"/>',
    "style with escapes": r'<rect style="fill: \75rl(https://example.com/a)"/>',
    "animated link": '<a><animate attributeName="href" to="javascript:alert(1)"/></a>',
    "animated handler": '<set attributeName="onclick" to="alert(1)"/>',
    "base": '<g xml:base="https://example.com/"><use href="#a"/></g>',
    "link that reports clicks": '<a href="#a" ping="https://example.com/"><text>x</text></a>',
    "animated link to elsewhere": '<a><animate attributeName="href" to="https://example.com/"/></a>',
    "animated link of many values": '<image><animate attributeName="href" values="#a;//example.com/a.png"/></image>',
    "link that is set": '<use><set attributeName="href" to="other.svg#a"/></use>',
    "link that is set, the old way": '<use><set attributeName="xlink:href" to="//example.com/a.svg#a"/></use>',
    "link that is set with blanks": '<use><set attributeName=" href " from="#a" to="other.svg#a"/></use>',
    "animated fill": '<rect><animate attributeName="fill" values="red;url(//example.com/a#b)"/></rect>',
    "import without url": '<style>@import "//example.com/a.css";</style>',
    "import in capitals": "<style>@IMPORT URL(//example.com/a.css);</style>",
    "import of data": "<style>@import url(data:text/css,a);</style>",
    "import with an escape": r'<style>@\69mport "//example.com/a.css";</style>',
    "import split by an element": "<style>@imp<g>x</g>ort url(//example.com/a.css);</style>",
    "import split by an empty element": '<style>@imp<g/>ort "a.css";</style>',
    "import split by a comment": '<style>@imp<!-- x -->ort "a.css";</style>',
    "import split by a section": '<style>@imp<![CDATA[ort "a.css";]]></style>',
    "import as characters": '<style>&#64;import "a.css";</style>',
    "import behind another": '<style>@charset "utf-8"; .a { fill: red } @import "a.css";</style>',
    "import in a style in a style": '<style><style>@imp<g>x</g>ort "a.css";</style></style>',
    "import of text in between": '<style><g>@import "a.css";</g></style>',
    "url split by an element": "<style>.a { fill: u<g>x</g>rl(//example.com/a#b) }</style>",
    "url as characters": '<rect fill="&#x75;rl(//example.com/a#b)"/>',
    "url in quotes": """<rect style="fill: url( '//example.com/a#b' )"/>""",
    "url with an escape": r'<style>.a { fill: u\72 l("//example.com/a#b") }</style>',
    "url that begins harmless": '<rect style="--a: url(#b); fill: url(a.svg#b)"/>',
    "url in a block in a block": "<style>@media all { .a { fill: url(a.svg#b) } }</style>",
    "set of images": '<style>.a { mask: image-set("//example.com/a.png" 1x) }</style>',
    "set of images, prefixed": '<rect style="mask: -webkit-image-set(url(//example.com/a.png) 1x)"/>',
    "set of images with an escape": r'<rect style="mask: image\2d set(&quot;a.png&quot; 1x)"/>',
    "set of images from a variable": """<rect style="--a: 'a.png'; mask: image-set(var(--a) 1x)"/>""",
    "set of images inside of a fade": """<rect style="mask: cross-fade(image-set('a.png' 1x), red)"/>""",
    "source": '<rect style="mask: src(&quot;a.png&quot;)"/>',
    "source from a variable": """<rect style="--a: 'a.png'; mask: src(var(--a))"/>""",
    "image": '<rect style="mask: image(&quot;a.png&quot;, red)"/>',
    "cursor": '<rect cursor="url(a.cur), pointer"/>',
    "filter": '<rect filter="url(a.svg#b)"/>',
    "marker": '<path marker-end="url(a.svg#b)"/>',
    "expression": '<rect style="width: expression(alert(1))"/>',
    "binding": '<rect style="-moz-binding: url(#a)"/>',
}  # fmt: skip
XML_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><svg xmlns="http://www.w3.org/2000/svg"><text>&c;</text></svg>'
)
XXE = (
    b'<!DOCTYPE svg [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    b'<svg xmlns="http://www.w3.org/2000/svg"><text>&file;</text></svg>'
)


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("image_format", TYPES)
async def test_a_guest_behind_the_end_of_an_image_is_cut_off(
    inspector: Inspector, image_format: str, guest: str
) -> None:
    content = picture(image_format)
    found = await inspector.inspect(ReceivedFile.of_bytes(content + GUESTS[guest]), None)
    assert found.content.read() == content
    assert found.content.sha256 == ReceivedFile.of_bytes(content).sha256


@pytest.mark.parametrize("size", [30, 45, 60])
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF"])
async def test_an_image_that_is_cut_off_before_its_first_pixel(image_format: str, size: int) -> None:
    assert type(await refuse(EVERYTHING, picture(image_format)[:size])) is CorruptFileError


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
async def test_a_webp_that_is_cut_off_because_no_browser_shows_any_of_it(share: float) -> None:
    noise = encoded(Image.effect_noise((200, 100), 80).convert("RGB"), "WEBP")
    assert type(await refuse(EVERYTHING, noise[: int(len(noise) * share)])) is CorruptFileError


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_is_refused_before_it_is_decoded(bomb: str) -> None:
    assert len(BOMBS[bomb]) < 4_000_000
    assert type(await refuse(EVERYTHING, BOMBS[bomb])) is ImageTooLargeError


async def test_decoding_ends_with_its_time() -> None:
    limits = FileLimits(max_file_size=2**30, allowed_types=KNOWN_TYPES, time_limit=0.000_001)
    assert type(await refuse(limits, picture())) is ImageTimeoutError


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("declared", [*TYPES.values(), "text/html", "image/svg+xml", "application/pdf"])
async def test_what_is_declared_as_something_else(real: str, declared: str) -> None:
    if TYPES[real] != declared:
        assert type(await refuse(EVERYTHING, picture(real), declared)) is FileTypeMismatchError


@pytest.mark.parametrize("declared", ["image/png", "text/css", "text/plain", "text/javascript", "application/json"])
async def test_a_page_that_is_declared_as_something_harmless(declared: str) -> None:
    assert type(await refuse(EVERYTHING, PAGE, declared)) is FileTypeMismatchError


@pytest.mark.parametrize(
    "content",
    [PAGE, SVG, archive(), b"%PDF-1.7\n%%EOF", b"just text", b"{}", b"\x7fELF" + bytes(99), b"BM" + bytes(99),
     bytes(99), b"\xff\xfe<\x00s\x00v\x00g\x00", b"II*\x00" + bytes(99), b"\x1f\x8b\x08" + bytes(20)],
)  # fmt: skip
async def test_what_is_no_allowed_image(content: bytes) -> None:
    assert type(await refuse(IMAGES, content)) is FileTypeNotAllowedError


async def test_a_name_or_header_does_not_make_an_image() -> None:
    assert type(await refuse(IMAGES, b"MZ" + bytes(500), "image/png")) is FileTypeMismatchError


async def test_an_empty_file() -> None:
    assert type(await refuse(EVERYTHING, b"", "image/png")) is EmptyFileError


@pytest.mark.parametrize("drawing", DRAWINGS)
async def test_a_drawing_that_does_more_than_draw(drawing: str) -> None:
    content = f'<svg xmlns="http://www.w3.org/2000/svg">{DRAWINGS[drawing]}</svg>'.encode()
    assert type(await refuse(EVERYTHING, content)) is ActiveContentError


@pytest.mark.parametrize("content", [XML_BOMB, XXE], ids=["bomb", "file of the server"])
async def test_a_drawing_with_entities(content: bytes) -> None:
    assert type(await refuse(EVERYTHING, content, "image/svg+xml")) is ActiveContentError


async def test_a_drawing_with_a_style_sheet_from_elsewhere() -> None:
    content = b'<?xml version="1.0"?><?xml-stylesheet href="https://example.com/a.css"?>' + SVG
    assert type(await refuse(EVERYTHING, content, "image/svg+xml")) in {ActiveContentError, FileTypeMismatchError}


@pytest.mark.parametrize(
    "content",
    [b'<svg xmlns="http://www.w3.org/2000/svg"><g></svg>', b"<svg><g/></svg>", SVG + b"<script/>",
     b'<svg xmlns="http://www.w3.org/2000/svg">' + b"<g>" * 1000 + b"</g>" * 1000 + b"</svg>",
     b'<?xml version="1.0" encoding="utf-7"?>' + SVG],
)  # fmt: skip
async def test_a_drawing_that_is_no_well_formed_xml(content: bytes) -> None:
    assert type(await refuse(EVERYTHING, content, "image/svg+xml")) is CorruptFileError


@pytest.mark.parametrize(
    "content",
    [SVG + b" " * 20_000_000,
     SVG.replace(b"/>", b' d="' + b"M1 1" * 2_000_000 + b'"/>'),
     SVG.replace(b"/>", b" ".join(b' a%d="1"' % number for number in range(200_000)) + b"/>"),
     SVG.replace(b"<circle", b"<style>" + b".a { fill: url(#a) }" * 100_000 + b"</style><circle")],
    ids=["all of it", "one attribute", "many attributes", "styles"],
)  # fmt: skip
async def test_a_drawing_that_would_take_too_long_to_be_checked(content: bytes) -> None:
    assert type(await refuse(EVERYTHING, content, "image/svg+xml")) is ImageTooLargeError


@pytest.mark.parametrize("declared", ["image/png", None, "application/json"])
async def test_nothing_is_parsed_that_may_not_be_stored(declared: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(_: object) -> None:
        pytest.fail("parsed")

    monkeypatch.setattr("orjson.loads", parse)
    monkeypatch.setattr("data_layer.storage.validation.inspector.check_svg", parse)
    wrong = FileTypeMismatchError if declared == "image/png" else FileTypeNotAllowedError
    assert type(await refuse(IMAGES, b'{"a": [1, 2]}', declared)) is wrong
    if declared is None:
        assert type(await refuse(IMAGES, SVG)) is FileTypeNotAllowedError


async def test_long_json_is_not_parsed(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orjson.loads", lambda _: pytest.fail("parsed"))
    content = b"[" + b"1," * 1_000_000 + b"1]\n"
    found = await inspector.inspect(ReceivedFile.of_bytes(content), "application/json")
    assert found.content_type == "application/json"
    cut = await refuse(EVERYTHING, content[:-2], "application/json")
    assert type(cut) is FileTypeMismatchError


async def test_short_json_is_parsed(inspector: Inspector) -> None:
    found = await inspector.inspect(ReceivedFile.of_bytes(b'\xef\xbb\xbf {"a": [1, 2]}'), "application/json")
    assert found.content_type == "application/json"
    assert type(await refuse(EVERYTHING, b'{"a": ]}', "application/json")) is FileTypeMismatchError


async def test_a_text_is_looked_at_to_its_end(inspector: Inspector) -> None:
    text = "Grüße " * 200_000  # Pieces of it end inside of characters.
    found = await inspector.inspect(ReceivedFile.of_bytes(text.encode()), "text/plain")
    assert found.content_type == "text/plain"
    assert type(await refuse(EVERYTHING, text.encode() + b"\xff", "text/plain")) is FileTypeNotAllowedError
    assert type(await refuse(EVERYTHING, text.encode() + b"\x01", "text/plain")) is FileTypeNotAllowedError


async def test_fill_bytes_are_passed_over_once(inspector: Inspector) -> None:
    """Looking for the marker behind each of them would take minutes."""
    content = picture("JPEG")
    found = await inspector.inspect(ReceivedFile.of_bytes(content[:-2] + b"\xff" * 3_000_000 + b"\xd9"), None)
    assert found.image is not None
    assert found.content.size <= len(content) + 2, "they are not stored, and no decoder reads them"


async def test_documents_that_go_on_behind_their_end() -> None:
    assert type(await refuse(EVERYTHING, archive() + PAGE)) is PolyglotFileError
    assert type(await refuse(EVERYTHING, archive()[:-10])) is CorruptFileError
    assert type(await refuse(EVERYTHING, b"%PDF-1.7\n%%EOF\n<script>")) is PolyglotFileError
    assert type(await refuse(EVERYTHING, b"%PDF-1.7\nnothing")) is CorruptFileError


async def test_damaged_checksums_and_contradicting_sizes() -> None:
    content = bytearray(picture())
    content[40] ^= 1
    assert type(await refuse(EVERYTHING, bytes(content))) is CorruptFileError
    assert type(await refuse(EVERYTHING, png(100, 100, bytes(50)))) is CorruptFileError
    assert type(await refuse(EVERYTHING, png(0, 100))) is CorruptFileError


async def test_an_animation_with_too_many_frames() -> None:
    for image_format in ("GIF", "WEBP", "PNG"):
        assert type(await refuse(EVERYTHING, animation(image_format, frames=21))) is ImageTooLargeError


async def test_errors_name_the_setting_and_never_the_content() -> None:
    error = await refuse(IMAGES, b"secret-in-the-file")
    assert "ALLOWED_FILE_TYPES" in str(error)
    assert "secret" not in str(error)
