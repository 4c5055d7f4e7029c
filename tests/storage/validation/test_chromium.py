"""What Chromium shows is accepted here, and what is stored of it looks the same: one run for all odd pictures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from PIL import Image
from typing_extensions import override

from data_layer.errors import InvalidFileError
from data_layer.storage.validation import (
    FileLimits,
    InspectedFile,
    Inspector,
    MetadataRemoval,
    ReceivedFile,
    Thumbnail,
)
from tests.needs_debian import find_program
from tests.storage.validation.pictures import corpus

pytestmark = pytest.mark.needs_debian

TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
REMOVALS: tuple[MetadataRemoval, ...] = ("none", "location", "all")
PLACES = ((0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8))
SCRIPT = """
async function look(kind, data) {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([bytes], {type: 'image/' + kind}));
  if (!await new Promise(done => { image.onload = () => done(true); image.onerror = () => done(false); })) return null;
  const width = image.naturalWidth, height = image.naturalHeight;
  const canvas = new OffscreenCanvas(width, height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  URL.revokeObjectURL(image.src);
  const colorAt = ([x, y]) => [...canvas.getImageData(Math.floor(x * width), Math.floor(y * height), 1, 1).data];
  const colors = PLACES.map(colorAt);
  return colors.some(color => color[3]) ? {size: [width, height], colors} : null;
}
(async () => {
  const seen = {};
  const pictures = await (await fetch('/pictures')).json();
  for (const [name, [kind, data]] of Object.entries(pictures)) seen[name] = await look(kind, data);
  await fetch('/seen', {method: 'POST', body: JSON.stringify(seen)});
})();
""".replace("PLACES", json.dumps(PLACES))

# Thumbnails of noise are grey, rows that are missing are filled in as one likes, and an animation may have a picture
# that is not part of it.
OTHERWISE = {
    "jpeg: a flipped bit",
    "png: animated, default apart",
    "gif: rows missing",
}


def is_shown_otherwise(name: str) -> bool:
    return name in OTHERWISE or " cut at " in name or name.startswith("webp: orientation")


Shown = dict[Literal["size", "colors"], Any]


class Looked(NamedTuple):
    """What Chromium shows of each content by its hash, what was found here by name and removal, and thumbnails."""

    shown: dict[str, Shown | None]
    found: dict[tuple[str, MetadataRemoval], InspectedFile | None]
    thumbnails: dict[str, list[Thumbnail]]


class Page(ThreadingHTTPServer):
    """A page that shows pictures and sends back what it sees."""

    def __init__(self, pictures: dict[str, tuple[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.bodies = {
            "/": b"<!doctype html><script>" + SCRIPT.encode() + b"</script>",
            "/pictures": json.dumps(
                {name: (kind, base64.b64encode(content).decode()) for name, (kind, content) in pictures.items()}
            ).encode(),
        }
        self.seen: dict[str, Shown | None] = {}
        self.ended = threading.Event()


class Answer(BaseHTTPRequestHandler):
    server: Page

    def do_GET(self) -> None:
        body = self.server.bodies.get(self.path, b"")
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.server.seen = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(204)
        self.end_headers()
        self.server.ended.set()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass


def look(pictures: dict[str, tuple[str, bytes]], profile: Path) -> dict[str, Shown | None]:
    program = find_program("chromium")
    assert program is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
    ]
    with Page(pictures) as page:
        serving = threading.Thread(target=page.serve_forever)
        serving.start()
        chromium = subprocess.Popen(
            [program, *flags, f"--user-data-dir={profile}", f"http://127.0.0.1:{page.server_port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert page.ended.wait(300), "Chromium has not looked at everything"
        finally:
            chromium.terminate()
            chromium.wait()
            page.shutdown()
            serving.join()
        return page.seen


async def inspect_all() -> tuple[dict[tuple[str, MetadataRemoval], InspectedFile | None], dict[str, list[Thumbnail]]]:
    found: dict[tuple[str, MetadataRemoval], InspectedFile | None] = {}
    thumbnails: dict[str, list[Thumbnail]] = {}
    for removal in REMOVALS:
        limits = FileLimits(
            max_file_size=2**30, allowed_types=TYPES, thumbnail_sizes=(95, 60), metadata_removal=removal
        )
        inspector = Inspector(limits)
        for name, content in corpus().items():
            try:
                file = found[name, removal] = await inspector.inspect(ReceivedFile.of_bytes(content), None)
                if removal == "none":
                    thumbnails[name] = await inspector.thumbnails(file)
            except InvalidFileError:
                found[name, removal] = None
        await inspector.close()
    return found, thumbnails


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    found, thumbnails = asyncio.run(inspect_all())
    pictures = {digest(content): (name.partition(":")[0], content) for name, content in corpus().items()}
    for (name, _), file in found.items():
        if file is not None:
            pictures[file.content.sha256] = (name.partition(":")[0], file.content.read())
    return Looked(look(pictures, tmp_path_factory.mktemp("chromium")), found, thumbnails)


def alike(first: list[list[int]], second: list[list[int]], tolerance: int) -> bool:
    """Whether colors are the same, as far as they are opaque."""
    return all(
        abs(one - other) <= tolerance
        for color, another in zip(first, second, strict=True)
        if color[3] == 255
        for one, other in zip(color[:3], another[:3], strict=True)
    )


def colors_of(content: bytes) -> list[list[int]]:
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    places = [(int(x * image.width), int(y * image.height)) for x, y in PLACES]
    return [list(image.getpixel(place)) for place in places]  # type: ignore[arg-type]


def test_what_chromium_shows_is_accepted_in_its_size(looked: Looked) -> None:
    different = []
    shown = 0
    for name, content in corpus().items():
        seen = looked.shown[digest(content)]
        found = looked.found[name, "none"]
        if seen is None:
            continue
        shown += 1
        image = found.image if found else None
        size = [image.width, image.height] if image else None
        # Chromium is the only browser that does not respect the orientation of a WebP.
        if size != seen["size"] and not (name.startswith("webp: orientation") and size == seen["size"][::-1]):
            different.append((name, seen["size"], size))
    assert different == []
    assert shown > 700


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_is_stored_looks_as_what_was_sent(looked: Looked, removal: MetadataRemoval) -> None:
    different = []
    for name, content in corpus().items():
        seen, found = looked.shown[digest(content)], looked.found[name, removal]
        if seen is not None and found is not None:
            stored = looked.shown[found.content.sha256]
            if stored is None or stored["size"] != seen["size"] or not alike(seen["colors"], stored["colors"], 0):
                different.append((name, seen, stored))
    assert different == []


def test_thumbnails_look_as_the_picture_in_chromium(looked: Looked) -> None:
    different = []
    for name, content in corpus().items():
        seen, found = looked.shown[digest(content)], looked.found[name, "none"]
        if seen is None or found is None or is_shown_otherwise(name):
            continue
        for thumbnail in looked.thumbnails[name]:
            colors = colors_of(thumbnail.file.read())
            if not alike(seen["colors"], colors, 12):
                different.append((name, seen["colors"], colors))
    assert different == []
