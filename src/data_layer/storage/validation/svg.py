"""Drawings in SVG: parsed without entities, and refused when a browser would execute or fetch anything for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.parsers import expat

from data_layer.errors import ActiveContentError, CorruptFileError

if TYPE_CHECKING:
    from typing import NoReturn

_SVG = "http://www.w3.org/2000/svg"
_XHTML = "http://www.w3.org/1999/xhtml"
_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 256

_ACTIVE_ELEMENTS = frozenset(
    {"script", "foreignobject", "iframe", "embed", "object", "audio", "video", "handler", "listener", "link", "meta"}
)
_ANIMATIONS = frozenset({"animate", "set", "animatetransform", "animatemotion"})
_REFERENCES = frozenset({"href", "src", "action", "formaction", "data", "base"})
_HARMLESS_REFERENCE = re.compile(r"#|data:image/(png|jpeg|gif|webp);base64,", re.IGNORECASE)
_STYLE_REFERENCE = re.compile(r"url\(\s*[\"']?\s*(?!#|data:image/(png|jpeg|gif|webp);base64,|[\"'#])", re.IGNORECASE)
_ACTIVE_STYLE = re.compile(r"@import|expression\s*\(|javascript:|-moz-binding|\\", re.IGNORECASE)
_ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def check_svg(content: bytes) -> None:
    """Accept a drawing that only draws.

    Raises:
        ActiveContentError: it holds a script, an event handler, a reference to elsewhere, HTML, or entities, with which
            a small file can unfold to gigabytes.
        CorruptFileError: it is no well-formed XML with a drawing in it, or is nested absurdly deep.
    """
    reader = _Reader()
    try:
        reader.parser.Parse(content, True)
    except expat.ExpatError as error:
        raise CorruptFileError(f"The image/svg+xml is not well-formed: {error}") from error


class _Reader:
    """Looks at each part of the XML as the parser comes to it."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.XmlDeclHandler = self._declaration
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.EntityDeclHandler = self._entity
        self.parser.ProcessingInstructionHandler = self._instruction
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self._elements = 0
        self._depth = 0
        self._style_depth = 0
        self._style: list[str] = []

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise CorruptFileError(f"The image/svg+xml must be in UTF-8, not in {encoding[:40]!a}")

    def _doctype(self, _name: str, _system: str | None, _public: str | None, has_subset: int) -> None:
        if has_subset:
            _refuse("declarations of its own in its DOCTYPE")

    def _entity(self, *_: object) -> None:
        _refuse("an entity")

    def _instruction(self, target: str, _data: str) -> None:
        _refuse(f"the processing instruction {target[:40]!a}")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        local = local.lower()
        self._elements += 1
        self._depth += 1
        if self._elements == 1 and (namespace, local) != (_SVG, "svg"):
            raise CorruptFileError(f"The outermost element is no svg in the namespace {_SVG}")
        if self._elements > _MAX_ELEMENTS or self._depth > _MAX_DEPTH:
            raise CorruptFileError(f"More than {_MAX_ELEMENTS} elements, or {_MAX_DEPTH} inside each other")
        if local in _ACTIVE_ELEMENTS or namespace == _XHTML:
            _refuse(f"the element <{local[:40]}>")
        if local == "style":
            self._style_depth = self._style_depth or self._depth
        for attribute, value in attributes.items():
            space, _, bare = attribute.rpartition(" ")
            _check_attribute(local, bare.lower(), value)
            # Styles are in attributes without a namespace, whatever these are called.
            if not space and not bare.lower().startswith(("data-", "aria-")):
                _check_style(value)

    def _end(self, _name: str) -> None:
        if self._style_depth == self._depth:
            _check_style("".join(self._style))
            self._style_depth, self._style = 0, []
        self._depth -= 1

    def _text(self, text: str) -> None:
        if self._style_depth:
            self._style.append(text)


def _check_attribute(element: str, name: str, value: str) -> None:
    if name.startswith("on"):
        _refuse(f"the event handler {name[:40]!a}")
    if name in _REFERENCES and not _HARMLESS_REFERENCE.match(value.strip()) and value.strip():
        _refuse(f"a reference to elsewhere in {name!r} of <{element[:40]}>")
    if element in _ANIMATIONS and name == "attributename":
        animated = value.rpartition(":")[2].strip().lower()
        if animated in _REFERENCES or animated.startswith("on"):
            _refuse(f"an animation of {animated[:40]!a}")


def _check_style(style: str) -> None:
    if _STYLE_REFERENCE.search(style):
        _refuse("a style that refers to elsewhere")
    if _ACTIVE_STYLE.search(style):
        _refuse("a style that imports, executes or hides something")


def _refuse(what: str) -> NoReturn:
    raise ActiveContentError(f"The image/svg+xml holds {what}; remove it")
