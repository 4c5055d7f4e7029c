"""Good files of all types, what is recorded of them, and what is made of them."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_layer.errors import InvalidFileError
from data_layer.storage.validation import FileLimits, InspectedFile, Inspector, MetadataRemoval, ReceivedFile, Thumbnail
from data_layer.storage.validation.inspector import KNOWN_TYPES
from tests.file_content import PAGE, SVG, TYPES, animation, encoded, opened, picture
from tests.storage.validation.pictures import segment, with_segments

GPS, CAMERA, ORIENTATION = 0x8825, 0x010F, 0x0112


def limits(**changes: Any) -> FileLimits:
    return FileLimits(**{"max_file_size": 2**30, "allowed_types": KNOWN_TYPES, **changes})


async def inspect(content: bytes, declared: str | None = None, **changes: Any) -> InspectedFile:
    inspector = Inspector(limits(**changes))
    try:
        return await inspector.inspect(ReceivedFile.of_bytes(content), declared)
    finally:
        await inspector.close()


async def thumbnails(content: bytes, *sizes: int) -> list[Thumbnail]:
    inspector = Inspector(limits(thumbnail_sizes=sizes))
    try:
        return await inspector.thumbnails(await inspector.inspect(ReceivedFile.of_bytes(content), None))
    finally:
        await inspector.close()


@pytest.mark.parametrize("image_format", TYPES)
@pytest.mark.parametrize("declared", [None, "application/octet-stream", "right"])
async def test_what_is_known_about_an_image(image_format: str, declared: str | None) -> None:
    content = picture(image_format, (321, 123), color=(200, 30, 60))
    found = await inspect(content, TYPES[image_format] if declared == "right" else declared)
    assert found.content_type == TYPES[image_format]
    assert found.content.read() == content
    assert found.image is not None
    assert (found.image.image_format, found.image.width, found.image.height) == (image_format, 321, 123)
    assert found.image.frame_count == 1
    assert found.image.dominant_color is not None
    channels = bytes.fromhex(found.image.dominant_color[1:])
    assert all(abs(channel - wanted) < 12 for channel, wanted in zip(channels, (200, 30, 60), strict=True))


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
async def test_an_animation_is_counted_and_kept(image_format: str) -> None:
    content = animation(image_format, frames=5)
    found = await inspect(content)
    assert found.image is not None
    assert (found.image.frame_count, found.image.width, found.image.height) == (5, 60, 40)
    assert found.content.read() == content
    [small] = await thumbnails(content, 30)
    assert getattr(opened(small.file.read()), "n_frames", 1) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
async def test_every_kind_of_pixel(mode: str) -> None:
    image_format = "JPEG" if mode == "CMYK" else "PNG"
    content = encoded(Image.new(mode, (64, 48)), image_format)
    found = await inspect(content)
    assert found.image is not None
    assert (found.image.width, found.image.height) == (64, 48)
    [small] = await thumbnails(content, 32)
    assert opened(small.file.read()).size == (32, 24)


async def test_a_colour_that_stands_for_transparency_is_not_the_dominant_one() -> None:
    image = Image.new("RGB", (60, 60), (0, 255, 0))
    image.paste((200, 30, 60), (0, 0, 20, 20))
    found = await inspect(encoded(image, "PNG", transparency=(0, 255, 0)))
    assert found.image is not None
    assert found.image.dominant_color == "#c81e3c"


async def test_a_transparent_image_has_no_colour_and_its_thumbnail_stays_transparent() -> None:
    content = encoded(Image.new("RGBA", (90, 90), (255, 0, 0, 0)), "PNG")
    found = await inspect(content)
    assert found.image is not None
    assert found.image.dominant_color is None
    [small] = await thumbnails(content, 30)
    assert opened(small.file.read()).getchannel("A").getextrema() == (0, 0)


async def test_thumbnails_keep_the_shape_and_never_grow() -> None:
    made = await thumbnails(picture(size=(1000, 250)), 200, 800, 4000)
    assert [(small.width, small.height) for small in made] == [(800, 200), (200, 50)]
    assert [opened(small.file.read()).format for small in made] == ["WEBP", "WEBP"]
    assert await thumbnails(picture(size=(100, 100)), 100, 200) == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
async def test_the_orientation_is_respected(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(Image.new("RGB", (300, 100), "navy"), image_format, exif=exif)
    found = await inspect(content)
    assert found.image is not None
    upright = (300, 100) if orientation < 5 else (100, 300)
    assert (found.image.width, found.image.height) == upright
    [small] = await thumbnails(content, 60)
    assert (small.width, small.height) == (upright[0] // 5, upright[1] // 5)


def located(image_format: str) -> bytes:
    exif = Image.Exif()
    exif[CAMERA], exif[ORIENTATION] = "A camera", 6
    exif[GPS] = {2: (51.0, 28.0, 40.0)}
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><exif:GPSLatitude>51,28.67N</exif:GPSLatitude></x:xmpmeta>"
    noise = Image.effect_noise((120, 80), 60).convert("RGB")
    if image_format == "JPEG":  # Older Pillow writes no XMP there.
        return with_segments(encoded(noise, "JPEG", exif=exif), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))
    return encoded(noise, "WEBP", exif=exif, xmp=xmp) if image_format == "WEBP" else encoded(noise, "PNG", exif=exif)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("removal", ["none", "location", "all"])
async def test_metadata_is_removed_as_the_setting_says(image_format: str, removal: MetadataRemoval) -> None:
    content = located(image_format)
    found = await inspect(content, metadata_removal=removal)
    kept = opened(found.content.read())
    exif = kept.getexif()
    assert kept.tobytes() == opened(content).tobytes(), "the pixels are the same"
    assert exif.get(ORIENTATION) == 6, "the image stays upright"
    assert (GPS in exif) == (removal == "none")
    assert (CAMERA in exif) == (removal != "all")
    assert (b"GPSLatitude" in found.content.read()) == (removal == "none" and image_format != "PNG")
    if removal == "none":
        assert found.content.read() == content
    assert (await inspect(found.content.read(), metadata_removal=removal)).content.sha256 == found.content.sha256


@pytest.mark.parametrize("image_format", TYPES)
async def test_an_image_without_metadata_is_not_touched(image_format: str) -> None:
    content = picture(image_format)
    assert (await inspect(content, metadata_removal="all")).content.read() == content


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
async def test_a_thumbnail_tells_no_place(image_format: str) -> None:
    [small] = await thumbnails(located(image_format), 50)
    assert not opened(small.file.read()).getexif()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("a.txt", "a")
        zipped.comment = b"a comment"
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "declared", "decided"),
    [
        (PAGE, None, "text/html"),
        (PAGE, "text/html; charset=utf-8", "text/html"),
        (b"\xef\xbb\xbf<!-- a --> <html></html>", None, "text/html"),
        (SVG, None, "image/svg+xml"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<!-- drawn by hand -->\n' + SVG, None, "image/svg+xml"),
        (b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">' + SVG,
         "image/svg+xml", "image/svg+xml"),
        (b'{"a": [1, 2]}', None, "application/json"),
        (b'{"a": [1, 2]}', "text/javascript", "text/javascript"),
        (b"body { color: red }", "text/css", "text/css"),
        (b"alert(1)", "application/javascript", "text/javascript"),
        (b"alert(1)", None, "text/plain"),
        ("Grüße\r\n\tan alle".encode(), "text/markdown", "text/markdown"),
        (archive(), None, "application/zip"),
        (b"%PDF-1.7\n1 0 obj\n%%EOF\n", None, "application/pdf"),
        (picture("JPEG"), "image/jpg", "image/jpeg"),
        (picture("JPEG"), "IMAGE/PJPEG", "image/jpeg"),
    ],
)  # fmt: skip
async def test_the_type_is_decided_by_content(content: bytes, declared: str | None, decided: str) -> None:
    found = await inspect(content, declared)
    assert (found.content_type, found.content.read()) == (decided, content)


@pytest.mark.parametrize(
    "drawing",
    ['<use href="#a"/>', '<rect fill="url(#g)"/>', "<style>.a { fill: red }</style>",
     '<a id="x"><text>onclick</text></a>',
     '<image href="data:image/png;base64,iVBORw0KGgo="/>', '<animate attributeName="r" to="3"/>',
     "<style>@namespace svg url(http://www.w3.org/2000/svg); .a { fill: url(#g) }</style>",
     r'<style>.\31 0 { fill: url("#g") } /* @import url(//example.com) */</style>',
     '<style>.a::before { content: "url(//example.com) @import" }</style>',
     '<style>@font-face { src: url(data:font/woff2;base64,AAAA) format("woff2") }</style>',
     '<rect style="mask: url(data:image/png;base64,AAAA); width: calc(1px * var(--a))"/>',
     """<rect style="mask: image-set('data:image/png;base64,AAAA' type('image/png'))"/>""",
     "<text>@import url(//example.com)</text>", '<g id="url" class="image src"/>', '<image href=""/>',
     r'<g xmlns:i="http://inkscape.org" i:path="C:\pictures\a.svg"/>', '<g style="fill: url(&quot;#g&quot;)"/>'],
)  # fmt: skip
async def test_a_drawing_that_only_draws(drawing: str) -> None:
    content = f'<svg xmlns="http://www.w3.org/2000/svg">{drawing}</svg>'.encode()
    assert (await inspect(content)).content_type == "image/svg+xml"


async def test_other_work_goes_on_while_an_image_is_decoded() -> None:
    content = encoded(Image.effect_noise((3000, 2000), 90).convert("RGB"), "PNG")
    turns = 0
    decoding = asyncio.create_task(inspect(content))
    while not decoding.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await decoding).image is not None
    assert turns > 50


async def test_whoever_is_cancelled_leaves_and_the_thread_ends_by_itself() -> None:
    inspector = Inspector(limits())
    content = encoded(Image.effect_noise((3000, 2000), 90).convert("RGB"), "PNG")
    task = asyncio.create_task(inspector.inspect(ReceivedFile.of_bytes(content), None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started = time.monotonic()
    await inspector.close()
    assert time.monotonic() - started < limits().time_limit


# Whatever is done to a good file, it is accepted or refused with one of our errors, quickly.
GOOD_FILES = [*map(picture, TYPES), animation("GIF"), animation("WEBP"), PAGE, SVG, archive(), located("JPEG")]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.sampled_from(GOOD_FILES),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 6)), max_size=4),
    declared=st.sampled_from([None, *sorted(KNOWN_TYPES)]),
    removal=st.sampled_from(["none", "all"]),
)
def test_a_damaged_file_never_does_harm(
    content: bytes, edits: list[tuple[float, bytes, int]], declared: str | None, removal: MetadataRemoval
) -> None:
    for place, inserted, removed in edits:
        position = int(place * len(content))
        content = content[:position] + inserted + content[position + removed :]
    try:
        found = asyncio.run(inspect(content, declared, metadata_removal=removal, time_limit=5.0))
    except InvalidFileError:
        return
    assert found.content_type in KNOWN_TYPES
    if found.image is not None and found.image.dominant_color is not None:  # It was decoded.
        assert Image.open(io.BytesIO(found.content.read())).format == found.image.image_format
