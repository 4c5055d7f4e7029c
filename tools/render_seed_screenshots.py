"""Render the screenshots and pictures of the seed data with a real browser.

``src/data_layer/seed_data/catalog.json`` tells which pages exist. For every project this
script opens the newest page that it holds in headless Chromium, takes a screenshot and writes
it, reduced to a palette, to ``screenshots/``. Every picture in ``image_sources/`` (SVG) is drawn
the same way and written to ``images/`` in the format and the size that the catalog declares.

The pages load React, Vue, Tailwind, fonts and so on from a CDN. The browser never reaches it:
each request is answered from a cache of npm packages, which this script fills with ``npm pack``.
The stored pages stay as they are.

What it needs:

* Chromium as Debian packages it (``apt install chromium``), or another one named by ``--chromium``;
* ``npm`` with a registry that it reaches (only for packages that are not in the cache yet);
* Pillow (``pip install pillow``).

Usage::

    python tools/render_seed_screenshots.py                     # everything
    python tools/render_seed_screenshots.py pricing-page fern   # only these projects or pictures
    python tools/render_seed_screenshots.py --page draft.html --output draft.png

The exit code is 1 if a page asked for something that is not there, threw an error, or became
too large, and 0 otherwise.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import io
import json
import mimetypes
import os
import re
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from PIL import Image

SEED_DATA = Path(__file__).resolve().parent.parent / "src" / "data_layer" / "seed_data"
DEFAULT_CACHE = Path(tempfile.gettempdir()) / "data-layer-seed-npm"

FETCHING = threading.Lock()
"""A browser asks for several files of a package at once."""

PAGE_ORIGIN = "https://seed.invalid"
CDN_URL = re.compile(r"^https://cdn\.jsdelivr\.net/npm/((?:@[\w.-]+/)?[\w.-]+@[\w.+-]+)/(.+)$")

SCREENSHOT_TARGET = 70_000
SCREENSHOT_LIMIT = 120_000
PICTURE_LIMIT = 60_000

PAGE_TIME_LIMIT = 60.0
QUIET_TIME = 1.0


class RenderError(Exception):
    """A page or a picture could not be rendered."""


@dataclass(frozen=True, slots=True)
class Viewport:
    """The size of the window in CSS pixels, and how many device pixels one of them takes."""

    width: int = 1280
    height: int = 800
    scale: float = 1.0
    mobile: bool = False


@dataclass(slots=True)
class PackageCache:
    """npm packages, unpacked in one folder: ``<folder>/<name>@<version>/…``."""

    folder: Path

    def file(self, package: str, path: str) -> Path | None:
        """Return one file of a package, fetching the package first if need be."""
        root = (self.folder / package).resolve()
        with FETCHING:
            if not root.is_dir():
                self._fetch(package, root)
        found = (root / path).resolve()
        return found if found.is_relative_to(root) and found.is_file() else None

    def _fetch(self, package: str, root: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            command = ["npm", "pack", "--silent", "--pack-destination", scratch, package]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            archives = list(Path(scratch).glob("*.tgz"))
            if result.returncode != 0 or len(archives) != 1:
                raise RenderError(f"npm could not fetch {package}: {result.stderr.strip()}")
            with tarfile.open(archives[0]) as archive:
                archive.extractall(scratch, filter="data")
            root.parent.mkdir(parents=True, exist_ok=True)
            # Nearly every package is packed under "package/"; some name the folder otherwise.
            unpacked = next(entry for entry in Path(scratch).iterdir() if entry.is_dir())
            shutil.move(unpacked, root)


@dataclass(slots=True)
class PageLog:
    """What happened while one page loaded."""

    problems: list[str] = field(default_factory=list)
    loaded: bool = False
    last_activity: float = field(default_factory=time.monotonic)


class Chromium:
    """Headless Chromium, driven by the DevTools protocol over a pair of pipes."""

    def __init__(self, executable: str, packages: PackageCache) -> None:
        self._packages = packages
        self._profile = tempfile.TemporaryDirectory(prefix="seed-chromium-")
        self._buffer = b""
        self._last_id = 0
        self._page: Path | None = None
        self._log = PageLog()

        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        command_read, self._commands = os.pipe()
        self._answers, answer_write = os.pipe()
        for_child = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (command_read, answer_write)]

        def place_descriptors() -> None:
            os.dup2(for_child[0], 3)
            os.dup2(for_child[1], 4)

        self._process = subprocess.Popen(
            [
                executable,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--force-color-profile=srgb",
                "--font-render-hinting=none",
                "--remote-debugging-pipe",
                f"--user-data-dir={self._profile.name}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=place_descriptors,  # noqa: PLW1509 - this program has no threads
        )
        for descriptor in (command_read, answer_write, *for_child):
            os.close(descriptor)
        self._session = self._open_tab()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._profile.name, ignore_errors=True)
        self._profile.cleanup()

    def screenshot(self, page: Path, viewport: Viewport) -> tuple[bytes, list[str]]:
        """Return a PNG of the page, and the problems that it had while it loaded."""
        self._page = page
        self._log = PageLog()
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=viewport.width,
            height=viewport.height,
            deviceScaleFactor=viewport.scale,
            mobile=viewport.mobile,
        )
        # Moving parts stand still, so that two runs give the same picture.
        still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        self._call("Emulation.setEmulatedMedia", features=still)
        self._call("Page.navigate", url=f"{PAGE_ORIGIN}/{page.name}")
        self._wait_until_quiet(page)
        self._call("Runtime.evaluate", expression="document.fonts?.ready", awaitPromise=True)
        self._wait_until_quiet(page)
        answer = self._call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"]), self._log.problems

    def _open_tab(self) -> str:
        target = self._call("Target.createTarget", session="", url="about:blank")
        attached = self._call("Target.attachToTarget", session="", targetId=target["targetId"], flatten=True)
        session = str(attached["sessionId"])
        self._session = session
        for domain in ("Page", "Runtime", "Fetch"):
            self._call(f"{domain}.enable")
        return session

    def _wait_until_quiet(self, page: Path) -> None:
        """Wait until the page is loaded and nothing has been asked for during a second."""
        deadline = time.monotonic() + PAGE_TIME_LIMIT
        self._log.last_activity = time.monotonic()
        while time.monotonic() < deadline:
            message = self._receive(timeout=0.1)
            if message is not None:
                self._handle_event(message)
            elif self._log.loaded and time.monotonic() - self._log.last_activity > QUIET_TIME:
                return
        raise RenderError(f"{page.name} was not ready within {PAGE_TIME_LIMIT:.0f} s")

    def _call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer; events that come first are handled."""
        request = self._send(method, session=session, **params)
        deadline = time.monotonic() + PAGE_TIME_LIMIT
        while time.monotonic() < deadline:
            message = self._receive(timeout=1.0)
            if message is None:
                continue
            if message.get("id") != request:
                self._handle_event(message)
                continue
            if "error" in message:
                raise RenderError(f"{method}: {message['error'].get('message')}")
            result: dict[str, Any] = message.get("result", {})
            return result
        raise RenderError(f"{method}: the browser did not answer")

    def _send(self, method: str, *, session: str | None = None, **params: Any) -> int:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        session = self._session if session is None else session
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        return self._last_id

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._answers], [], [], left)[0]:
                return None
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise RenderError("the browser ended unexpectedly")
            self._buffer += chunk
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        return message

    def _handle_event(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._log.loaded = True
            case "Fetch.requestPaused":
                self._log.last_activity = time.monotonic()
                self._answer_request(params["requestId"], params["request"]["url"])
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                text = details.get("exception", {}).get("description") or details.get("text")
                self._log.problems.append(f"error in the page: {text}")
            case "Runtime.consoleAPICalled" if params.get("type") == "error":
                text = " ".join(str(arg.get("value", arg.get("description", ""))) for arg in params["args"])
                self._log.problems.append(f"console: {text}")

    def _answer_request(self, request: str, url: str) -> None:
        """Answer a request of the page from the page's file or from the package cache."""
        path = self._local_file(url)
        if path is None:
            if not url.endswith("/favicon.ico"):
                self._log.problems.append(f"not available: {url}")
            self._send("Fetch.failRequest", requestId=request, errorReason="AddressUnreachable")
            return
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if content_type.startswith("text/"):
            content_type += "; charset=utf-8"
        self._send(
            "Fetch.fulfillRequest",
            requestId=request,
            responseCode=200,
            responseHeaders=[
                {"name": "Content-Type", "value": content_type},
                {"name": "Access-Control-Allow-Origin", "value": "*"},
            ],
            body=base64.b64encode(path.read_bytes()).decode(),
        )

    def _local_file(self, url: str) -> Path | None:
        if self._page is not None and url == f"{PAGE_ORIGIN}/{self._page.name}":
            return self._page
        plain = unquote(urlsplit(url)._replace(query="", fragment="").geturl())
        if found := CDN_URL.match(plain):
            return self._packages.file(found[1], found[2])
        return None


def reduce_to_palette(png: bytes, target: int) -> bytes:
    """Return the picture with a palette: with the most colours that stay within the target."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    smallest = b""
    for colours in (256, 192, 128, 96, 64):
        output = io.BytesIO()
        palette = image.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
        palette.save(output, "PNG", optimize=True)
        smallest = output.getvalue()
        if len(smallest) <= target:
            break
    return smallest


def encode_picture(png: bytes, suffix: str) -> bytes:
    """Return the picture in the format of its suffix, as good as the limit allows."""
    if suffix == ".png":
        return reduce_to_palette(png, PICTURE_LIMIT)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    data = b""
    for quality in (92, 88, 84, 80, 74, 68, 60):
        output = io.BytesIO()
        image.save(output, "WEBP", quality=quality, method=6)
        data = output.getvalue()
        if len(data) <= PICTURE_LIMIT:
            break
    return data


def project_viewport(project: dict[str, Any]) -> Viewport:
    """Return the window in which the project's page is shown (``settings.viewport``)."""
    settings = project["settings"].get("viewport", {})
    return Viewport(
        width=int(settings.get("width", 1280)),
        height=int(settings.get("height", 800)),
        scale=float(settings.get("scale", 1)),
        mobile=project["type"] == "mobile_app",
    )


def final_page(project: dict[str, Any]) -> Path:
    """Return the first variant of the newest generation that was completed."""
    completed = [code for code in project["codes"] if code["status"] == "completed"]
    newest = max(completed, key=lambda code: (code["generation"], -code["variant_index"]))
    return SEED_DATA / str(newest["file"])


def render_project(browser: Chromium, project: dict[str, Any]) -> list[str]:
    """Write the screenshot of one project; return its problems."""
    png, problems = browser.screenshot(final_page(project), project_viewport(project))
    data = reduce_to_palette(png, SCREENSHOT_TARGET)
    if len(data) > SCREENSHOT_LIMIT:
        problems.append(f"the screenshot takes {len(data)} bytes")
    target = SEED_DATA / str(project["screenshot"])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    print(f"{project['screenshot']}: {len(data)} bytes")
    return problems


def render_picture(browser: Chromium, image: dict[str, Any]) -> list[str]:
    """Write one generated picture; return its problems."""
    target = SEED_DATA / str(image["file"])
    source = SEED_DATA / "image_sources" / f"{target.stem}.svg"
    width, height = (int(number) for number in str(image["size"]).split("x"))
    png, problems = browser.screenshot(source, Viewport(width, height))
    data = encode_picture(png, target.suffix)
    if len(data) > PICTURE_LIMIT:
        problems.append(f"the picture takes {len(data)} bytes")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    print(f"{image['file']}: {len(data)} bytes")
    return problems


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Render the screenshots of the seed data.")
    parser.add_argument("only", nargs="*", help="project keys or picture names (default: all)")
    parser.add_argument("--chromium", default="chromium", help="the browser to start")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder for npm packages (%(default)s)")
    parser.add_argument("--page", type=Path, help="render only this file …")
    parser.add_argument("--output", type=Path, help="… to this PNG, unreduced")
    parser.add_argument("--size", default="1280x800", help="window for --page (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="pixel ratio for --page")
    parser.add_argument("--mobile", action="store_true", help="show --page as a phone does")
    arguments = parser.parse_args()
    if (arguments.page is None) != (arguments.output is None):
        parser.error("--page and --output belong together")
    return arguments


def render_one_page(browser: Chromium, arguments: argparse.Namespace) -> list[str]:
    """Render the single page that the command line names; return its problems."""
    width, height = (int(number) for number in arguments.size.split("x"))
    viewport = Viewport(width, height, arguments.scale, arguments.mobile)
    png, problems = browser.screenshot(arguments.page.resolve(), viewport)
    arguments.output.write_bytes(png)
    return [f"{arguments.page}: {problem}" for problem in problems]


def render_catalog(browser: Chromium, only: set[str]) -> list[str]:
    """Render what the catalog names (or only some of it); return all problems."""
    catalog = json.loads((SEED_DATA / "catalog.json").read_text(encoding="utf-8"))
    problems: list[str] = []
    for project in catalog["projects"]:
        if not only or project["key"] in only:
            found = render_project(browser, project)
            problems += [f"{project['key']}: {problem}" for problem in found]
        for image in project["images"]:
            if not only or Path(image["file"]).stem in only:
                found = render_picture(browser, image)
                problems += [f"{image['file']}: {problem}" for problem in found]
    return problems


def main() -> int:
    """Render what the command line asks for."""
    arguments = parse_arguments()
    executable = shutil.which(arguments.chromium)
    if executable is None:
        print(f"{arguments.chromium} is not installed (Debian: apt install chromium)")
        return 1
    try:
        with Chromium(executable, PackageCache(arguments.cache)) as browser:
            if arguments.page is not None:
                problems = render_one_page(browser, arguments)
            else:
                problems = render_catalog(browser, set(arguments.only))
    except RenderError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
