"""Pages from templates, the headers that keep them safe, and static files under names that hold their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from data_layer.console import words
from data_layer.console.languages import Language, Languages

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


_DIRECTIVES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "font-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Signed addresses of images and pages, and searches, stay here.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Renderer:
    """Makes pages of templates.

    Args:
        preview_origin: where hostile pages are shown (PREVIEW_ORIGIN); None: in an opaque origin of this host.
        has_remote_images: whether pictures come from a storage elsewhere.
        open_project: the address at which an application opens a project, for a button; None where there is none.
    """

    def __init__(
        self,
        *,
        preview_origin: str | None,
        has_remote_images: bool,
        open_project: Callable[[UUID], str] | None = None,
    ) -> None:
        self.open_project = open_project
        self.assets = _assets()
        self.languages = _languages()
        directives = _DIRECTIVES | {
            "frame-src": "'self'" if preview_origin is None else f"'self' {preview_origin}",
            "img-src": "'self' data: http: https:" if has_remote_images else "'self' data:",
        }
        policy = "; ".join(f"{name} {value}" for name, value in directives.items())
        self._headers = _HEADERS | {"content-security-policy": policy}
        self._environments = {code: _environment(code) for code in self.languages.all}

    def page(self, template: str, language: Language, values: Mapping[str, Any], status: int = 200) -> Response:
        """A page, or a part of one. Whatever is filled in is escaped."""
        return HTMLResponse(self.content(template, language, values), status, self._headers)

    def content(self, template: str, language: Language, values: Mapping[str, Any]) -> bytes:
        """The bytes of the same."""
        content = self._environments[language.code].get_template(template).render(values)
        # A lone surrogate, which stored text may hold, cannot be sent.
        return content.encode("utf-8", "replace")

    def protect(self, response: Response) -> Response:
        """Add the headers to an answer that has none of its own."""
        for name, value in self._headers.items():
            response.headers.setdefault(name, value)
        return response


@cache
def _assets() -> Assets:
    return Assets()


@cache
def _languages() -> Languages:
    return Languages()


@cache
def _environment(code: str) -> Environment:
    """What compiles the templates of a language, each once in a process."""
    languages = _languages().all
    language = languages[code]
    environment = Environment(
        loader=PackageLoader("data_layer.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
        auto_reload=False,
    )
    environment.install_gettext_translations(language.translations, newstyle=True)  # type: ignore[attr-defined]
    environment.globals.update(words=words, language=language, languages=languages, asset=_assets().url)
    environment.filters.update(
        word=language.word,
        sentence=language.sentence,
        recorded=language.recorded,
        ago=language.ago,
        moment=language.moment,
        minute=language.minute,
        milliseconds=language.milliseconds,
        day=language.day,
        number=language.number,
        compact=language.compact,
        percent=language.percent,
        size=language.size,
        query=_query,
    )
    environment.globals["money"] = language.money
    return environment


def _query(values: Mapping[str, Any]) -> str:
    """The query of an address, without what is empty."""
    return urlencode([(name, str(value)) for name, value in values.items() if value not in (None, "", False)])
