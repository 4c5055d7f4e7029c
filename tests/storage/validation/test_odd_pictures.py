"""What becomes of odd pictures without a browser: orientation, metadata, colors, and where they are cut off."""

from __future__ import annotations

import hashlib
import io
import random
import struct

import pytest
from PIL import Image

from data_layer.errors import CorruptFileError
from data_layer.storage.port import HashedBytes
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import (
    FileLimits,
    InspectedFile,
    Inspector,
    MetadataRemoval,
    ReceivedFile,
    Thumbnail,
    receive,
)
from tests.file_content import encoded, opened
from tests.storage.validation import pictures
from tests.storage.validation.pictures import (
    ADOBE_RGB,
    ASCII,
    DARK_GREY,
    DISPLAY_P3,
    EXIF,
    GPS,
    HEIGHT,
    LONG,
    MAKE,
    ORIENTATION,
    WIDTH,
    X_RESOLUTION,
    chunk,
    jpeg,
    odd_exif,
    orientation,
    png,
    quarters,
    segment,
    tag,
    tiff,
    two_pictures,
    webp,
    webp_with_exif,
    with_chunks,
    with_segments,
)

pytestmark = pytest.mark.slow

TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
REMOVALS: tuple[MetadataRemoval, ...] = ("none", "location", "all")


async def inspect(content: bytes, removal: MetadataRemoval = "none") -> InspectedFile:
    inspector = Inspector(FileLimits(2**30, TYPES, thumbnail_sizes=(60,), metadata_removal=removal, time_limit=60))
    try:
        return await inspector.inspect(ReceivedFile.of_bytes(content), None)
    finally:
        await inspector.close()


async def thumbnails_of(file: InspectedFile) -> list[Thumbnail]:
    inspector = Inspector(FileLimits(2**30, TYPES, thumbnail_sizes=(60,), time_limit=60))
    try:
        return await inspector.thumbnails(file)
    finally:
        await inspector.close()


def exif_in(image_format: str, exif: bytes) -> bytes:
    if image_format == "JPEG":
        return with_segments(jpeg(), segment(0xE1, EXIF + exif))
    return with_chunks(png(), chunk(b"eXIf", exif)) if image_format == "PNG" else webp_with_exif(exif)


def size_of(file: InspectedFile) -> tuple[int, int]:
    assert file.image is not None
    return file.image.width, file.image.height


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
async def test_odd_exif_never_costs_the_orientation(image_format: str, order: str, removal: MetadataRemoval) -> None:
    for value in range(1, 9):
        for name, exif in odd_exif(value, order):
            found = await inspect(exif_in(image_format, exif), removal)
            upright = (WIDTH, HEIGHT) if value < 5 else (HEIGHT, WIDTH)
            assert size_of(found) == upright, (name, value)
            [small] = await thumbnails_of(found)
            assert (small.width > small.height) == (value < 5), (name, value)
            assert size_of(await inspect(found.content.read(), removal)) == upright, (name, value)
            if removal != "none":
                assert opened(found.content.read()).getexif().get(ORIENTATION, 1) == value, (name, value)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
async def test_a_place_is_removed_from_exif_that_is_odd(image_format: str) -> None:
    place = struct.pack("<HHHI4s", 1, 1, ASCII, 2, b"N\0") + bytes(4) + b"51.4778 north"
    exif = (
        tiff(
            tag(MAKE, ASCII, 9, b"A camera\0"),
            orientation(6),
            tag(X_RESOLUTION, ASCII, 9, b"72 pixels"),
            tag(GPS, LONG, 1, struct.pack("<I", 200)),
        ).ljust(200, b"\0")
        + place
    )
    found = await inspect(exif_in(image_format, exif), "location")
    stored = found.content.read()
    assert b"51.4778" not in stored
    kept = opened(stored).getexif()
    assert dict(kept) == {MAKE: "A camera", ORIENTATION: 6}
    assert (await inspect(stored, "location")).content.sha256 == found.content.sha256
    assert dict(opened((await inspect(stored, "all")).content.read()).getexif()) == {ORIENTATION: 6}


@pytest.mark.parametrize("removal", ["location", "all"])
async def test_a_second_place_is_removed_too(removal: MetadataRemoval) -> None:
    xmp = b"http://ns.adobe.com/xap/1.0/\0<GPSLatitude>51.4778</GPSLatitude>"
    second = segment(0xE1, EXIF + tiff(tag(MAKE, ASCII, 9, b"51.4778 N")))
    photoshop = segment(0xED, b"Photoshop 3.0\x0051.4778")
    content = with_segments(jpeg(), segment(0xE1, EXIF + tiff(orientation(3))), second, segment(0xE1, xmp), photoshop)
    assert b"51.4778" not in (await inspect(content, removal)).content.read()
    texts = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\x0051.4778"), chunk(b"eXIf", tiff()), chunk(b"eXIf", b"51.4778")
    assert b"51.4778" not in (await inspect(with_chunks(png(), *texts), removal)).content.read()


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("profile", [DISPLAY_P3, ADOBE_RGB], ids=["P3", "Adobe RGB"])
async def test_thumbnails_and_dominant_color_are_in_srgb(
    image_format: str, profile: bytes, removal: MetadataRemoval
) -> None:
    """What a Display-P3 screenshot calls 235, 50, 35 is the red of sRGB."""
    image = Image.new("RGB", (90, 60), (235, 50, 35) if profile is DISPLAY_P3 else (219, 0, 0))
    options = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {"lossless": True}
    found = await inspect(encoded(image, image_format, icc_profile=profile, **options), removal)
    assert found.image is not None
    assert found.image.dominant_color is not None
    red, green, blue = bytes.fromhex(found.image.dominant_color[1:])
    assert red > 250
    assert max(green, blue) < 15
    [small] = await thumbnails_of(found)
    thumbnail = opened(small.file.read())
    shown = thumbnail.convert("RGB").getpixel((30, 20))
    assert isinstance(shown, tuple)
    assert shown[0] > 248
    assert max(shown[1:]) < 18
    assert "icc_profile" not in thumbnail.info
    assert opened(found.content.read()).info["icc_profile"] == profile


async def test_grey_with_a_profile_is_as_bright_as_it_is_shown() -> None:
    found = await inspect(png(Image.new("L", (90, 60), 76), icc_profile=DARK_GREY))
    assert found.image is not None
    assert found.image.dominant_color == "#949494"


@pytest.mark.parametrize("profile", [b"nonsense", DISPLAY_P3[:200], DARK_GREY, bytes(5000), DISPLAY_P3[:-50]])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
async def test_a_profile_that_cannot_be_used_is_as_good_as_none(image_format: str, profile: bytes) -> None:
    content = encoded(Image.new("RGB", (90, 60), (200, 30, 60)), image_format, icc_profile=profile)
    found = await inspect(content)
    assert found.image is not None
    assert found.image.dominant_color is not None
    color = bytes.fromhex(found.image.dominant_color[1:])
    assert all(abs(channel - wanted) < 12 for channel, wanted in zip(color, (200, 30, 60), strict=True))


async def test_the_second_picture_of_a_phone_is_cut_off() -> None:
    found = await inspect(two_pictures())
    stored = opened(found.content.read())
    assert (stored.format, stored.size, getattr(stored, "n_frames", 1)) == ("JPEG", (WIDTH, HEIGHT), 1)
    assert (await inspect(found.content.read())).content.sha256 == found.content.sha256


@pytest.mark.parametrize("behind", [b"", bytes(1000), b"\xff", b"\xff" * 9])
async def test_a_jpeg_without_an_end_gets_one(behind: bytes) -> None:
    found = await inspect(jpeg().removesuffix(b"\xff\xd9") + behind)
    stored = found.content.read()
    assert stored.endswith(b"\xff\xd9")
    assert stored.rstrip(b"\xff\xd9\0") == jpeg().rstrip(b"\xff\xd9\0")
    assert opened(stored).tobytes() == opened(jpeg()).tobytes()


@pytest.mark.parametrize("behind", [b"", bytes(1000), b"text"])
async def test_a_gif_without_an_end_gets_one(behind: bytes) -> None:
    found = await inspect(pictures.gif()[:-1] + behind)
    assert found.content.read() == pictures.gif()


async def test_a_frame_outside_of_the_canvas_does_not_make_it_larger() -> None:
    first = pictures.gif_image(0, 0, quarters())
    content = pictures.gif_of(WIDTH, HEIGHT, first, pictures.gif_image(60, 40, quarters()))
    found = await inspect(content)
    assert size_of(found) == (WIDTH, HEIGHT)
    assert found.image is not None
    assert found.image.frame_count == 2
    assert found.content.read() == content


async def test_a_tall_screenshot_at_double_density_is_within_the_defaults() -> None:
    content = png(Image.new("RGB", (2560, 30_000), "white"), compress_level=1)
    found = await inspect(content)
    assert size_of(found) == (2560, 30_000)
    assert [small.height for small in await thumbnails_of(found)] == [60]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(700, 500), (1, 3000), (3000, 1), (997, 1009)])
async def test_png_decoded_in_strips_is_what_pillow_decodes_as_a_whole(mode: str, size: tuple[int, int]) -> None:
    """All filters, several strips, and rows of bits that do not fill a byte."""
    left = Image.linear_gradient("L").resize(size)
    top = Image.radial_gradient("L").resize(size)
    image = Image.merge("RGBA", (left, top, left.transpose(Image.Transpose.FLIP_TOP_BOTTOM), top)).convert(mode)
    found = await inspect(png(image))
    expected = image.convert("RGBA").resize((8, 8), Image.Resampling.BOX)
    [small] = await thumbnails_of(found)
    made = opened(small.file.read()).convert("RGBA").resize((8, 8), Image.Resampling.BOX)
    for one, other in zip(expected.tobytes(), made.tobytes(), strict=True):
        assert abs(one - other) < 40


async def test_webp_of_several_parts_keeps_what_shows_it() -> None:
    half = quarters("RGBA")
    half.putalpha(128)
    content = webp(half, quality=95, xmp=b"<x/>", icc_profile=DISPLAY_P3)
    stored = opened((await inspect(content, "all")).content.read())
    assert stored.tobytes() == opened(content).tobytes()
    assert "xmp" not in stored.info
    assert stored.info["icc_profile"] == DISPLAY_P3


async def test_a_large_picture_that_is_cut_off_waits_in_a_file_of_its_own() -> None:
    content = png(Image.frombytes("L", (1000, 900), random.Random(1).randbytes(900_000)))
    sent = content + b"<script>alert(1)</script>"
    threads = FileThreads(2)
    inspector = Inspector(FileLimits(2**30, TYPES, thumbnail_sizes=(60,), time_limit=60))
    async with receive(io.BytesIO(sent), 2**30, threads) as received:
        assert not received.is_in_memory
        found = await inspector.inspect(received, None)
        uploaded = found.content.to_upload()
        assert not isinstance(uploaded, HashedBytes)
        assert uploaded.read() == content
        assert found.content.size == len(content)
        assert found.content.sha256 == hashlib.sha256(content).hexdigest()
        assert found.content.read_part(len(content) - 4, 100) == content[-4:]
    assert uploaded.closed
    await inspector.close()
    await threads.close()


NOT_SHOWN = {
    "jpeg": ["unknown segments", "begins twice"],
    "png": ["wrong checksum of the header", "wrong checksum of the palette", "unknown critical chunk"],
    "webp": [
        *(f"{kind}announced much smaller" for kind in ("", "lossless, ", "animated, ")),
        *(f"{kind}announced smaller" for kind in ("", "lossless, ", "animated, ")),
        *(f"{kind}cut at {share}" for kind in ("", "lossless, ", "animated, ") for share in (0.999, 0.9, 0.7)),
        *("said to be animated", "other size announced", "reserved bits"),
        *("animated, frame outside", "animated, frame across"),
        *("animated, first frame broken", "animated, second frame broken"),
    ],
}
"""What Chromium does not show either: see test_chromium.py."""


async def test_what_cannot_be_shown_is_refused_and_nothing_else() -> None:
    refused = []
    for name, content in pictures.corpus().items():
        try:
            found = await inspect(content)
        except CorruptFileError:
            refused.append(name)
        else:
            assert max(size_of(found)) <= 60 or len(await thumbnails_of(found)) == 1, name
    assert sorted(refused) == sorted(f"{kind}: {name}" for kind, names in NOT_SHOWN.items() for name in names)


async def test_small_and_large_pngs_are_decoded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one is decoded at once, a large one in strips."""
    pngs = [content for name, content in pictures.corpus().items() if name.startswith("png")]
    at_once = [await outcome(content) for content in pngs]
    monkeypatch.setattr("data_layer.storage.validation.images._WHOLE_PNG", 0)
    in_strips = [await outcome(content) for content in pngs]
    assert len(pngs) > 50
    assert at_once == in_strips


async def outcome(content: bytes) -> tuple[object, ...]:
    """What there is to know of an image, or why it is refused."""
    try:
        file = await inspect(content)
    except CorruptFileError as error:
        return (str(error),)
    return (file.image, *(thumbnail.file.read() for thumbnail in await thumbnails_of(file)))
