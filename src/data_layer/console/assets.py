"""Style sheets, scripts and icons, served under names that hold their hash: browsers may keep them for a year."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

STATIC_PATH = "/console/static/"

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    content: bytes
    media_type: str


class Assets:
    """All static files, read once."""

    def __init__(self) -> None:
        self._served: dict[str, Asset] = {}
        self._names: dict[str, str] = {}
        for file in resources.files("data_layer.console").joinpath("static").iterdir():
            stem, _, suffix = file.name.rpartition(".")
            content = file.read_bytes()
            served = f"{stem}.{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
            self._names[file.name] = served
            self._served[served] = Asset(content, _TYPES[suffix])

    def url(self, name: str) -> str:
        """The address of a file, which changes with its content."""
        return STATIC_PATH + self._names[name]

    def find(self, served_name: str) -> Asset | None:
        """The file that is served under a name."""
        return self._served.get(served_name)
